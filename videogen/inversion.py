"""From a clip back to the noise that samples to it: DDIM inversion (Song et al. 2021, section 4.3).

A step of sampling takes x_t to x_s along eps(x_t, t). Its inverse has x_s and would need eps at the x_t that it looks
for. Two named guesses stand in for it, and a fixed point removes the guess:

    asked="target"   eps(x_s, t): the label of the level it goes to, as in the code of Prompt-to-Prompt, Tune-A-Video and
                     FateZero and in diffusers' DDIMInverseScheduler
    asked="source"   eps(x_s, s): the level where x is, Euler's method as in Dhariwal and Nichol 2021, appendix F
    rounds=k         then at most k rounds of x_t <- inverse step along what the net says at (x_t, t): exact where they
                     converge; a round that leads away is taken back and ends them

The other offset by one, whether the cleanest latents stand for clean data or for training step 0, is a matter of the
grid (`set_alpha_to_one` of the scheduler's config, the last entry of `Times.to`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.mixing import mix
from videogen.path import Path
from videogen.prediction import Denoise, Prediction
from videogen.sampling import After, ddim, step
from videogen.times import Times

Asked = Literal["target", "source"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The states on the way between noise and a clip, in the order of sampling.

    times    the grid; step i of sampling begins at latents[i] and ends at latents[i + 1]
    latents  n+1 b f c h w, from noise to clean, kept on the processor
    device   where states are handed out
    """

    times: Times
    latents: Tensor
    device: torch.device

    @property
    def noise(self) -> Tensor:
        """Where sampling begins: b f c h w."""
        return self.latents[0].to(self.device)

    @property
    def clean(self) -> Tensor:
        """The clip: b f c h w."""
        return self.latents[-1].to(self.device)

    def at(self, t: float | Tensor) -> Tensor:
        """The state at position t of the grid: b f c h w. Raises InputError where t is not on it."""
        positions = [*self.times.t.tolist(), float(self.times.to[-1])]
        near = [i for i, position in enumerate(positions) if abs(position - float(t)) < 1e-6]
        if not near:
            raise InputError(f"position {float(t):g} is not on the grid that was inverted; use the same steps for both")
        return self.latents[near[0]].to(self.device)

    def distance(self, other: "Trajectory") -> Tensor:
        """Root mean square of the difference at every state, from noise to clean: n+1."""
        return (self.latents.double() - other.latents.double()).square().flatten(1).mean(1).sqrt()


@torch.no_grad()
def invert(
    denoise: Denoise,
    x: Tensor,
    times: Times,
    *,
    asked: Asked = "target",
    rounds: int = 0,
    frames: Sequence[int] | None = None,
    after: After | None = None,
) -> Trajectory:
    """Latents x `b f c h w` at the grid's clean end -> the states from noise to x.

    denoise  guided or not; with a guidance scale above 1 the guesses grow worse and the noise is no longer Gaussian
    times    the grid of the sampling to be undone; a part of it (`times.final(k)`) inverts to where that part begins
    asked    which level the net is told at the first guess, see above
    rounds   of the fixed point, one call of the net each
    frames   ids of x's frames in a longer clip
    after    called at the end of each step, as a sampler's; x is at position t then
    """
    if asked not in get_args(Asked):
        raise InputError(f"asked {asked!r}: choose one of {', '.join(get_args(Asked))}")
    if rounds < 0:
        raise InputError(f"{rounds} rounds of the fixed point: give 0 or more")
    states, path = [x.cpu()], times.path
    for t, s in reversed(list(times)):
        # No net was told of clean data; the lowest level that it knows stands for it.
        pred = denoise(x, t if asked == "target" else max(s, 0.0), frames)
        there = step(pred.replace(alpha=path.alpha(s), sigma=path.sigma(s)), path, t)
        best, least = there, math.inf
        for _ in range(rounds):
            pred = denoise(there, t, frames)
            miss = float((step(pred, path, s) - x).square().mean())
            if not miss < least:
                there = best
                break
            best, least, there = there, miss, back(pred, x, path, t, s)
        x = there if after is None else after(there, t, pred)
        states.append(x.cpu())
    return Trajectory(times, torch.stack(states[::-1]), x.device)


def back(pred: Prediction, x: Tensor, path: Path, t: float, s: float) -> Tensor:
    """The x_t whose step, with what pred says of it, arrives at x = x_s: b f c h w.

    What the net itself puts out is held fixed, so that a round shrinks an error by the step times the net's own slope.
    For v that means alpha_s x0 + sigma_s eps = x_s and alpha_t eps - sigma_t x0 = v. Read as eps instead, the equation
    would be empty at zero terminal noise, where eps is x_t for every x_t.
    """
    alpha_s, sigma_s = path.alpha(s), path.sigma(s)
    if pred.kind in ("eps", "flow"):
        return step(pred.replace(x=x, alpha=alpha_s, sigma=sigma_s), path, t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    scale = 1 / (alpha_s * alpha + sigma_s * sigma)
    return mix(scale * (alpha**2 + sigma**2), x, scale * (alpha_s * sigma - sigma_s * alpha), pred.v)


@torch.no_grad()
def reconstruct(denoise: Denoise, trajectory: Trajectory, *, frames: Sequence[int] | None = None) -> Trajectory:
    """Sample from a trajectory's noise on its own grid. `trajectory.distance` of the result is the error of the inversion."""
    states = [trajectory.latents[0]]

    def told(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = frames) -> Prediction:
        return denoise(x, t, frames)

    def keep(x: Tensor, s: float, pred: Prediction) -> Tensor:
        states.append(x.cpu())
        return x

    ddim(told, trajectory.noise, trajectory.times, after=keep)
    return Trajectory(trajectory.times, torch.stack(states), trajectory.device)
