"""Null-text inversion (Mokady et al. 2023, algorithm 1): null embeddings, one a step, with which guidance returns to the clip.

DDIM inversion without guidance gives the pivot, a trajectory that plain guidance leaves. Step by step the embedding of
the null prompt is optimised until the guided step arrives where the pivot is. Nothing else changes: neither weights nor
the prompt's own text. For a clip one embedding a step is shared by all frames.

    editors.null_text(pipe, clip, source, target)    sampling under another prompt with those embeddings
    find_nulls(work, described)                      the embeddings alone; `NullText.at` is what other editors take
    load_nulls(path, times, null)                    the same from a file, as `NullText.save` and the community write it
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath

import torch
from torch import Tensor

from editors.ddim_inversion import Inversion, inverted
from editors.edited import Edited
from editors.workpiece import Workpiece, begin
from videogen.branches import Pair
from videogen.conditioning import Conditioning, Dial
from videogen.errors import InputError
from videogen.files import replacing
from videogen.guidance import combine
from videogen.inversion import Asked, Trajectory
from videogen.models.unet import UNet
from videogen.models.weights.pickles import opened
from videogen.pipeline import Pipeline
from videogen.prediction import Denoise, Prediction
from videogen.progress import bar
from videogen.sampling import step
from videogen.times import Times
from videogen.windows import Windows

Nulls = Callable[[float], Conditioning]
"""From a position of the grid to the null condition, of one item, that is used there."""

Attempt = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a null embedding to a loss, and to the state b f c h w that a step with it leads to."""


@dataclasses.dataclass(frozen=True)
class Descent:
    """How the embedding of a step is found (section 3.2, and the released code).

    inner_steps  of Adam, at most
    rate         Adam's learning rate at the first step; it falls in a straight line to half of that at the last
    epsilon      a step is done when its loss is below epsilon + i slack: early steps, on which all others stand, are
    slack        held closer
    recompute    compute activations of clips again in the backward pass rather than keep them: a third more time, a fraction of the memory
    """

    inner_steps: int = 10
    rate: float = 1e-2
    epsilon: float = 1e-5
    slack: float = 2e-5
    recompute: bool = True

    def __post_init__(self) -> None:
        if self.inner_steps < 0 or not self.rate > 0:
            raise InputError(
                f"{self.inner_steps} inner steps at the rate {self.rate:g}: give 0 or more, at a rate above 0"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class NullText:
    """What was found.

    trajectory  the pivot
    reached     the states that guided sampling with these embeddings goes through; its last state is the reconstruction
    nulls       the null condition of each step
    before      mean squared distance of each guided step from the pivot with the embedding it began with: n
    after       and with the embedding it ended with, never more: n
    asked       how often the net was asked about a null embedding, at each step: n
    """

    trajectory: Trajectory
    reached: Trajectory
    nulls: tuple[Conditioning, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    asked: tuple[int, ...]

    def at(self, t: float | Tensor) -> Conditioning:
        """The null condition at position t. Raises InputError where t is not on the grid."""
        return by_step(self.trajectory.times, self.nulls)(float(t))

    def save(self, path: str | FilePath) -> None:
        """Write the embeddings as the community's files hold them: one tensor `n 1 l d`, that of the noisiest step first."""
        stacked = torch.stack([null.tokens["text"] for null in self.nulls])
        with replacing(path) as beside:
            torch.save(stacked.cpu(), beside)


def by_step(times: Times, nulls: Sequence[Conditioning]) -> Nulls:
    """What gives the null condition of each step of a grid. It raises InputError for a position that is not on the grid."""

    def at(t: float) -> Conditioning:
        near = [i for i, position in enumerate(times.t.tolist()) if abs(position - t) < 1e-6]
        if not near:
            raise InputError(f"null texts were not found for position {t:g}; sample with the same steps")
        return nulls[near[0]]

    return at


def load_nulls(path: str | FilePath, times: Times, null: Conditioning) -> Nulls:
    """The null texts of a file, for `prompt_to_prompt(nulls=)`: a tensor `n 1 l d` or a list of n `1 l d`, the noisiest step first.

    times  the grid that they were found on
    null   a null condition of the same model, whose text they replace

    Raises InputError for a file that carries code, and where n, l or d are not those of the grid and the model.
    """
    content = opened(FilePath(path))
    found = (
        list(content) if isinstance(content, (list, tuple)) or (isinstance(content, Tensor) and content.ndim) else []
    )
    text = null.tokens["text"]
    shapes = {tuple(each.shape) if isinstance(each, Tensor) else () for each in found}
    if len(found) != len(times) or shapes != {tuple(text.shape)}:
        told = " and ".join(map(str, sorted(shapes))) or "none"
        raise InputError(
            f"{path} holds {len(found)} null texts of shape {told}; this grid and model need {len(times)} of {tuple(text.shape)}"
        )
    return by_step(times, [null.replace(tokens={**null.tokens, "text": each.to(text)}) for each in found])


@torch.no_grad()
def null_text(
    pipe: Pipeline,
    clip: Tensor,
    source: str,
    target: str,
    *,
    steps: int = 50,
    strength: float | None = None,
    guidance_scale: float | None = None,
    descent: Descent | None = None,
    asked: Asked = "target",
    rounds: int = 0,
    motion_scale: float | Dial = 1.0,
    windows: Windows | None = None,
    trajectory: Inversion | None = None,
    progress: bool = True,
) -> Edited:
    """Find the null texts of frames `f 3 H W` under the source prompt, then sample under the target with them.

    strength        share of the grid that is inverted and sampled again; None is the model's own advice, else all
    guidance_scale  of both, as the embeddings serve one scale; None is the model's own
    asked, rounds   of the inversion that gives the pivot, see `videogen.inversion`
    trajectory      the pivot, an inversion of this clip under the source prompt (`ddim_inversion.invert_clip`), instead of making one

    Measured: `reconstruction_rms`, of the latents under the source prompt, and `reconstruction_psnr`, in dB against the
    VAE's round trip.
    """
    scale = pipe.guidance if guidance_scale is None else guidance_scale
    check_precision(pipe)
    work = begin(pipe, clip, steps, strength=strength, guidance_scale=scale, windows=windows)
    described, wanted = work.conditions(source, target, motion_scale=motion_scale)
    trajectory = inverted(work, described, asked=asked, rounds=rounds, made=trajectory, progress=progress)
    found = find_nulls(work, described, trajectory, scale=scale, descent=descent, progress=progress)
    x = work.sample(following(work, wanted, found.at, scale), trajectory.noise, progress)
    rms, psnr = float(trajectory.distance(found.reached)[-1]), work.psnr(found.reached.clean)
    return work.edited(x, reconstruction_rms=rms, reconstruction_psnr=psnr)


def check_precision(pipe: Pipeline) -> None:
    """Refuse a network in float16, in which the gradients of a small loss vanish or overflow. Raises InputError."""
    if next(pipe.parts.unet.parameters()).dtype == torch.float16:
        raise InputError(
            "null-text inversion needs gradients, which float16 cannot hold; load the model in float32 or bfloat16"
        )


def following(work: Workpiece, wanted: Pair, nulls: Nulls, scale: float) -> Denoise:
    """The network under a prompt, guided away from the null condition of the step it is asked at."""
    given, _ = wanted
    return lambda x, t, frames=None: work.denoise((given, nulls(float(t))), scale)(x, t, frames)


def find_nulls(
    work: Workpiece,
    described: Pair,
    pivot: Trajectory,
    *,
    scale: float = 7.5,
    descent: Descent | None = None,
    progress: bool = True,
) -> NullText:
    """The null texts of a workpiece for the prompt that describes it. Stopped in the middle, it leaves nothing changed."""
    check_precision(work.pipe)
    given, null = described

    def told(embedding: Tensor) -> Conditioning:
        return null.replace(tokens={**null.tokens, "text": embedding})

    descent = descent or Descent()
    recompute = descent.recompute and len(work.source) > 1
    with for_inputs(work.pipe.parts.unet, recompute), bar(len(work.times), progress, "null text") as tick:
        sides = Sides(
            work.denoise((given, null)), lambda embedding: work.denoise((told(embedding), null)), told, null.tokens["text"]
        )  # fmt: skip
        return optimised(sides, pivot, scale, descent, tick)


@dataclasses.dataclass(frozen=True)
class Sides:
    """The two sides of guidance: `cond`, and `uncond` as a function of the null embedding, which begins as `start`.

    told   what the network is told of an embedding
    """

    cond: Denoise
    uncond: Callable[[Tensor], Denoise]
    told: Callable[[Tensor], Conditioning]
    start: Tensor


def optimised(
    sides: Sides, pivot: Trajectory, scale: float, descent: Descent, tick: Callable[[], None] = lambda: None
) -> NullText:
    """Algorithm 1."""
    times, x, embedding = pivot.times, pivot.noise, sides.start.float()
    nulls, states, before, after, counts = [], [x.cpu()], [], [], []
    for i, (t, s) in enumerate(times):
        with torch.no_grad():
            given = sides.cond(x, t)
        attempt = guided_step(sides.uncond, given, scale, times, (t, s), pivot.latents[i + 1].to(x))
        rate, enough = descent.rate * (1 - i / (2 * len(times))), descent.epsilon + i * descent.slack
        embedding, x, losses = descend(attempt, embedding, descent.inner_steps, rate, enough)
        nulls.append(sides.told(embedding))
        states.append(x.cpu())
        before.append(losses[0])
        after.append(min(losses))
        counts.append(len(losses))
        tick()
    reached = Trajectory(times, torch.stack(states), pivot.device)
    return NullText(pivot, reached, tuple(nulls), tuple(before), tuple(after), tuple(counts))


def guided_step(
    uncond: Callable[[Tensor], Denoise],
    given: Prediction,
    scale: float,
    times: Times,
    ends: tuple[float, float],
    wanted: Tensor,
) -> Attempt:
    """From an embedding to where the guided step from given.x arrives, `ends` being its positions, and its loss."""
    t, s = ends

    def attempt(embedding: Tensor) -> tuple[Tensor, Tensor]:
        there = step(combine(uncond(embedding)(given.x, t), given, scale), times.path, s)
        return (there - wanted).square().mean(), there

    return attempt


def descend(
    attempt: Attempt, start: Tensor, steps: int, rate: float, enough: float
) -> tuple[Tensor, Tensor, list[float]]:
    """Adam on the loss of `attempt`: the best embedding that was seen, the state it leads to, and all losses.

    The released code keeps the last embedding, and moves once more after a loss that is small enough. Where the loss
    falls all the way, which is the rule, the last is the best.
    """
    moving = start.detach().clone().requires_grad_()
    adam = torch.optim.Adam([moving], lr=rate)
    best: list[Tensor] = []
    losses: list[float] = []
    for j in range(steps + 1):
        with torch.set_grad_enabled(j < steps):
            loss, there = attempt(moving)
        value = float(loss.detach())
        if not losses or value < min(losses):
            best = [moving.detach().clone(), there.detach()]
        losses.append(value)
        if j == steps or value < enough:
            break
        (moving.grad,) = torch.autograd.grad(loss, moving)
        adam.step()
    return best[0], best[1], losses


@contextlib.contextmanager
def for_inputs(unet: UNet, recompute: bool) -> Iterator[None]:
    """Gradients for a network's inputs alone, its weights frozen; activations are recomputed rather than kept where that is asked for.

    Everything is as it was afterwards, also when the work was interrupted.
    """
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    checkpointing = unet.checkpointing
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        unet.set_checkpointing(checkpointing or recompute)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        unet.set_checkpointing(checkpointing)
