"""What a call of the pipeline gives back, in the form that was asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import Tensor

from videogen.errors import InputError

Output = Literal["pil", "np", "pt", "latent"]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a call made.

    frames   per item a list of PIL images (`pil`); or `b f H W 3` (`np`), `b f 3 H W` (`pt`) in [0, 1]; or latents `b f c h w`
    seed     the number that noise was drawn with, also where the call gave none; None with several, or a generator
    times    the positions at which the network was asked
    windows  the frames of each window, empty where the clip was made in one piece
    """

    frames: Any
    seed: int | None
    times: tuple[float, ...]
    windows: tuple[tuple[int, ...], ...]


def check_output(kind: str) -> None:
    """Refuse a form that is not known."""
    if kind not in get_args(Output):
        raise InputError(f"output_type {kind!r}: choose one of {', '.join(get_args(Output))}")


def shown(latents: Tensor, decode: Callable[[Tensor], Tensor], kind: Output) -> Any:
    """Latents `b f c h w` in the form that was asked for; `decode` makes pixels `b f 3 H W` in [0, 1] of them."""
    if kind == "latent":
        return latents
    pixels = decode(latents)
    if kind == "pt":
        return pixels
    arrays = pixels.permute(0, 1, 3, 4, 2).numpy()
    if kind == "np":
        return arrays
    from PIL import Image

    return [[Image.fromarray((frame * 255).round().astype("uint8")) for frame in clip] for clip in arrays]
