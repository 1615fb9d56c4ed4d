"""Tensor files in and out: safetensors (also sharded), .ckpt, .pt, .pth, .bin; headers without the tensors; complete
or not at all.

What a file is follows from its first bytes, not from its suffix: a web page or a git-lfs pointer saved as weights is
said to be one.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videogen.errors import InputError
from videogen.files import replacing
from videogen.models.weights.pickles import flatten, load_pickle

FOLDER_NAMES = ("diffusion_pytorch_model", "model", "adapter_model", "pytorch_lora_weights", "pytorch_model")
"""File stems that diffusers, transformers and peft write into a part's folder."""

ADVICE = "videogen.json"
"""What a model's makers advise, beside its parts: it fills in what a call leaves open, and computes nothing itself."""

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself without its tensors: `tensors` name -> (shape, dtype), the metadata, the files
    it lies in.
    """

    tensors: dict[str, tuple[tuple[int, ...], str]]
    metadata: dict[str, str]
    files: tuple[Path, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: shape for name, (shape, _) in self.tensors.items()}


def read(path: str | os.PathLike[str], variant: str | None = None) -> dict[str, Tensor]:
    """Read a weight file, a sharded index or a part's folder: name -> tensor on the CPU, in the stored dtype, mapped
    from disk where possible.

    `state_dict`, `model` and `module` wrappers are taken off. Raises InputError (one line) for what is missing, no
    weights, cut short, empty, or a pickle that carries code.
    """
    state: dict[str, Tensor] = {}
    for file in locate(path, variant):
        if _is_pickle(file):
            state |= load_pickle(file)
        else:
            read_safetensors_header(file)  # its errors are plainer than the library's
            with safe_open(file, framework="pt", device="cpu") as opened:
                state |= flatten({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    if not state:
        raise InputError(f"{path} holds no tensors")
    return state


def read_header(path: str | os.PathLike[str]) -> Header:
    """Names, shapes, dtypes and metadata as `read` would give them, without loading tensors (pickles are mapped from
    disk).
    """
    tensors: dict[str, tuple[tuple[int, ...], str]] = {}
    metadata: dict[str, str] = {}
    files = locate(path)
    for file in files:
        if _is_pickle(file):
            state = load_pickle(file)
            tensors |= {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()}
        else:
            found, said = read_safetensors_header(file)
            tensors |= {name.removeprefix("module."): entry for name, entry in found.items()}
            metadata |= said
    if not tensors:
        raise InputError(f"{path} holds no tensors")
    return Header(tensors, metadata, files)


def locate(path: str | os.PathLike[str], variant: str | None = None) -> tuple[Path, ...]:
    """The files that hold the weights named by a file, a sharded `.index.json` or a part's folder.

    variant: as in diffusers, the word before the suffix (`fp16`), where the folder has it. Raises InputError where nothing is found.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_dir():
        path = _in_folder(path, variant)
    if path.name.endswith(".json"):
        return _shards(path)
    return (path,)


def write(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write `state` as safetensors, complete or not at all. `metadata` joins the header; `format: pt` is always in
    it.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    seen: set[int] = set()
    for name, tensor in whole.items():
        if tensor.numel() and tensor.data_ptr() in seen:
            whole[name] = tensor.clone()  # the format has no shared storage
        seen.add(whole[name].data_ptr())
    with replacing(path) as beside:
        save_file(whole, beside, {"format": "pt", **(metadata or {})})


def check_finite(state: Mapping[str, Tensor], source: str | os.PathLike[str] = "the checkpoint") -> None:
    """Raise InputError naming the first tensor that holds NaN or infinity."""
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
            continue
        # the two ends carry NaN and infinity, and need no mask of the tensor's size
        low, high = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            what = "NaN" if torch.isnan(low) else "infinity"
            raise InputError(f"{source}: tensor {name} holds {what}; the file is broken, get or train it again")


def sha256(files: Iterable[Path]) -> str:
    """SHA-256 over the bytes of the files, one after another, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def read_safetensors_header(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], str]], dict[str, str]]:
    """Tensors (shape, dtype) and metadata from the JSON header of one safetensors file; checks that the file is as
    long as it says.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(512)
        length = int.from_bytes(start[:8], "little")
        if size < 8 or start[8:9] != b"{" or length > min(size, 100_000_000):
            raise InputError(_what_it_is_instead(path, start, length))
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__", {})
        tensors = {name: (tuple(e["shape"]), DTYPES.get(e["dtype"], e["dtype"])) for name, e in header.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise InputError(
            f"{path} is no valid safetensors file (its header cannot be read); get the file again"
        ) from None
    if end > size:
        raise InputError(f"{path} is cut short: {size:,} of {end:,} bytes are there; get the file again")
    try:
        with safe_open(path, framework="pt"):
            return tensors, metadata
    except SafetensorError as problem:
        raise InputError(f"{path} is no valid safetensors file ({problem}); get the file again") from None


def _what_it_is_instead(path: Path, start: bytes, length: int) -> str:
    if not start:
        return f"{path} is empty"
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a git-lfs pointer, not the weights; run `git lfs pull` there"
    if start.lstrip()[:1] == b"<":
        return f"{path} is a web page, not weights; download the file itself"
    if start[8:9] == b"{" and length < 100_000_000:
        return f"{path} is cut short; get the file again"
    return f"{path} holds no weights (neither safetensors nor a torch checkpoint)"


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(9)
    if start[:2] == b"PK":
        return True
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[8:9] != b"{"


def _in_folder(folder: Path, variant: str | None) -> Path:
    if found := chosen(names_in(folder), variant):
        return folder / found[0]
    if (folder / "model_index.json").is_file():
        raise InputError(f"{folder} is a whole model; name one of its parts, such as {folder / 'unet'}")
    others = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    which = f"several weight files; name one, such as {others[0]}" if others else "no weight files"
    raise InputError(f"the folder {folder} holds {which}")


def names_in(folder: Path) -> list[str]:
    """The names of a folder's files."""
    return [file.name for file in folder.iterdir() if file.is_file()]


def chosen(names: Collection[str], variant: str | None = None) -> list[str]:
    """Of the files of a part's folder those that hold its weights: one, or an index and its shards; empty where none is the one.

    The variant's, else the plain ones, else those in half precision; safetensors before pickles; a single file of another name.
    """
    for tag in (*((f".{variant}",) if variant else ()), "", ".fp16"):
        for ending in (".safetensors", ".bin"):
            for stem in FOLDER_NAMES:
                if f"{stem}{tag}{ending}" in names:
                    return [f"{stem}{tag}{ending}"]
                if (index := f"{stem}{ending}.index{tag}.json") in names:
                    shard = re.compile(
                        rf"{stem}({re.escape(tag)}-\d+-of-\d+|-\d+-of-\d+{re.escape(tag)}){re.escape(ending)}"
                    )
                    return [index, *filter(shard.fullmatch, sorted(names))]
    others = [name for name in names if name.endswith(SUFFIXES)]
    return others if len(others) == 1 and "model_index.json" not in names else []


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        files = tuple(index.parent / name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{index} is no index of weight files (it has no weight_map)") from None
    stray = next((name for name in names if Path(name).name != name or "\\" in name), None)
    if stray is not None:  # nobody named that file
        raise InputError(f"{index} names {stray}, which is no file beside it; get the model again")
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise InputError(f"{index} names {missing.name}, which is not there; get the missing file")
    return files
