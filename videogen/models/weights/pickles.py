"""Open .ckpt, .pt, .pth and .bin files without running what they carry.

A pickle is a program. `torch.load(weights_only=True)` runs a small part of that language only; everything else is
refused here with the name of what the file asked for. Two harmless things stand in many old checkpoints of the field,
a training library's callback class and NumPy scalars beside the loss; an inert placeholder takes their place, so
their code is not even imported.
"""

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videogen.errors import InputError

WRAPPERS = ("state_dict", "model", "module", "controlnet")
"""Keys under which training scripts put the state dict, outermost first."""

INERT = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
"""Names that only describe a training run; a placeholder stands in for them."""


class Placeholder:
    """Stands where a checkpoint names one of `INERT`: takes any arguments and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def load_pickle(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a pickled checkpoint, unwrapped and flattened; memory-mapped where the format allows.

    Raises InputError as `opened` does, and for a file that holds one tensor without a name.
    """
    content = opened(path)
    if isinstance(content, Tensor):
        raise InputError(f"{path} holds one bare tensor, not named weights")
    return flatten(unwrap(content)) if isinstance(content, Mapping) else {}


def opened(path: Path) -> Any:
    """What lies in a pickled file, without running it.

    Raises InputError for a file that is missing or cut short, and for code in it (names the first offending global).
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file")
    zipped = is_zip(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(Placeholder, name) for name in INERT]):
            warnings.simplefilter("ignore")  # torch warns about old pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as problem:
        raise InputError(_refusal(path, str(problem), zipped)) from None
    except Exception as problem:
        raise InputError(f"{path} is damaged or cut short ({type(problem).__name__}); get the file again") from None


def unwrap(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Descend into `state_dict`, `model`, `module` or `controlnet` as long as one of them holds a dictionary with
    tensors.
    """
    while True:
        inner = next((content[key] for key in WRAPPERS if key in content and _holds_tensors(content[key])), None)
        if inner is None:
            return content
        content = inner


def flatten(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """Join nested dictionaries with dots, drop what is no tensor, strip a leading `module.` (left by distributed
    training).
    """
    flat: dict[str, Tensor] = {}
    for key, value in content.items():
        name = prefix + str(key)
        if isinstance(value, Tensor):
            flat[name.removeprefix("module.")] = value.detach()
        elif isinstance(value, Mapping):
            flat |= flatten(value, name + ".")
    return flat


def is_zip(path: Path) -> bool:
    """Whether the file begins as torch's present format does (a zip archive)."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def named_globals(path: Path) -> Iterator[str]:
    """Yield `module.name` of every global that the pickle asks for, without running it.

    Old (non-zip) checkpoints are a row of pickles; all are looked at, as far as they can be parsed.
    """
    if is_zip(path):
        with zipfile.ZipFile(path) as archive:
            streams = [archive.open(name) for name in archive.namelist() if name.endswith(".pkl")]
            for stream in streams:
                yield from _globals_of(stream)
    else:
        with open(path, "rb") as stream:
            for _ in range(5):  # magic number, protocol, system, object, storage keys
                yield from _globals_of(stream)


def _globals_of(stream: Any) -> Iterator[str]:
    strings: list[str] = []
    try:
        for code, argument, _ in pickletools.genops(stream):
            if code.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif code.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(argument, str):
                strings.append(argument)
    except Exception:
        return


def _holds_tensors(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(inner, Tensor) or _holds_tensors(inner) for inner in value.values())


def _refusal(path: Path, message: str, zipped: bool) -> str:
    told = re.search(r"GLOBAL ([\w.]+)", message)
    names = [told.group(1)] if told else named_globals(path)
    name = next((name for name in names if not _harmless(name)), None)
    if name:
        return f"{path} carries code ({name}) and was not opened; use a .safetensors file of it"
    what = "is damaged or cut short" if zipped else "is no checkpoint, or damaged or cut short"
    return f"{path} {what}; get the file again"


def _harmless(name: str) -> bool:
    return name in INERT or name.split(".")[0] in ("torch", "collections", "_codecs")
