"""What a training shows on the way: clips from a few prompts, always from the same noise, a contact sheet, and figures in the shapes world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from videogen.errors import InputError
from videogen.training.config import Strict

if TYPE_CHECKING:
    from videogen.pipeline import Pipeline


class Validation(Strict):
    """What is made. Size, steps and guidance are the model's own where they are not given; one frame makes pictures."""

    prompts: tuple[str, ...] = Field(min_length=1)
    negative_prompt: str | None = None
    frames: int = Field(16, gt=0)
    width: int | None = Field(None, gt=0)
    height: int | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)
    guidance: float | None = None
    fps: float = Field(8, gt=0)
    seed: int = 0


def make(pipe: Pipeline, wanted: Validation, folder: Path, *, measured: bool) -> dict[str, float]:
    """Write `0.mp4`, `1.mp4`, ... (`.png` for pictures) and `sheet.png` into the folder.

    measured  the model is the miniature: its clips are read by the shapes world's program

    Returns the shares of prompts that are met, by attribute (`right_colour`, ...), where measured.
    """
    from videogen.clip import Clip, contact_sheet, frame_rate
    from videogen.video import write

    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, prompt in enumerate(wanted.prompts):
        made = pipe(
            prompt, negative_prompt=wanted.negative_prompt, num_frames=wanted.frames, height=wanted.height, width=wanted.width,
            num_inference_steps=wanted.steps, guidance_scale=wanted.guidance, seed=wanted.seed + number, output_type="pt",
            progress=False,
        )  # fmt: skip
        clips.append(Clip(made.frames[0].float().clamp(0, 1), frame_rate(wanted.fps)))
        suffix = "png" if wanted.frames == 1 else "mp4"
        write(folder / f"{number}.{suffix}", clips[-1], overwrite=True)
    contact_sheet(clips, wanted.prompts, columns=min(8, wanted.frames)).save(folder / "sheet.png")
    return figures(torch.stack([clip.frames for clip in clips]), wanted.prompts) if measured else {}


def figures(frames: Tensor, prompts: tuple[str, ...]) -> dict[str, float]:
    """Clips `b f 3 H W` in [0, 1]: the share that meets its prompt, of those that name the attribute.

    Prompts that speak of nothing in the world are passed over; motion is not asked of pictures.
    """
    from videogen.shapes import parse
    from videogen.training.sampled import shares

    told = []
    for number, prompt in enumerate(prompts):
        try:
            parse(prompt)
        except InputError:
            continue
        told.append(number)
    if not told:
        return {}
    found = shares(frames[told], [prompts[number] for number in told])
    still = frames.shape[1] == 1
    return {name: share for name, share in found.items() if not (still and name in ("right_motion", "right_unchanged"))}
