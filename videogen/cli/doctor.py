"""`videogen doctor`: what is installed, what really imports, which backends work."""

import importlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from videogen import __version__
from videogen.cli.folders import configs_folder
from videogen.errors import InputError

if TYPE_CHECKING:
    import torch

# what the program needs: distribution -> a module whose import shows that it works
NEEDED = {
    "torch": "torch",
    "diffusers": "diffusers.models.autoencoders.autoencoder_kl",
    "transformers": "transformers.models.clip.modeling_clip",
    "accelerate": "accelerate",
    "safetensors": "safetensors.torch",
    "huggingface_hub": "huggingface_hub",
    "numpy": "numpy",
    "einops": "einops",
    "av": "av",
    "pillow": "PIL.Image",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "tqdm": "tqdm",
}
# what it can use: distribution -> (module, what it is for)
OPTIONAL = {
    "xformers": ("xformers.ops", "an attention kernel, not used yet; videogen[xformers]"),
    "decord": ("decord", "fast random access to video; videogen[decord]"),
    "peft": ("peft", "compared with in the tests; videogen[dev]"),
    "matplotlib": ("matplotlib", "plots; videogen[plots]"),
    "tensorboard": ("tensorboard", "training curves; videogen[tensorboard]"),
    "gradio": ("gradio", "a page, not written yet; videogen[page]"),
    "ray": ("ray", "batches over machines, not written yet; videogen[ray]"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `works` is None for what is absent and need not be there."""

    name: str
    works: bool | None
    detail: str
    needed: bool = False

    def __str__(self) -> str:
        mark = {True: "ok", False: "broken", None: "-"}[self.works]
        return f"{mark:<7} {self.name:<26} {self.detail}".rstrip()


def doctor() -> None:
    """Say what is installed, what really imports and which backends work, one line each."""
    broken = []
    for finding in findings():
        typer.echo(str(finding))
        if finding.needed and not finding.works:
            broken.append(finding.name)
    if broken:
        raise InputError(f"what videogen needs does not work here: {', '.join(broken)}; install videogen again")


def findings() -> Iterator[Finding]:
    """Every finding, cheap ones first."""
    yield Finding("videogen", True, f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding(
        "python", True, f"{sys.version.split()[0]} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong is said in the report
        yield _package("torchvision", "torchvision", "never needed")
        importlib.import_module("videogen.foreign")
        for name, module in NEEDED.items():
            yield _package(name, module)
        for name, (module, purpose) in OPTIONAL.items():
            yield _package(name, module, purpose)
        yield from _backends()
    yield _attempt("configurations", _configurations, needed=True)
    yield _attempt("miniature", _miniature)


def _package(name: str, module: str, purpose: str = "") -> Finding:
    """Whether a distribution is there and imports; one without a purpose is needed."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if purpose:
            return Finding(name, None, f"not installed ({purpose})")
        return Finding(name, False, "not installed", needed=True)

    def imported() -> str:
        try:
            importlib.import_module(module)
        except Exception as problem:
            raise ImportError(f"{version} is installed and does not import: {problem}") from problem
        return version

    return _attempt(name, imported, needed=not purpose)


def _attempt(name: str, attempt: Callable[[], str], needed: bool = False) -> Finding:
    """Run a check; whatever it raises is the finding, since a broken library may raise anything."""
    try:
        return Finding(name, True, attempt(), needed)
    except Exception as problem:
        return Finding(name, False, " ".join(str(problem).split())[:200], needed)


def _backends() -> Iterator[Finding]:
    import torch

    devices = ["cpu"]
    devices += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    for device in devices:
        yield _attempt(f"device {device}", partial(_device, device), needed=device == "cpu")
        for dtype in (torch.float16, torch.bfloat16):
            yield _attempt(f"{str(dtype).removeprefix('torch.')} on {device}", partial(_half, device, dtype))
        for kernel in ("MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
            yield _attention(device, kernel)
    for codec, suffix in (("libx264", "mp4"), ("gif", "gif")):
        yield _attempt(f"write {codec}", partial(_codec, codec, suffix), needed=True)


def _device(device: str) -> str:
    import torch

    torch.ones(8, device=device).sum().item()
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"{torch.get_num_threads()} threads"


def _half(device: str, dtype: "torch.dtype") -> str:
    import torch

    picture = torch.ones(1, 8, 8, 8, device=device, dtype=dtype)
    weight = torch.full((8, 8, 3, 3), 1 / 72, device=device, dtype=dtype)
    middle = torch.nn.functional.conv2d(picture, weight)
    if not torch.allclose(middle.float(), torch.ones_like(middle, dtype=torch.float32), atol=0.05):
        raise ArithmeticError("a convolution gives wrong numbers")
    return "a convolution gives the right numbers"


def _attention(device: str, kernel: str) -> Finding:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    q = torch.ones(1, 2, 16, 64, device=device, dtype=dtype)
    name = f"attention {kernel.removesuffix('_ATTENTION').lower()} on {device}"
    try:
        with sdpa_kernel(getattr(SDPBackend, kernel)):
            torch.nn.functional.scaled_dot_product_attention(q, q, q)
    except (RuntimeError, AttributeError):
        return Finding(name, None, "not on this device")
    return Finding(name, True, "")


def _codec(codec: str, suffix: str) -> str:
    """Write four frames into memory and count them again."""
    import av
    import numpy

    memory = io.BytesIO()
    with av.open(memory, "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=8)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 32, 32
        stream.pix_fmt = "yuv420p" if suffix == "mp4" else "rgb8"
        for _ in range(4):
            picture = av.VideoFrame.from_ndarray(numpy.zeros((32, 32, 3), numpy.uint8), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    memory.seek(0)
    with av.open(memory, "r") as container:
        count = sum(1 for _ in container.decode(video=0))
        read_by = container.streams.video[0].codec_context.name
    if count != 4:
        raise ValueError(f"wrote 4 frames, read {count}")
    return f"{suffix} written and read back by {read_by}"


def _configurations() -> str:
    folder = configs_folder()
    return f"{len(list(folder.rglob('*.yaml')))} in {folder}"


def _miniature() -> str:
    from videogen.models.folder import miniature

    folder = miniature()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 2**20:.0f} MiB in {folder}"
