"""videogen: video generation and editing with latent diffusion, one vocabulary for the whole family.

The names below are imported when they are first used (PEP 562), so that `import videogen` costs little and needs no
library that the work at hand does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> the module it lives in
_HOMES = {
    "Conditioning": "videogen.conditioning",
    "Control": "videogen.control",
    "Denoiser": "videogen.denoiser",
    "Dial": "videogen.conditioning",
    "InputError": "videogen.errors",
    "Path": "videogen.path",
    "Pipeline": "videogen.pipeline",
    "Prediction": "videogen.prediction",
}

__all__ = ["Conditioning", "Control", "Denoiser", "Dial", "InputError", "Path", "Pipeline", "Prediction", "__version__"]

if TYPE_CHECKING:
    from videogen.conditioning import Conditioning as Conditioning
    from videogen.conditioning import Dial as Dial
    from videogen.control import Control as Control
    from videogen.denoiser import Denoiser as Denoiser
    from videogen.errors import InputError as InputError
    from videogen.path import Path as Path
    from videogen.pipeline import Pipeline as Pipeline
    from videogen.prediction import Prediction as Prediction


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'videogen' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, the ones not yet imported among them."""
    return sorted({*globals(), *_HOMES})
