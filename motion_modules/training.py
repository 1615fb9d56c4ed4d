"""The recipe of motion modules (Guo et al. 2023, section 4.2): temporal layers on a frozen image UNet, from clips.

What differs from the authors' training: v-prediction, Muon, clips of few frames first, more steps and more weight at high noise: with the mean over
places as the target, motion words make their largest difference at t of 700 to 900, and how they are told apart counts most at first. With `image`
other than frozen it is a joint stage: image layers train along at a fraction of the rate, on stills too with the modules off, and ship as the image
UNet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from motion_modules.animatediff import (
    MotionConfig,
    add_motion,
    motion_parameters,
    motion_state,
    near_in_time,
    positions_by_frame,
)
from videogen.conditioning import Dial
from videogen.errors import InputError
from videogen.models.folder import load_unet, write_part
from videogen.shapes.captions import plain
from videogen.shapes.middle import ANYWHERE, Middle
from videogen.shapes.usual import AS_DRAWN, Usual
from videogen.shapes.world import DIRECTIONS, FRAMES, MOTIONS, Scenes
from videogen.training import Offer
from videogen.training.config import Strict
from videogen.training.image import Batch, Setting, draw_batch, write_unet
from videogen.training.latents import Latents, Order
from videogen.training.places import places
from videogen.training.recipe import JUDGE_SEED, Draw, Thunk

# Where it is judged whether the words are heard: below, the noisy clip itself shows the direction.
NOISES = (900, 960, 999)
NEARNESS = 1.4  # of new modules

Kind = Literal["travel", "stay", "pair"]  # of fours: what tells them apart


class Every(NamedTuple):
    """So many frames of a clip: `first`, `first + stride`, ..."""

    first: int
    stride: int
    number: int

    @property
    def frames(self) -> slice:
        return slice(self.first, self.first + self.stride * (self.number - 1) + 1, self.stride)

    @property
    def ids(self) -> tuple[int, ...]:
        """The same, one by one."""
        return tuple(range(self.first, self.first + self.stride * self.number, self.stride))


class Phase(NamedTuple):
    """Until this share of the budget, steps on `clips` clips of so many frames, whatever their distance.

    A share `single` of them is on as many frames by themselves, each of another clip, and a share `focus` on clips at high noise; both are of
    scenes in fours whose captions tell all that differs among them (`telling`).
    """

    until: float
    frames: int
    clips: int
    single: float = 0.0
    focus: float = 0.0


class Settings(Strict):
    """The model that is animated, the modules, the clips."""

    model: Path = Path("videogen/shapes/miniature")
    store: Path = Path("runs/latents")
    start: Path | None = None  # a motion_adapter folder to go on from
    heads: int = 4
    positions: int = 32
    clips: int = 4000
    middle: Middle = ANYWHERE  # where in the frame
    usual: Usual = AS_DRAWN  # of what size, how fast
    phases: tuple[Phase, ...] = (
        Phase(0.03, 4, 24, 0.8, 0.1),
        Phase(0.25, 4, 24, 0.3, 0.5),
        Phase(0.4, 8, 16, 0.06, 0.5),
        Phase(1.0, 16, 8, 0.04, 0.45),
    )
    noise_power: float = 0.7  # below 1: more often at high noise, where the direction is decided
    single_power: float = 0.05  # for frames by themselves, whose places are open at t of 900 and more
    focus_power: float = 0.2  # for clips at high noise: frames together show a track at t of 700 to 930
    # Shares of these two on fours that travel, that stay, of pairs.
    lessons: tuple[float, float, float] = (0.3, 0.4, 0.3)
    pair_share: float = Field(0.2, ge=0, le=1)  # of the other steps on clips, on such as have two objects
    object_weight: float = 1.0
    apart: float = 5.0
    uneven: float = 1.0
    fade: tuple[float, float] = (0.5, 0.8)
    drop: float = 0.1
    image: Literal["frozen", "cross", "all"] = (
        "frozen"  # which image layers train too: none, their attention to text, all
    )
    still_share: float = Field(0.25, ge=0, lt=1)  # of the steps, in which those learn from stills with the modules off
    stills: int = 48_000
    judged: int = 64
    aside: int = Field(8, gt=0)  # fours of each kind kept out of training, to see what of their difference is missed
    made: int = 16  # clips that are made from captions and measured


class Motion:
    """Trains the motion modules (group `motion`) and, in a joint stage, image layers (group `image`)."""

    root: nn.Module

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """The miniature's image UNet with motion modules installed as the identity, or as `start` has them."""
        s = self.settings
        unet = load_unet(s.model / "unet", torch.float32)
        config = MotionConfig(
            channels=unet.config.channels,
            layers=unet.config.layers,
            heads=s.heads,
            positions=s.positions,
            groups=unet.config.groups,
        )
        self.config = config
        self.root = add_motion(unet, config).to(device)
        positions_by_frame(self.root)
        self.root.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if s.start:
            _load_motion(self.root, s.start)
        else:
            near_in_time(self.root, NEARNESS)
        self.setting = Setting(s.model, device)
        clips = Order(s.clips, seed=1, frames=tuple(range(FRAMES)), twins="motion", middle=s.middle, usual=s.usual)
        pairs = replace(clips, count=s.clips // 8 * 4, seed=2, twins="pair")
        self.data, self.pairs = (self.setting.latents(order, s.store) for order in (clips, pairs))
        self.data, travel, stay = put_aside(self.data, s.aside, "travel", "stay")
        self.pairs, pair = put_aside(self.pairs, s.aside, "pair")
        self.aside: dict[Kind, Latents] = {"travel": travel, "stay": stay, "pair": pair}
        self.lessons = [
            self.data.fours(telling(self.data, "travel")),
            self.data.fours(telling(self.data, "stay")),
            self.pairs.fours(telling(self.pairs, "pair")),
        ]
        held_out = replace(clips, count=s.judged, seed=JUDGE_SEED, twins=None)
        self.held_out = self.setting.latents(held_out, s.store)
        if s.image != "frozen":
            stills = Order(s.stills, twins="shape", middle=s.middle, usual=s.usual)
            self.stills = self.setting.latents(stills, s.store)
        groups = {"motion": list(motion_parameters(self.root).values())}
        if s.image != "frozen":
            groups["image"] = list(image_parameters(self.root, cross=s.image == "cross").values())
        return groups

    def batches(self, draws: Iterator[Draw]) -> Iterator[tuple[Every | None, Batch]]:
        """Clips with full captions, some of their frames at an even distance; in a joint stage as many stills (None) now and then.

        Frames that follow each other teach that they agree, distant ones where they go, and frames by themselves, many at once, where a word
        means that an object stands at a time. Most clips come in fours that differ in their motion only.
        """
        s = self.settings
        for draw in draws:
            generator = draw.generator("frames")
            phase = next((phase for phase in s.phases if draw.progress < phase.until), s.phases[-1])
            pair = float(torch.rand((), generator=generator)) < s.pair_share
            data, size, power = self.pairs if pair else self.data, phase.clips, s.noise_power
            every: Every | None = drawn(phase.frames, generator)
            lesson = float(torch.rand((), generator=generator))
            subject = self.lessons[int(torch.multinomial(torch.tensor(s.lessons), 1, generator=generator))]
            if lesson < phase.single:
                every, data = drawn(1, generator), subject
                size, power = phase.clips * phase.frames, s.single_power
            elif lesson < phase.single + phase.focus:
                data, power = subject, s.focus_power
            if s.image != "frozen" and float(torch.rand((), generator=generator)) < s.still_share:
                every, data, size, power = None, self.stills, phase.clips * phase.frames, s.noise_power
            elif every:
                data = data.frames_of(every.frames)
            yield every, draw_batch(draw, data, size, s, self.setting.device, power)

    def losses(self, batch: tuple[Every | None, Batch]) -> Iterator[tuple[str, Thunk]]:
        """The weighted mean square of v's error: of clips, or of stills with the modules off."""
        every, items = batch
        if every is None:
            yield "image", lambda: {"loss": self.setting.error(self.root, items, {"motion": Dial(0.0)})}
            return
        group, clips = "motion" if self.settings.image == "frozen" else "motion+image", items._replace(frames=every.ids)
        yield group, lambda: {"loss": self.setting.error(self.root, clips)}

    def judge(self) -> dict[str, float]:
        """Held-out figures, and what clips made from captions of one object show.

        `error_T` at t = T, and `hears_T`: how much larger it gets, as a share, when the captions tell the opposite direction. `missed_first_T`,
        `missed_last_T` and `missed_clip_T`: of what differs in the targets of four scenes that go four ways under one noise, the share that the
        predictions miss; in the first and the last frame by itself, and in whole clips. `missed_stay_T` and `missed_pair_T`: the same of clips of
        four that stand, grow, shrink and rotate, and of four of two objects that exchange colours and shapes.
        """
        every = Every(0, 2, FRAMES // 2)
        scenes, latents = moving(self.held_out.frames_of(every.frames))
        told, opposite = plain(scenes), plain(turned(scenes))
        figures = {}
        for time in NOISES:
            figures[f"error_{time}"] = right = self._error(told, latents, every, time)
            figures[f"hears_{time}"] = self._error(opposite, latents, every, time) / right - 1
        made = self.setting.made(self.root, self.settings.made, frames=every.ids)
        parts = {"first": Every(0, 1, 1), "last": Every(FRAMES - 1, 1, 1), "clip": Every(0, 1, FRAMES)}
        asked: list[tuple[str, Kind, Every]] = [(name, "travel", every) for name, every in parts.items()]
        asked += [("stay", "stay", parts["clip"]), ("pair", "pair", parts["clip"])]
        missed = {
            f"missed_{name}_{t}": self._missed(self.aside[kind], every, t)
            for name, kind, every in asked
            for t in NOISES
        }
        return figures | missed | made

    @torch.no_grad()
    def _missed(self, aside: Latents, every: Every, time: int) -> float:
        data, alike = aside.frames_of(every.frames), aside.together
        generator, left, there = Draw(JUDGE_SEED, time).generator("aside"), 0.0, 0.0
        for start in range(0, len(data.latents), alike):
            part = slice(start, start + alike)
            x0, scenes = data.latents[part].float().to(self.setting.device), data.scenes[part]
            noise = torch.randn(x0.shape[1:], generator=generator).expand_as(x0).to(x0.device)
            grounds = data.grounds[part].float().to(x0.device)
            times = torch.full((alike,), time)
            known = places(scenes, data.middle)
            batch = Batch(x0, torch.ones(1), plain(scenes), times, noise, alike, 0.0, 1.0, grounds, known, every.ids)
            pred, v = self.setting.asked(self.root, batch)
            wanted, told = v - v.mean(0), pred - pred.mean(0)
            left, there = left + float((told - wanted).square().sum()), there + float(wanted.square().sum())
        return left / there

    def _error(self, captions: list[str], latents: Latents, every: Every, time: int) -> float:
        generator, total = Draw(JUDGE_SEED, time).generator("clips"), 0.0
        count = len(latents.latents)
        for start in range(0, count, 4):
            part = slice(start, start + 4)
            x0 = latents.latents[part].float().to(self.setting.device)
            noise = torch.randn(x0.shape, generator=generator).to(x0.device)
            weights = (latents.objects[part].float() / 255)[:, :, None].to(x0.device)
            times = torch.full((len(x0),), time)
            batch = Batch(x0, weights, captions[part], times, noise, frames=every.ids)
            total += float(self.setting.error(self.root, batch)) * len(x0)
        return total / count

    def export(self, folder: Path) -> None:
        """`motion_adapter/` in float16; after a joint stage `unet/` too."""
        state = {name: value.half() for name, value in motion_state(self.root).items()}
        write_part(folder / "motion_adapter", self.config.to_diffusers(), state)
        if self.settings.image != "frozen":
            write_unet(self.root, folder / "unet")


def offer() -> Offer:
    """The recipe `shapes_motion`, as `videogen train` finds it (entry point group `videogen.recipes`)."""
    return Offer(Settings, Motion)


def image_parameters(unet: nn.Module, cross: bool) -> dict[str, nn.Parameter]:
    """The parameters of the image layers by name; with `cross` those of their attention to text only."""
    image = {name: p for name, p in unet.named_parameters() if "motion_modules." not in name}
    return {name: p for name, p in image.items() if ".attn2." in name} if cross else image


def drawn(count: int, generator: torch.Generator) -> Every:
    """So many frames at an even distance, that distance and the first frame by chance."""
    if not 1 <= count <= FRAMES:
        raise InputError(f"settings.phases: a clip has {FRAMES} frames, not {count}; ask for 1 to {FRAMES}")
    widest = (FRAMES - 1) // max(count - 1, 1)
    stride = 1 + int(torch.randint(widest, (), generator=generator))
    return Every(int(torch.randint(FRAMES - stride * (count - 1), (), generator=generator)), stride, count)


def moving(held_out: Latents) -> tuple[Scenes, Latents]:
    """The clips of one object that moves in a direction."""
    directions = torch.tensor([MOTIONS.index(name) for name in DIRECTIONS])
    scenes = held_out.scenes
    chosen = held_out.only((scenes.count == 1) & torch.isin(scenes.motion[:, 0], directions))
    return chosen.scenes, chosen


def telling(data: Latents, kind: Kind) -> Tensor:
    """Which fours on a plain background, where places are known, go the four ways; or stand, grow, shrink and rotate; or have two objects.

    All that differs among such four is what their captions tell.
    """
    ways = torch.tensor([MOTIONS.index(name) for name in DIRECTIONS])
    travels, two = torch.isin(data.scenes.motion[:, 0], ways), data.scenes.count == 2
    told = two if kind == "pair" else ~two & (travels if kind == "travel" else ~travels)
    return (told & places(data.scenes).free.flatten(1).any(1)).view(-1, data.together).all(1)


def put_aside(data: Latents, count: int, *kinds: Kind) -> list[Latents]:
    """The data without the last `count` of the `telling` fours of each kind (at most half of them), then those of each kind.

    Raises InputError where there are not two of a kind.
    """
    aside = []
    for kind in kinds:
        numbers = telling(data, kind).nonzero()[:, 0]
        if len(numbers) < 2:
            raise InputError(
                f"settings.clips: among so few are not two fours on a plain background to learn from ({kind}); give some hundred"
            )
        aside.append(torch.zeros(len(data.latents) // data.together, dtype=torch.bool))
        aside[-1][numbers[-min(count, len(numbers) // 2) :]] = True
    return [data.fours(~torch.stack(aside).any(0)), *(data.fours(which) for which in aside)]


def turned(scenes: Scenes) -> Scenes:
    """The same scenes with every direction's name replaced by its opposite; only captions should be made of them."""
    opposite = list(range(len(MOTIONS)))
    for name, (x, y) in DIRECTIONS.items():
        opposite[MOTIONS.index(name)] = next(
            MOTIONS.index(other) for other, way in DIRECTIONS.items() if way == (-x, -y)
        )
    return scenes.change(motion=torch.tensor(opposite)[scenes.motion])


def _load_motion(unet: nn.Module, folder: Path) -> None:
    from safetensors.torch import load_file

    state: dict[str, Tensor] = load_file(folder / "diffusion_pytorch_model.safetensors")
    wanted = motion_state(unet)
    if state.keys() != wanted.keys():
        raise InputError(f"{folder} does not hold motion modules of this model's shape")
    unet.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
