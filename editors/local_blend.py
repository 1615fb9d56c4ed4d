"""Where a word is in the picture, read off the text attention; and keeping everything else (local blend).

Hertz et al. 2022, "Prompt-to-Prompt", section 3.2; Qi et al. 2023, "FateZero", section 3.3. A mask is the maps of the words, averaged over
layers and heads, widened by a 3 x 3 maximum, enlarged, divided by each frame's maximum, and cut at a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from editors.alignment import marked, occurs
from editors.map_fusion import inside
from editors.map_levels import grid
from editors.map_store import called
from videogen.errors import InputError
from videogen.models.words import Words
from videogen.prediction import Denoise, Prediction


def word_mask(
    maps: Mapping[str, Tensor],
    levels: Mapping[str, int],
    chosen: Tensor,
    latents: tuple[int, int],
    threshold: float,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Where the chosen words are: `b f h w` of bool, at `size` (the latents' size where None).

    maps       text maps by place, each `b f heads n m`, n being the cells of `grid(latents, levels[place])`
    levels     the places that are read
    chosen     `m`, or `b m`: 1 at the words' tokens
    threshold  of the maximum of each frame; 0 or less is everywhere, 1 and more nowhere
    """
    chosen = chosen.expand(next(iter(maps.values())).shape[0], -1)
    seen = []
    for place, level in levels.items():
        probs = maps[place].float()
        words = torch.einsum("b f k n m, b m -> b f n", probs, chosen.to(probs)) / probs.shape[2]
        seen.append(rearrange(words, "b f (h w) -> b f h w", h=grid(latents, level)[0]))
    mean = torch.stack(seen).mean(0)
    wide = F.max_pool2d(mean, 3, stride=1, padding=1)
    enlarged = F.interpolate(wide, size or latents)
    highest = enlarged.amax((-2, -1), keepdim=True)
    if threshold <= 0:
        return torch.ones_like(enlarged, dtype=torch.bool)
    return enlarged / highest.clamp(min=torch.finfo(enlarged.dtype).tiny) > threshold


def blend_words(source: Words, target: Words, words: str | Sequence[str]) -> Tensor:
    """The tokens of blend words in both prompts: `2 m`, the source's first. Raises InputError for a word that neither has."""
    phrases = (words,) if isinstance(words, str) else tuple(words)
    for phrase in phrases:
        if not occurs(source, phrase) and not occurs(target, phrase):
            raise InputError(f"the blend word {phrase!r} is in neither prompt ({source.text!r}, {target.text!r})")
    return torch.stack([marked(source, phrases), marked(target, phrases)])


@dataclass(eq=False)
class LocalBlend:
    """A sampler's `after` for two items, source and target: outside the words' mask the target becomes the source.

    chosen     `2 m`: the blend words' tokens in both prompts
    levels     the places whose maps are kept, `{place: level}`
    times      the descending grid
    window     share of the steps in which it acts
    mask       the mask of the last step `f h w`, over which the maps of all steps so far are averaged
    """

    chosen: Tensor
    levels: Mapping[str, int]
    times: Sequence[float]
    threshold: float = 0.3
    window: tuple[float, float] = (0.0, 1.0)
    mask: Tensor | None = None
    seen: dict[str, Tensor] = field(default_factory=dict)
    done: int = 0

    def listening(self, ask: Denoise) -> Denoise:
        """`ask`, whose kept maps `2 f 1 n m` of source and target are added up by frame: windows may share frames, since only ratios count."""
        count = len(self.times)

        def asked(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
            pred = ask(x, t, frames)
            _, ids = called(x, t, frames)
            for place in self.levels:
                self.seen[place] = added(self.seen.get(place), pred.kept[place] / count, ids)
            return pred

        return asked

    def __call__(self, x: Tensor, t: float, pred: Prediction) -> Tensor:
        """x `2 f c h w` at the end of a step."""
        begun = self.times[self.done]
        self.done += 1
        both = word_mask(self.seen, self.levels, self.chosen, (x.shape[-2], x.shape[-1]), self.threshold)
        self.mask = both.any(0)
        if not inside(begun, self.times, self.window):
            return x
        return torch.stack([x[0], torch.where(self.mask[:, None], x[1], x[0])])


def over_heads(probs: Tensor) -> Tensor:
    """The mean over heads, whose axis stays: `b f 1 n m`."""
    return probs.mean(2, keepdim=True)


def added(total: Tensor | None, maps: Tensor, frames: Sequence[int]) -> Tensor:
    """Maps `b f ...` of some frames, added to the total of the clip `b F ...`, which grows where frames are new."""
    more = max(frames) + 1 - (0 if total is None else total.shape[1])
    if total is None or more > 0:
        fresh = maps.new_zeros(maps.shape[0], more, *maps.shape[2:])
        total = fresh if total is None else torch.cat([total, fresh], 1)
    return total.index_add(1, torch.tensor(list(frames), device=maps.device), maps)
