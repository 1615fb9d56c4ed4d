"""Editing methods, one file each, named as its paper. May import videogen and motion_modules.

`editors.METHOD(pipe, clip, source, target, ...)` is the method itself, imported when it is first used; what else its
file holds comes from there (`from editors.null_text import Descent`).
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Each of these is the function of that name in the file of that name.
METHODS = (
    "ddim_inversion",
    "fatezero",
    "null_text",
    "prompt_pair",
    "prompt_to_prompt",
    "sdedit",
    "text2video_zero",
    "tune_a_video",
)

if TYPE_CHECKING:
    from editors.ddim_inversion import ddim_inversion as ddim_inversion
    from editors.fatezero import fatezero as fatezero
    from editors.null_text import null_text as null_text
    from editors.prompt_pair import prompt_pair as prompt_pair
    from editors.prompt_to_prompt import prompt_to_prompt as prompt_to_prompt
    from editors.sdedit import sdedit as sdedit
    from editors.text2video_zero import text2video_zero as text2video_zero
    from editors.tune_a_video import tune_a_video as tune_a_video


class _Methods(ModuleType):
    """Importing a file binds it to its name in the package; here the method takes that place, whoever imports first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in METHODS and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Methods


def __getattr__(name: str) -> Any:
    """Import a method on first use."""
    if name not in METHODS:
        raise AttributeError(f"module 'editors' has no attribute {name!r}")
    return getattr(import_module(f"editors.{name}"), name)


def __dir__() -> list[str]:
    """The methods, those not yet imported among them."""
    return sorted({*globals(), *METHODS})
