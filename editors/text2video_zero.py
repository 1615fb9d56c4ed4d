"""Text2Video-Zero (Khachatryan et al. 2023): clips from an image model that has seen none, without training.

Two ideas. Motion dynamics (algorithm 1): frame 0 is denoised from T to t1 and on to t0; the other frames are its latents at t0, moved by a
flow, then noised back to t1 with fresh noise, so that they share its scene and differ in detail. Cross-frame attention (eq. 8): from t1 on
all frames are denoised together, every self-attention reading keys and values of frame 0. Background smoothing (eq. 9) is an option. Any
Stable Diffusion weights serve, personalised ones too; motion modules are switched off.

Modes that follow a source clip need no motion dynamics: they are `cross_frame` over the clip's conditions. With ControlNet all frames start
from one noise; with InstructPix2Pix the source frames widen the input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from editors.edited import Edited
from videogen.branches import Pair, together
from videogen.errors import InputError
from videogen.frame_choice import FIRST
from videogen.guidance import Scale
from videogen.noise import Draw, FrameNoise, from_generator
from videogen.pipeline import Pipeline
from videogen.prediction import Denoise
from videogen.sampling import ddim
from videogen.times import Times
from videogen.windows import Windows, windowed

Flow = Callable[[int], Tensor]
"""Frame number -> where each place of that frame is read in frame 0, relative to itself: `2` (x, y) or `2 h w`, in shares of the picture's width
and height. A positive flow moves the content left and up."""

Fresh = Callable[[Sequence[int]], Tensor]
"""Frame ids -> unit noise `1 f c h w`."""


def translation(x: float, y: float) -> Flow:
    """A global motion of so many pixels a frame on a picture of 512 x 512, whatever the picture's size (eq. 5; the released code's grid)."""
    return lambda frame: torch.tensor([x, y]) * (frame / 512)


DIAGONAL = translation(12, 12)
"""The motion of the released code: one and a half latents a frame, left and up, on 64 x 64."""


@dataclasses.dataclass(frozen=True)
class Smoothing:
    """Background smoothing (section 3.3.3).

    foreground  what finds the objects: frames `f 3 H W` in [0, 1] -> `f 1 H W`, 1 where an object is
    strength    how much of a frame's own background is kept; the rest is frame 0's, moved by the flow (the paper's lambda is 1 - strength)
    """

    foreground: Callable[[Tensor], Tensor]
    strength: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(f"a smoothing strength of {self.strength:g}: give 0 to 1")


@torch.no_grad()
def text2video_zero(
    pipe: Pipeline,
    prompt: str | Mapping[int, str],
    *,
    negative_prompt: str | None = None,
    num_frames: int = 8,
    height: int | None = None,
    width: int | None = None,
    num_inference_steps: int = 50,
    guidance_scale: Scale = 7.5,
    flow: Flow = DIAGONAL,
    t0: int | None = None,
    t1: int | None = None,
    early: bool = False,
    smoothing: Smoothing | None = None,
    chunk: int = 8,
    conditions: Sequence[Pair] = (),
    seed: int = 0,
    generator: torch.Generator | None = None,
    latents: Tensor | None = None,
) -> Edited:
    """A clip of a prompt (or `{frame: prompt}`).

    height, width  pixels, multiples of the VAE's factor; the model's own size by default
    flow           how frame k is displaced against frame 0
    t0, t1         the two moments, as places in the ascending grid of steps, 0 <= t0 <= t1 < steps; by default 0.88 and 0.94 of it (44
                   and 47 of 50), and at least one step apart. What stands where is settled at less noise on small pictures: on 16 x 16 latents
                   about half of the grid suits
    early          noise by the betas of [t0, t1), as the released code and diffusers have it, instead of (t0, t1]
    chunk          frames of one call of the net, frame 0 among them; does not change the result
    conditions     pairs (given, null), merged with the text
    seed           noise by frame: frame k has the same noise in a longer clip
    generator      draws in diffusers' order instead: frame 0's noise, then that of all the others
    latents        frame 0's noise, `1 1 c h w`, instead of a draw

    `mask` of the result is the dilated foreground where the background was smoothed. Raises InputError for impossible values.
    """
    settled = pipe.plan(
        num_frames=num_frames, height=height, width=width, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
    )  # fmt: skip
    frames, times, shape = settled.frames, settled.times, settled.latents
    if chunk < 1:
        raise InputError(f"chunk is {chunk}: give 1 frame or more a call of the net")
    moments = _moments(num_inference_steps, t0, t1)
    if latents is not None and tuple(latents.shape) != (1, 1, *shape):
        raise InputError(f"latents of frame 0 must have shape {(1, 1, *shape)}; these have {tuple(latents.shape)}")
    x = (_noise(seed, generator, [0], shape) if latents is None else latents).to(pipe.device, torch.float32)
    pair = pipe.condition([prompt], negative_prompt, frames, settled.size, 0.0, conditions)
    denoise = cross_frame(pipe, pair, times, settled.guidance, chunk)
    draw = (float(times.t[-1 - moments[1]]), 0)
    x = dynamics(denoise, x, times, frames, flow, lambda ids: _noise(seed, generator, ids, shape, draw), moments, early)
    tail = times.final(moments[1] + 1)
    x0 = ddim(denoise, x, tail)
    if smoothing is None:
        return Edited(pipe.decode(x0)[0])
    mask = dilated(smoothing.foreground(pipe.decode(x0)[0]), shape[1:], len(frames)).to(x)
    x = smoothed(x, mask, displacements(flow, frames, shape[1:]), smoothing.strength)
    return Edited(pipe.decode(ddim(denoise, x, tail))[0], F.interpolate(mask, settled.size, mode="nearest").cpu())


def cross_frame(pipe: Pipeline, pair: Pair, times: Times, guidance_scale: Scale, chunk: int = 8) -> Denoise:
    """The network with every self-attention reading frame 0 (eq. 8), guided, called with at most `chunk` frames, frame 0 always among them.

    Raises InputError for a network whose norms join the frames: there a chunk would not equal the whole.
    """
    if pipe.parts.unet.conv_norm_out.scope == "clip":
        raise InputError(
            "this model was animated by modules whose norms run over the clip; Text2Video-Zero wants the image model (motion none)"
        )
    whole = together(pipe.denoiser.replace(path=times.path), pair, guidance_scale, times.t, FIRST)
    return windowed(whole, Windows(max(chunk, 2), 0, "flat", anchor=(0,)))


def _noise(
    seed: int, generator: torch.Generator | None, frames: Sequence[int], shape: Sequence[int], draw: Draw = None
) -> Tensor:
    """Unit noise `1 f c h w`: by frame, or from a generator, which diffusers asks for one picture after the other."""
    if generator is None:
        return FrameNoise(seed)(1, frames, shape, draw)
    return from_generator(generator, len(frames), 1, shape).transpose(0, 1)


def _moments(steps: int, t0: int | None, t1: int | None) -> tuple[int, int]:
    upper = min(round(0.94 * steps), steps - 1) if t1 is None else t1
    lower = upper - max(1, round(0.06 * steps)) if t0 is None else t0
    if not 0 <= lower <= upper < steps:
        raise InputError(
            f"t0 {lower}, t1 {upper} of {steps} steps: motion dynamics needs 0 <= t0 <= t1 < steps; take more steps"
        )
    return lower, upper


def dynamics(
    denoise: Denoise,
    x: Tensor,
    times: Times,
    frames: Sequence[int],
    flow: Flow,
    fresh: Fresh,
    moments: tuple[int, int],
    early: bool = False,
) -> Tensor:
    """Motion dynamics, algorithm 1. Noise of frame 0 `b 1 c h w` -> all frames `b f c h w` at the upper of the two `moments`.

    frames   ids of the clip's frames, 0 first
    moments  (t0, t1) as places in the ascending grid
    """
    lower, upper = (len(times) - 1 - moment for moment in moments)
    t0, t1 = float(times.t[lower]), float(times.t[upper])
    x_t1 = ddim(denoise, x, _part(times, 0, upper))
    x_t0 = ddim(denoise, x_t1, _part(times, upper, lower))
    others = list(frames)[1:]
    if not others:
        return x_t1
    moved = warp(x_t0.expand(-1, len(others), -1, -1, -1), displacements(flow, others, x.shape[-2:]))
    back = times.path.renoise(moved, t0 - early, t1 - early, fresh(others).to(x)) if t1 > t0 else moved
    return torch.cat([x_t1, back], 1)


def _part(times: Times, start: int, stop: int) -> Times:
    return dataclasses.replace(times, t=times.t[start:stop], to=times.to[start:stop])


def displacements(flow: Flow, frames: Sequence[int], size: Sequence[int]) -> Tensor:
    """The flow of each frame on a grid of `size` (height, width): `f 2 h w`, in shares of the picture."""
    values = [flow(frame).float() for frame in frames]
    for value in values:
        if value.ndim not in (1, 3) or value.shape[0] != 2:
            raise InputError(f"a flow gives 2 (x, y) or 2 h w; this one gives {tuple(value.shape)}")
    fields = [value if value.ndim == 3 else value[:, None, None] for value in values]
    return torch.cat([F.interpolate(field[None], tuple(size), mode="bilinear") for field in fields])


def warp(x: Tensor, shift: Tensor) -> Tensor:
    """x `b f c h w` read at p + shift, the nearest place, reflected at the rim; shift `f 2 h w` in shares of the picture.

    Places are counted from the corner of a cell of a grid of 512, as in the released code. That is 1/16 of a latent at 64 x 64: it changes
    nothing but ties, which all fall to the same side, so that a motion by half latents does not tear the picture.
    """
    b, _, _, h, w = x.shape
    size = torch.tensor([w, h]).reshape(2, 1, 1)
    ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    where = torch.stack([xs, ys]) - (size / 1024).clamp(max=0.25) + shift.cpu() * size
    grid = ((2 * where + 1) / size - 1).permute(0, 2, 3, 1).repeat(b, 1, 1, 1).to(x)
    read = F.grid_sample(x.flatten(0, 1), grid, mode="nearest", padding_mode="reflection", align_corners=False)
    return read.unflatten(0, (b, -1))


def dilated(mask: Tensor, size: Sequence[int], frames: int) -> Tensor:
    """A foreground `f 1 H W` in [0, 1] of any size on the latents' grid, grown by two cells: `f 1 h w`.

    Raises InputError for another shape or f, and for values outside [0, 1].
    """
    if mask.ndim != 4 or mask.shape[:2] != (frames, 1):
        raise InputError(
            f"the foreground must be f 1 H W, one picture for each of {frames} frames; this one has shape {tuple(mask.shape)}"
        )
    mask = mask.float()
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise InputError(
            f"the foreground's values run from {float(mask.min()):g} to {float(mask.max()):g}; give 0 to 1, 1 where an object is"
        )
    return F.max_pool2d(F.interpolate(mask, tuple(size), mode="nearest"), 5, 1, 2)


def smoothed(x: Tensor, mask: Tensor, shift: Tensor, strength: float) -> Tensor:
    """Eq. 9: where neither this frame nor the moved frame 0 has an object, x `b f c h w` is mixed with the background of frame 0, moved.

    mask `f 1 h w`, 1 on objects; shift `f 2 h w` of each frame against frame 0; strength, the share of x that is kept.
    """
    count = x.shape[1]
    still = warp((x[:, :1] * (1 - mask[:1])).expand(-1, count, -1, -1, -1), shift)
    background = (1 - mask) * (1 - warp(mask[None, :1].expand(-1, count, -1, -1, -1), shift)[0])
    return x + background * (1 - strength) * (still - x)
