"""A clip as people hold it: frames, how fast they follow each other, and where its sound is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from videogen.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclasses.dataclass(frozen=True)
class Audio:
    """The sound of a clip: the file it lies in, untouched, and the second at which the clip begins there."""

    source: Path
    start: Fraction = Fraction(0)


@dataclasses.dataclass(frozen=True)
class Clip:
    """Frames `f c h w`, c = 3 (or 1, gray), uint8 or float in [0, 1]; frames per second as an exact fraction; sound or
    None.

    A still picture is a clip of one frame. Raises InputError for another shape or dtype, no frames, or a rate that is
    not positive.
    """

    frames: Tensor
    fps: Fraction = Fraction(8)
    audio: Audio | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.frames.shape)
        if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
            raise InputError(
                f"a clip's frames are f c h w with c = 3 or 1 and at least one frame and pixel, not {shape}"
            )
        if self.frames.dtype != torch.uint8 and not self.frames.is_floating_point():
            raise InputError(f"a clip's frames are uint8 or floats in [0, 1], not {self.frames.dtype}")
        object.__setattr__(self, "fps", frame_rate(self.fps))

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.frames.shape[2]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.frames.shape[3]

    @property
    def duration(self) -> Fraction:
        """Seconds, exactly."""
        return len(self) / self.fps

    def cut(self, start: int, stop: int) -> Clip:
        """Frames [start, stop), the sound moved along. Raises InputError where there is none."""
        if not 0 <= start < stop <= len(self):
            raise InputError(f"cannot take frames {start} to {stop} of a clip of {len(self)} frames")
        audio = None if self.audio is None else Audio(self.audio.source, self.audio.start + start / self.fps)
        return dataclasses.replace(self, frames=self.frames[start:stop], audio=audio)

    def to_float(self) -> Tensor:
        """Frames `f c h w` as float32 in [0, 1] (float64 stays)."""
        if self.frames.dtype == torch.uint8:
            return self.frames.float() / 255
        return self.frames if self.frames.dtype == torch.float64 else self.frames.float()

    def to_uint8(self) -> Tensor:
        """Frames `f 3 h w` as uint8, rounded to the nearest; values outside [0, 1] are clamped, NaN is black."""
        frames = self.frames
        if frames.dtype != torch.uint8:
            frames = (frames.float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
        return frames.expand(-1, 3, -1, -1)

    def to_numpy(self) -> np.ndarray:
        """Frames `f h w 3` as uint8."""
        return rearrange(self.to_uint8().cpu(), "f c h w -> f h w c").contiguous().numpy()

    def to_pil(self) -> list[Image]:
        """One PIL picture per frame."""
        from PIL import Image

        return [Image.fromarray(frame) for frame in self.to_numpy()]


def from_numpy(frames: np.ndarray, fps: Fraction | int = 8) -> Clip:
    """A clip from `f h w c`, uint8 or floats in [0, 1]."""
    return Clip(rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "f h w c -> f c h w"), Fraction(fps))


def from_pil(pictures: Sequence[Image], fps: Fraction | int = 8) -> Clip:
    """A clip from PIL pictures of one size. Raises InputError for none, or for several sizes."""
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) != 1:
        what = "no pictures" if not sizes else f"pictures of several sizes ({sizes[0]} and {sizes[-1]})"
        raise InputError(f"a clip cannot be made of {what}")
    return from_numpy(np.stack([rgb(picture) for picture in pictures]), fps)


def rgb(picture: Image) -> np.ndarray:
    """A PIL picture of any mode as `h w 3` uint8. Sixteen bits are scaled, not cut off; transparency shows what lies
    under it.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        gray = np.rint(values / 257 if picture.mode.startswith("I") else values * 255).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    return np.asarray(picture.convert("RGB"))


def contact_sheet(clips: Sequence[Clip], labels: Sequence[str] = (), columns: int = 4, width: int = 160) -> Image:
    """One picture of several clips: a row for each, `columns` frames spread evenly over it, its label above.

    Every frame is drawn `width` pixels wide, heights follow. Raises InputError without clips.
    """
    from PIL import Image, ImageDraw

    if not clips:
        raise InputError("a contact sheet needs at least one clip")
    gap, line = 6, 18
    heights = [max(1, round(clip.height * width / clip.width)) for clip in clips]
    head = line if labels else 0
    size = (gap + columns * (width + gap), gap + sum(head + height + gap for height in heights))
    sheet = Image.new("RGB", size, (250, 250, 250))
    draw = ImageDraw.Draw(sheet)
    top = gap
    for i, (clip, height) in enumerate(zip(clips, heights)):
        if i < len(labels):
            draw.text((gap, top + 2), labels[i], fill=(30, 30, 30))
        top += head
        count = min(columns, len(clip))
        chosen = [round(k * (len(clip) - 1) / max(count - 1, 1)) for k in range(count)]
        pictures = dataclasses.replace(clip, frames=clip.frames[chosen]).to_pil()
        for k, picture in enumerate(pictures):
            whole = height % clip.height == 0 and width % clip.width == 0
            filter_ = Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
            sheet.paste(picture.resize((width, height), filter_), (gap + k * (width + gap), top))
        top += height + gap
    return sheet


def frame_rate(fps: Fraction | int | float | str) -> Fraction:
    """Frames per second as an exact fraction. Raises InputError outside what files can say, above 0 and up to 1000."""
    try:
        rate = Fraction(fps).limit_denominator(1_000_000)
    except (ValueError, OverflowError, ZeroDivisionError, TypeError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise InputError(
            f"{fps} frames per second cannot be written; give a number above 0 and up to 1000, such as 8 or 30000/1001"
        )
    return rate
