"""Prompt-to-Prompt (Hertz et al. 2022): source and target are sampled side by side, and the target takes the source's attention maps.

Rows of one call: uncond and cond for source and target; only the conditional ones exchange maps. Text maps by the alignment of the prompts
(section 3.2: word swap, adding a phrase, attention re-weighting), self-attention from 16 x 16 on for the first part of the steps. A clip is the
same with f frames; with a motion module its maps along the frames can be exchanged too.

For a clip that exists, DDIM inversion with the source prompt gives the noise, and the source row is put back on the inversion's states after each
step (Ju et al. 2023, "Direct inversion"), so that its maps are the clip's own and guidance cannot carry it away. It is then asked for its maps
alone, so three rows of the four are enough. `pinned=False` samples it, as the paper does, which is for null texts from null-text inversion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editors.alignment import Edit
from editors.ddim_inversion import Inversion, inverted
from editors.edited import Edited
from editors.local_blend import LocalBlend, blend_words, over_heads
from editors.map_fusion import Exchange, Fusion, FusionNow, Steps, span
from editors.map_levels import level_of, word_sites
from editors.null_text import Nulls
from editors.workpiece import Bench, begin
from videogen.branches import Pair
from videogen.conditioning import Dial, stack
from videogen.control import Control, Keep, Pass, Site
from videogen.guidance import Scale
from videogen.inversion import Trajectory
from videogen.pipeline import Pipeline
from videogen.prediction import Prediction
from videogen.windows import Windows

SELF_SIDE = 16  # self-attention is exchanged where the model's own maps have at most 16 x 16 cells


@dataclasses.dataclass(frozen=True)
class Blend:
    """Local blend: outside the place of `words` (of either prompt) the source stays.

    threshold  of the maximum of the words' maps
    window     share of the steps in which it acts
    """

    words: str | Sequence[str]
    threshold: float = 0.3
    window: Steps = (0.2, 1.0)


@torch.no_grad()
def prompt_to_prompt(
    pipe: Pipeline,
    clip: Tensor,
    source: str,
    target: str,
    *,
    edit: Edit = "auto",
    cross: Steps | Mapping[str, Steps] = 0.8,
    selfs: Steps = 0.4,
    temporal: Steps = 0.0,
    weights: Mapping[str, float] | None = None,
    blend: Blend | None = None,
    steps: int = 50,
    strength: float | None = None,
    guidance_scale: Scale | None = None,
    negative_prompt: str | None = None,
    motion_scale: float | Dial = 1.0,
    pinned: bool = True,
    nulls: Nulls | None = None,
    windows: Windows | None = None,
    trajectory: Inversion | None = None,
    progress: bool = True,
) -> Edited:
    """Edit frames `f 3 H W` in [0, 1] by changing their prompt.

    edit      replace, refine, reweight, or `auto`: found from the two prompts
    cross, selfs, temporal   shares of the steps in which text, self and temporal maps are the source's; see `Exchange`
    weights   how much words of the target count, {"blue": 2.0}
    strength  share of the grid that is inverted and sampled again; None is the model's own advice, else all
    guidance_scale  None is the model's own
    pinned    keep the source row on the inversion; else it is sampled
    nulls     the null condition (one item) at each time, from null-text inversion (`NullText.at`, `null_text.load_nulls`), in the negative
              prompt's place
    trajectory  an inversion of this clip under the source prompt (`ddim_inversion.invert_clip`), instead of making one

    Measured: `source_rms`, how far the source row ended from the clip's latents (0 where it is pinned).
    Raises InputError where prompts, words and edit do not fit each other, or the clip does not fit the model.
    """
    exchange = Exchange(edit, cross, selfs, temporal, weights or {})
    work = begin(pipe, clip, steps, strength=strength, guidance_scale=guidance_scale, windows=windows)
    pairs = work.conditions(source, target, negative_prompt=negative_prompt, motion_scale=motion_scale)
    first, second = (given.words[0] for given, _ in pairs)
    exchange.between(first, second)  # what does not fit is refused before the network is asked
    if blend is not None:
        blend_words(first, second, blend.words)
    trajectory = inverted(work, pairs[0], made=trajectory, progress=progress)
    x, mask = side_by_side(
        work,
        trajectory.noise,
        pairs,
        exchange,
        blend,
        work.plan.guidance,
        trajectory if pinned else None,
        nulls,
        progress,
    )
    return work.edited(x[1:], mask, source_rms=float((x[0] - work.latents[0]).square().mean().sqrt()))


@torch.no_grad()
def side_by_side(
    work: Bench,
    noise: Tensor,
    pairs: Sequence[Pair],
    exchange: Exchange,
    blend: Blend | None = None,
    guidance_scale: Scale = 7.5,
    pinned: Trajectory | None = None,
    nulls: Nulls | None = None,
    progress: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The method itself: source and target (`pairs`, each (given, null)) from one noise `1 f c h w`.

    Returns latents `2 f c h w` of source and target, and the last blend mask `f h w`. With `pinned` the source takes that trajectory's states.
    """
    given = stack(source=pairs[0][0], target=pairs[1][0])
    prompts = given.words
    fusion = exchange.between(prompts[0], prompts[1], self_level=level_of(work.pipe.parts.unet, SELF_SIDE))
    control: Control = FromBeside(fusion)
    local = None
    if blend is not None:
        levels = word_sites(work.pipe.parts.unet)
        words = blend_words(prompts[0], prompts[1], blend.words)
        local = LocalBlend(words, levels, work.times.t.tolist(), blend.threshold, span(blend.window))
        control = control >> Keep(lambda site: site.place in levels, over_heads)

    def both(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
        now = [null for _, null in pairs] if nulls is None else [nulls(float(t))] * 2
        null = dict(zip(("source", "target"), now, strict=True))
        if pinned is not None:
            # The source is put back after the step, so it needs no null row of its own.
            del null["source"]
            x = x if guidance_scale == 1 else torch.cat([x[1:], x])
        return work.ask((given, stack(**null)), guidance_scale, control.on("cond"))(x, t, frames)

    states = iter(() if pinned is None else pinned.latents[1:])

    def after(x: Tensor, t: float, pred: Prediction) -> Tensor:
        if pinned is not None:
            x = torch.stack([next(states)[0].to(x), x[1]])
        return x if local is None else local(x, t, pred)

    denoise = work.in_windows(both if local is None else local.listening(both))
    x = work.sample(denoise, torch.cat([noise, noise]), progress, after)
    return x, None if local is None else local.mask


@dataclasses.dataclass(frozen=True, eq=False)
class FromBeside(Control):
    """The target row's maps, made of those of the source row in the same call. Bind it to the conditional rows."""

    fusion: Fusion
    now: FusionNow | None = None

    def at(self, t: float, frames: tuple[int, ...], times: tuple[float, ...] | None) -> Control:
        return dataclasses.replace(self, now=self.fusion.at(t, times))

    def wants_maps(self, site: Site, p: Pass) -> bool:
        return self.now is not None and self.now.acts(site)

    def maps(self, site: Site, probs: Tensor, p: Pass) -> Tensor:
        """probs `2 f heads n m`, source and target."""
        assert self.now is not None
        source, target = (next(i for i, row in enumerate(p.rows) if word in row) for word in ("source", "target"))
        fused = self.now.fuse(site, probs[source, None], probs[target, None])
        return torch.cat([fused if i == target else probs[i, None] for i in range(len(probs))])
