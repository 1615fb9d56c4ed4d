"""FateZero (Qi et al. 2023): attention maps are kept while a clip is inverted, and fused into the edit.

    invert   the source branch alone, without guidance; its maps at each t are held (section 3.2)
    edit     from the inverted noise under the target prompt; on the conditional row, text maps by the alignment of the prompts, and
             self-attention A = M A_target + (1 - M) A_source, with M the place of the blend words in the source (section 3.3)
    blend    optionally the latents too, x = x_inv + M (x - x_inv), in the middle of the way

Self-attention reads frames by a table; the zero-shot settings of an image model read the middle frame wherever its own maps have at most 32 x 32
cells, and those are also the maps that are fused. Maps are those of the inversion: at t they were made where it stood then, one step cleaner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from editors.alignment import refine
from editors.ddim_inversion import Inversion, check_fits
from editors.edited import Edited
from editors.local_blend import added, blend_words, over_heads, word_mask
from editors.map_fusion import Exchange, Fusion, FusionNow, inside, span
from editors.map_levels import attention_sites, level_of, word_sites
from editors.map_store import Hold, KeepAt, Maps, Recomputed, called, holding
from editors.workpiece import begin, tuned_with
from motion_modules.tune_a_video import temporal_parameters
from videogen.conditioning import Dial
from videogen.control import Control, Keep, Pass, Site
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL, FrameChoice
from videogen.guidance import Scale
from videogen.inversion import Trajectory, invert
from videogen.models.unet import UNet
from videogen.models.words import Words
from videogen.pipeline import Pipeline
from videogen.prediction import Denoise, Prediction
from videogen.progress import bar, ticking
from videogen.sampling import ddim
from videogen.windows import Windows

SIDE = 32  # maps are held and fused where the model's own have at most 32 x 32 cells


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is fused and blended.

    exchange         shares of the steps, alignment, weights of words
    blend            words of either prompt whose place may change; `changed` is those that differ, () is the whole picture, and so is `changed`
                     where words were only added
    threshold        of the maximum of their maps; 0 keeps no structure of the source, 1 and more all of it
    blend_attention  the place of the source's words keeps the target's self-attention
    blend_latents    outside the words' place in source and target the inversion's latents return, in the steps of `blend_window`
                     (the released code leaves the last of these out)
    pairing          the level of those latents: the edit's own (`equal`), or one noisier, as in the authors' code (`noisier`)
    """

    exchange: Exchange = dataclasses.field(default_factory=Exchange)
    blend: Sequence[str] | Literal["changed"] = ()
    threshold: float = 0.3
    blend_attention: bool = True
    blend_latents: bool = False
    blend_window: tuple[float, float] = (0.2, 0.8)
    pairing: Literal["equal", "noisier"] = "equal"

    def __post_init__(self) -> None:
        if self.pairing not in ("equal", "noisier"):
            raise InputError(f"latents paired {self.pairing!r}: choose equal or noisier")
        span(self.blend_window)


# The authors' configurations (config/style, attribute, shape); shape edits are meant for a model tuned on the clip. Theirs strengthen the word of a
# style by 10 and chosen words of an attribute by 10 to 20; which words of an attribute is for `weights` to say.
STYLE = Settings(Exchange("refine", cross=0.8, selfs=0.8, emphasis=10.0))
ATTRIBUTE = Settings(Exchange("refine", cross=0.5, selfs=0.5))
SHAPE = Settings(Exchange("auto", cross=0.5, selfs=0.5), blend="changed", threshold=0.3)
RECONSTRUCTION = Settings(Exchange("refine", cross=0.8, selfs=0.9))
PRESETS = {"style": STYLE, "attribute": ATTRIBUTE, "shape": SHAPE, "reconstruction": RECONSTRUCTION}


@torch.no_grad()
def fatezero(
    pipe: Pipeline,
    clip: Tensor,
    source: str,
    target: str,
    *,
    settings: Settings = ATTRIBUTE,
    frames: FrameChoice | None = None,
    hold: Hold = "recomputed",
    folder: str | Path | None = None,
    steps: int = 50,
    strength: float | None = None,
    guidance_scale: Scale | None = None,
    negative_prompt: str | None = None,
    motion_scale: float | Dial = 1.0,
    windows: Windows | None = None,
    trajectory: Inversion | None = None,
    progress: bool = True,
) -> Edited:
    """Edit frames `f 3 H W` in [0, 1] by changing their prompt.

    settings  one of STYLE, ATTRIBUTE, SHAPE, RECONSTRUCTION, or changed with `dataclasses.replace`
    frames    which frames self-attention reads, in the inversion too; None is `default_frames`
    hold      how the maps are held: `recomputed` (memory does not grow with the steps), `memory`, `disk`; the result is the same
    folder    where `disk` puts its files meanwhile; None is the system's place
    strength  share of the grid that is inverted and sampled again; None is the model's own advice, else all
    guidance_scale   of the edit; None is the model's own
    trajectory  an inversion of this clip under the source prompt and with these frames (`ddim_inversion.invert_clip`), instead of making one; maps
                are recomputed from it

    Measured: `held_mib`, the most memory that held maps took. Raises InputError where prompts, words and settings do not fit each other.
    """
    unet = pipe.parts.unet
    table = frames or default_frames(pipe)
    work = begin(pipe, clip, steps, strength=strength, guidance_scale=guidance_scale, windows=windows, frames=table)
    pairs = work.conditions(source, target, negative_prompt=negative_prompt, motion_scale=motion_scale)
    fusing = settled(unet, pairs[0][0].words[0], pairs[1][0].words[0], settings)
    times, sites = tuple(work.times.t.tolist()), attention_sites(unet)
    ask = work.ask(pairs[0], 1.0, KeepAt(fusing.sites))
    if trajectory is not None:
        check_fits(work, pairs[0], trajectory)
        if hold != "recomputed":
            raise InputError(
                f"maps in {hold} are those of the inversion itself; leave the trajectory out, or hold them recomputed"
            )
    with (
        holding(hold, ask, lambda t: fusing.needs(t, times, sites), folder) as maps,
        bar((2 if trajectory is None else 1) * len(times), progress, "editing") as tick,
    ):
        states: Trajectory | None = trajectory
        if states is None:
            states = invert(work.in_windows(maps.listening(ask)), work.latents, work.times, after=ticking(tick))
        elif isinstance(maps, Recomputed):
            maps.follow(states)
        control = (Keep(fusing.shows, over_heads) >> FromInversion(fusing, maps)).on("cond")
        edit = work.ask(pairs[1], work.plan.guidance, control)
        blend = LatentBlend(fusing, maps, states)
        x = ddim(work.in_windows(blend.listening(edit)), states.noise, work.times, after=ticking(tick, blend))
    return work.edited(x, blend.mask, held_mib=maps.most / 2**20)


def default_frames(pipe: Pipeline) -> Control:
    """The frames that a model was tuned with (Tune-A-Video's, where it has such layers), else the zero-shot ones.

    Zero-shot every frame of an image model reads the middle one, but for the outermost maps, which read their own frame. The authors had no motion
    modules; a model with some holds the frames together itself, and reads as it was trained: every frame its own.
    """
    unet, tuned = pipe.parts.unet, tuned_with(pipe)
    if tuned is not None:
        return tuned
    if temporal_parameters(unet):
        return SPARSE_CAUSAL
    if pipe.motion is not None:
        return FrameChoice(())
    level = level_of(unet, SIDE)
    return FrameChoice(("middle",), sites=lambda site: site.level >= level)


def masks(pipe: Pipeline, source: str, target: str, settings: Settings) -> bool:
    """Whether an edit finds a mask. Raises InputError where prompts, words and settings do not fit each other."""
    ours, theirs = pipe.parts.text.tokenize([source, target])[0]
    return settled(pipe.parts.unet, ours, theirs, settings).words is not None


def settled(unet: UNet, source: Words, target: Words, settings: Settings) -> Fusing:
    """The settings for two prompts and a model."""
    level = level_of(unet, SIDE)
    fusion = settings.exchange.between(source, target, cross_level=level, self_level=level)
    if settings.blend == "changed":
        words = torch.stack([refine(target, source).fresh, refine(source, target).fresh]).float()
    else:
        words = blend_words(source, target, settings.blend)
    # Words that were only added have no place in the source: without a mask all of its structure stays.
    if not words.any() or (settings.blend == "changed" and not words[0].any()):
        return Fusing(settings, fusion, None, {})
    if not words[0].any():
        told = ", ".join(settings.blend)
        raise InputError(
            f"none of the blend words ({told}) is in the source prompt {source.text!r}, where the place of the edit is looked for"
        )
    return Fusing(settings, fusion, words, word_sites(unet))


@dataclasses.dataclass(frozen=True, eq=False)
class Fusing:
    """Attention fusing (section 3.2), settled for two prompts and a model. words `2 m` mark the blend words, None without;
    levels are where they show.
    """

    settings: Settings
    fusion: Fusion
    words: Tensor | None
    levels: Mapping[str, int]

    def sites(self, t: float, times: Sequence[float] | None) -> Callable[[Site], bool]:
        """The sites whose maps of the source are needed at t: where maps are fused, and where the blend words show."""
        now = self.fusion.at(t, times)
        latents = self.settings.blend_latents and inside(t, times, self.settings.blend_window)
        masked = latents or (self.settings.blend_attention and now.selfs)
        return lambda site: now.acts(site) or (masked and site.place in self.levels)

    def needs(self, t: float, times: Sequence[float], sites: Sequence[Site]) -> bool:
        """Whether any maps of the source are needed at t."""
        return self.fusion.at(t, times).temporal or any(map(self.sites(t, times), sites))

    def shows(self, site: Site) -> bool:
        """Whether the target's maps of a site are needed: where the blend words show, if latents are blended."""
        return self.settings.blend_latents and site.place in self.levels

    def mask(self, maps: Maps, item: int, latents: tuple[int, int], size: tuple[int, int] | None = None) -> Tensor:
        """Where the blend words are in maps of the source (item 0) or the target (item 1): `1 f h w` of bool."""
        assert self.words is not None
        return word_mask(maps, self.levels, self.words[item], latents, self.settings.threshold, size)


@dataclasses.dataclass(frozen=True, eq=False)
class FromInversion(Control):
    """One row's maps, made of those held from the inversion."""

    fusing: Fusing
    held: Callable[[float, tuple[int, ...]], Maps]
    now: FusionNow | None = None
    source: Maps = dataclasses.field(default_factory=dict)

    def at(self, t: float, frames: tuple[int, ...], times: tuple[float, ...] | None) -> Control:
        return dataclasses.replace(self, now=self.fusing.fusion.at(t, times), source=self.held(t, frames))

    def wants_maps(self, site: Site, p: Pass) -> bool:
        return self.now is not None and self.now.acts(site)

    def maps(self, site: Site, probs: Tensor, p: Pass) -> Tensor:
        """probs `1 f heads n m`."""
        assert self.now is not None
        mask = None
        if site.kind == "self" and self.fusing.words is not None and self.fusing.settings.blend_attention:
            mask = self.fusing.mask(self.source, 0, p.sizes[0], p.grid(site)).flatten(2).to(probs.device)
        return self.now.fuse(site, self.source[site.place].to(probs.device), probs, mask)


@dataclasses.dataclass(eq=False)
class LatentBlend:
    """A sampler's `after`: finds the mask of each step, and blends the latents where the settings say so.

    The source's maps are those of the step, the target's the sum over the steps so far, as in the authors' code. mask `f h w` is the last one.
    """

    fusing: Fusing
    held: Callable[[float, tuple[int, ...]], Maps]
    trajectory: Trajectory
    mask: Tensor | None = None
    source: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    target: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    done: int = 0

    def listening(self, ask: Denoise) -> Denoise:
        """`ask`, with its maps and the source's of the same call put together by frame."""

        def asked(x: Tensor, t: float | Tensor, frames: Sequence[int] | None = None) -> Prediction:
            pred = ask(x, t, frames)
            now, ids = called(x, t, frames)
            found = self.held(now, ids) if self.fusing.levels else {}
            for place in self.fusing.levels:
                if place in found:
                    maps = over_heads(found[place].to(x.device))
                    self.source[place] = added(self.source.get(place), maps, ids)
                if place in pred.kept:
                    self.target[place] = added(self.target.get(place), pred.kept[place], ids)
            return pred

        return asked

    def __call__(self, x: Tensor, t: float, pred: Prediction) -> Tensor:
        """x `1 f c h w` at the end of a step."""
        step, self.done = self.done, self.done + 1
        source, self.source = self.source, {}
        if self.fusing.levels.keys() - source.keys() or not self.fusing.levels:
            return x
        settings, times = self.fusing.settings, self.trajectory.times.t.tolist()
        size = (x.shape[-2], x.shape[-1])
        self.mask = self.fusing.mask(source, 0, size)[0]
        if not settings.blend_latents:
            return x
        self.mask = self.mask | self.fusing.mask(self.target, 1, size)[0]
        if not inside(times[step], times, settings.blend_window):
            return x
        inverted = self.trajectory.latents[step if settings.pairing == "noisier" else step + 1].to(x)
        return torch.where(self.mask[:, None], x, inverted)
