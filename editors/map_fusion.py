"""How the target's attention maps are made of the source's: what Prompt-to-Prompt and FateZero share.

Text attention (Hertz et al. 2022, section 3.2, with M the alignment, a its share, c the equalizer and w the gate, all by target token):

    A = w c (a A_source M + (1 - a) A_target) + (1 - w) A_target

Self-attention inside its window: A = m A_target + (1 - m) A_source, with m the blend mask over queries, 0 without one. The rows of A need
not sum to 1 any more; the papers do not renormalise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from editors.alignment import Alignment, Edit, align, equalizer, marked
from videogen.control import Site
from videogen.errors import InputError
from videogen.models.words import Words

Steps = float | tuple[float, float]
"""A share of the steps: (start, stop), or where it begins with the first, the stop alone."""


@dataclass(frozen=True)
class Exchange:
    """What of the source's attention the target takes, in a user's words.

    edit      replace (words swapped in place), refine (words added), reweight (the same words), or `auto`
    cross     share of the steps in which text maps are the source's: a number, (start, stop), or by word of the target, with
              "default_" for the others
    selfs     the same for self-attention
    temporal  the same for the motion module's attention along the frames
    weights   how much more (or less) a word of the target counts inside its window: {"blue": 2.0}
    emphasis  the same for all new words that `weights` does not name
    """

    edit: Edit = "auto"
    cross: Steps | Mapping[str, Steps] = 0.8
    selfs: Steps = 0.4
    temporal: Steps = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)
    emphasis: float = 1.0

    def between(self, source: Words, target: Words, cross_level: int = 0, self_level: int = 0) -> Fusion:
        """The fusion for two prompts: text maps from `cross_level` on, self maps from `self_level` on.

        Raises InputError where a word is not in the target prompt, or the edit does not fit the prompts.
        """
        alignment = align(source, target, self.edit)
        named, factors = marked(target, self.weights), equalizer(target, self.weights)
        factors[alignment.fresh & (named == 0)] = self.emphasis
        by_word = dict(self.cross) if isinstance(self.cross, Mapping) else {"default_": self.cross}
        default = span(by_word.pop("default_", (0.0, 1.0)))
        windows = torch.tensor(default).repeat(len(alignment.share), 1)
        for word, window in by_word.items():
            windows[list(target.where(word))] = torch.tensor(span(window))
        return Fusion(
            alignment,
            factors,
            windows,
            span(self.selfs),
            span(self.temporal),
            cross_level,
            self_level,
        )


@dataclass(frozen=True, eq=False)
class Fusion:
    """An exchange between two prompts, for all steps: equalizer n, windows `n 2` (fractions of the steps)."""

    alignment: Alignment
    equalizer: Tensor
    windows: Tensor
    selfs: tuple[float, float]
    temporal: tuple[float, float]
    cross_level: int
    self_level: int

    def at(self, t: float, times: Sequence[float] | None) -> FusionNow:
        """What is fused at position t of the descending grid; without a grid every window is open that is not empty."""
        gate = torch.tensor([1.0 if inside(t, times, (start, stop)) else 0.0 for start, stop in self.windows.tolist()])
        return FusionNow(self, gate, inside(t, times, self.selfs), inside(t, times, self.temporal))


@dataclass(frozen=True, eq=False)
class FusionNow:
    """A fusion at one step: gate n, and whether self and temporal maps are the source's."""

    fusion: Fusion
    gate: Tensor
    selfs: bool
    temporal: bool

    def acts(self, site: Site) -> bool:
        """Whether the source's maps of a site are needed now; never in a network beside the UNet."""
        if site.net != "unet":
            return False
        if site.kind == "cross":
            return site.source == "text" and site.level >= self.fusion.cross_level and bool(self.gate.any())
        if site.kind == "self":
            return site.level >= self.fusion.self_level and self.selfs
        return site.kind == "temporal" and self.temporal

    def fuse(self, site: Site, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps of the source and the target at a site that acts, both `b f heads n m`; mask `b f n` for self-attention."""
        if site.kind != "cross":
            # Chosen rather than mixed, so that the source's maps pass bit for bit.
            return source if mask is None else torch.where(mask[:, :, None, :, None] > 0, target, source)
        alignment = self.fusion.alignment
        if target.shape[-1] != len(alignment.share):
            raise InputError(
                f"the prompts were aligned over {len(alignment.share)} tokens and the model reads {target.shape[-1]}; encode them together"
            )
        share, factor, gate = (x.to(target) for x in (alignment.share, self.fusion.equalizer, self.gate))
        fused = torch.lerp(target, source.to(target) @ alignment.matrix.to(target), share) * factor
        return torch.where(gate > 0, fused, target)


def span(window: Steps) -> tuple[float, float]:
    """A share of the steps as (start, stop); a number is the stop. Raises InputError outside 0 <= start <= stop <= 1."""
    start, stop = (0.0, window) if isinstance(window, (int, float)) else window
    if not 0 <= start <= stop <= 1:
        raise InputError(f"a share of the steps from {start} to {stop}: give 0 <= start <= stop <= 1")
    return float(start), float(stop)


def inside(t: float, times: Sequence[float] | None, window: tuple[float, float]) -> bool:
    """Whether the step at t is one of the share `window` of the grid's steps; a part of a step counts as none.

    (The published code counts text windows in one step more than there are: where the share of the steps is not whole, its may last one longer.)
    """
    start, stop = window
    if times is None:
        return stop > start
    done, steps = sum(1 for s in times if s > t + 1e-6), len(times)
    return math.floor(start * steps + 1e-6) <= done < math.floor(stop * steps + 1e-6)
