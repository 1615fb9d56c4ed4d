"""The recipe of image UNets (and, with more frames, of what grows on them): v-prediction with zero terminal noise on cached latents.

Lin et al. 2023 (arXiv 2305.08891) for the noise, Salimans and Ho 2022 (arXiv 2202.00512) for v = alpha eps - sigma x0. The text side is frozen. Cells
with an object weigh more than the others at first: they are few, and presence, colour and shape are decided there. And scenes come in fours that
differ in one word, under the same noise: most of a squared error is what no caption tells, and is the same for all four, so what differs among them
is given more weight. Both are biased (an object is expected too often, and comes in twos and threes), so both fade.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from videogen.conditioning import Conditioning, Dial
from videogen.denoiser import Denoiser
from videogen.errors import InputError
from videogen.models.folder import load_unet
from videogen.models.text import TextSide, load_text_side
from videogen.models.unet import UNet, UNetConfig
from videogen.path import Path as NoisePath
from videogen.shapes import sample
from videogen.shapes.captions import image_captions, plain
from videogen.shapes.middle import ANYWHERE, Middle
from videogen.shapes.usual import AS_DRAWN, Usual
from videogen.training import sampled
from videogen.training.config import Strict
from videogen.training.latents import Latents, Order, encode_missing, open_latents
from videogen.training.places import Places, expected, places
from videogen.training.recipe import JUDGE_SEED, Draw, Thunk

# DDIM with the spacing that zero terminal noise needs; no clipping, so that samplers agree.
SCHEDULER = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction",
    "timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0,
}  # fmt: skip

PARTS = {
    "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "motion_adapter": ["diffusers", "MotionAdapter"], "scheduler": ["diffusers", "DDIMScheduler"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"], "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
}  # fmt: skip


class Settings(Strict):
    """The net, the parts it stands on, the data."""

    model: Path = Path("videogen/shapes/miniature")  # holds vae/, tokenizer/ and text_encoder/
    store: Path = Path("runs/latents")
    start: Path | None = None  # the folder of a UNet to go on from, whose sizes count instead of these
    channels: tuple[int, ...] = (128, 128, 112)
    depths: tuple[int, ...] = (1, 1, 0)
    groups: int = 16
    heads: int = 4
    stills: int = 48_000
    middle: Middle = ANYWHERE
    usual: Usual = AS_DRAWN
    batch_size: int = 32
    object_weight: float = 1.0  # an object's cell counts this much more than another at first
    apart: float = 2.0  # what tells scenes of four apart counts this much more than the rest at first
    uneven: float = 0.0  # 1: at first v's error counts as it is, most where it is largest, at high noise
    fade: tuple[float, float] = (0.5, 0.8)  # shares of the budget between which both come to count like the rest
    drop: float = 0.1  # share of captions left empty, for guidance
    judged: int = 128
    made: int = 48  # stills that are made from captions and measured


class Batch(NamedTuple):
    """Latents `b f c h w`, how much each cell weighs `b f 1 h w`, captions, times `b`, noise like the latents.

    So many in a row as `together` says differ in one word only; the share of the error that differs among them counts `apart` times more. `even` says
    how far the noise levels are made to count alike, from 0 (v's error as it is) to 1. With
    `grounds` `b c h w`, the target is the mean over all `places`, else the one clip. `frames` are the ids of the latents' frames in the whole
    clip; without them these are the whole.
    """

    latents: Tensor
    weights: Tensor
    captions: list[str]
    times: Tensor
    noise: Tensor
    together: int = 1
    apart: float = 0.0
    even: float = 1.0
    grounds: Tensor | None = None
    places: Places | None = None
    frames: tuple[int, ...] | None = None


class Image:
    """Trains the whole UNet on stills; exports `unet/`, `scheduler/` and `model_index.json`."""

    root: nn.Module

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """A fresh UNet, or the one at `start`; all of it trains."""
        s = self.settings
        config = UNetConfig(
            channels=s.channels,
            depths=s.depths,
            heads=(s.heads,) * len(s.channels),
            context=128,
            layers=1,
            groups=s.groups,
            sample_size=16,
        )
        self.root = (load_unet(s.start, torch.float32) if s.start else UNet(config)).to(device)
        self.root.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.setting = Setting(s.model, device)
        self.data = self.setting.latents(Order(s.stills, twins="shape", middle=s.middle, usual=s.usual), s.store)
        self.held_out = self.setting.latents(Order(s.judged, JUDGE_SEED, middle=s.middle, usual=s.usual), s.store)
        return {"unet": list(self.root.parameters())}

    def batches(self, draws: Iterator[Draw]) -> Iterator[Batch]:
        """Stills with image captions, in fours that differ in their shape only."""
        for draw in draws:
            yield draw_batch(draw, self.data, self.settings.batch_size, self.settings, self.setting.device)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Thunk]]:
        """The weighted mean square of v's error."""
        yield "unet", lambda: {"loss": self.setting.error(self.root, batch)}

    def judge(self) -> dict[str, float]:
        """The held-out error of x0 on object cells at two high noises, and what stills made from captions of one object show."""
        errors = {f"x0_error_{t}": self.setting.x0_error(self.root, self.held_out, t) for t in (800, 950)}
        return errors | self.setting.made(self.root, self.settings.made, frames=(0,))

    def export(self, folder: Path) -> None:
        """`unet/` in float16 with diffusers' config, `scheduler/`, and the index of all parts of the miniature."""
        write_unet(self.root, folder / "unet")
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2))
        index = {"_class_name": "AnimateDiffPipeline", "_diffusers_version": "0.42.1"} | PARTS
        (folder / "model_index.json").write_text(json.dumps(index, indent=2))


class Setting:
    """The frozen surroundings of a UNet in training: text side, VAE's latents, noise path."""

    def __init__(self, model: Path, device: torch.device) -> None:
        self.model, self.device = model, device
        self.text: TextSide = load_text_side(model).to(device).requires_grad_(False)
        self.path = NoisePath.from_config(SCHEDULER)

    def latents(self, order: Order, store: Path) -> Latents:
        """The latents of `order`, which all processes have encoded together."""
        from accelerate import PartialState

        state = PartialState()
        encode_missing(order, self.model / "vae", store, self.device, state.process_index, state.num_processes)
        state.wait_for_everyone()
        return open_latents(order, self.model / "vae", store, self.device)

    def condition(self, captions: Sequence[str]) -> Conditioning:
        """The captions, encoded in float32 as they will be when clips are made."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            words = self.text.tokenize(captions)
            encoded = self.text.encode(self.text.embed(words), words)
        return Conditioning(tokens=encoded.tokens)

    @torch.no_grad()
    def made(self, net: nn.Module, count: int, frames: tuple[int, ...]) -> dict[str, float]:
        """The shares of `sampled.shares` over clips of these frames, made from unseen plain captions of one flat object on plain backgrounds."""
        generator = Draw(JUDGE_SEED, 1).generator("made")
        scenes = sample(count, generator=generator, split="test", objects=1, plain=True, styles=("flat",))
        captions, latents = plain(scenes), []
        for start in range(0, count, sampled.BATCH):
            told = captions[start : start + sampled.BATCH]
            x = torch.randn(len(told), len(frames), 4, 16, 16, generator=generator).to(self.device)
            given, null = self.condition(told), self.condition([""] * len(told))
            latents.append(sampled.clips(net, self.path, given, null, x, frames))
        found = sampled.shares(sampled.pixels(self.model / "vae", torch.cat(latents)), captions)
        return {
            name: share
            for name, share in found.items()
            if len(frames) > 1 or name not in ("right_motion", "right_unchanged")
        }

    def error(self, net: nn.Module, batch: Batch, dials: Mapping[str, Dial] | None = None) -> Tensor:
        """The mean over cells of weight * (v - v_true)^2, divided by the mean weight; noise levels weighted by `evened` as far as `batch.even` says.

        Of scenes that belong together, `batch.apart` times the squared distance of each error from their mean error is added.
        """
        pred, v = self.asked(net, batch, dials)
        levels = 1 + batch.even * (evened(self.path.alpha(batch.times)) - 1)
        error = (pred - v) * rearrange(levels.sqrt(), "b -> b 1 1 1 1").to(v)
        squares = error.square()
        if batch.apart:
            fours = error.unflatten(0, (-1, batch.together))
            squares = squares + batch.apart * (fours - fours.mean(1, keepdim=True)).flatten(0, 1).square()
        return (squares * batch.weights).sum() / (batch.weights.expand_as(squares).sum())

    def asked(self, net: nn.Module, batch: Batch, dials: Mapping[str, Dial] | None = None) -> tuple[Tensor, Tensor]:
        """v as the net predicts it and v as it should be, `b f c h w`."""
        alpha, sigma = (
            rearrange(value.to(self.device, torch.float32), "b -> b 1 1 1 1")
            for value in (self.path.alpha(batch.times), self.path.sigma(batch.times))
        )
        x = alpha * batch.latents + sigma * batch.noise
        v = alpha * batch.noise - sigma * batch.latents
        if batch.grounds is not None and batch.places is not None:
            mean = expected(x, batch.latents, batch.grounds, batch.places, alpha.flatten(), sigma.flatten())
            v = v + (batch.latents - mean) / sigma  # v = (alpha x - x0) / sigma
        told = self.condition(batch.captions).replace(dials=dials or {})
        denoise = Denoiser(net, self.path, "v").given(told)
        return denoise(x, batch.times, batch.frames).v.float(), v

    @torch.no_grad()
    def x0_error(self, net: nn.Module, held_out: Latents, t: int) -> float:
        """Mean square error of x0 on object cells of held-out latents, told everything: a finer judge than samples."""
        generator = Draw(JUDGE_SEED, t).generator("x0")
        total, count = 0.0, 0.0
        for start in range(0, len(held_out.latents), 32):
            part = slice(start, start + 32)
            latents = held_out.latents[part].float().to(self.device)
            captions = image_captions(held_out.scenes[part], generator)
            noise = torch.randn(latents.shape, generator=generator).to(self.device)
            batch = Batch(latents, torch.ones(1), captions, torch.full((len(latents),), t), noise)
            pred, _ = self.asked(net, batch)
            alpha, sigma = float(self.path.alpha(t)), float(self.path.sigma(t))
            x0 = alpha * (alpha * latents + sigma * noise) - sigma * pred
            there = (held_out.objects[part] > 127).float()[:, :, None].to(self.device)
            total += float(((x0 - latents).square() * there).sum())
            count += float(there.sum()) * latents.shape[2]
        return total / count


def draw_batch(draw: Draw, data: Latents, size: int, settings: Any, device: torch.device, power: float = 1.0) -> Batch:
    """This process's share of the step's `size` items. Times are T u^power, u spread evenly, one in each of as many strata as there are draws.

    Scenes that belong together (twins) come together and share time, noise, phrasing, and whether their captions are dropped.

    settings  has `object_weight`, `apart`, `uneven`, `fade` and `drop`
    """
    s, generator, alike = settings, draw.generator("batch"), data.together
    count = size // alike
    if not count:
        raise InputError(f"a batch of {size} cannot hold the {alike} scenes that belong together; make it larger")
    share = draw.share(count * alike)
    left = faded(s.fade, draw.progress)
    first = torch.randint(len(data.latents) // alike, (count,), generator=generator) * alike
    strata = torch.randperm(count, generator=generator)
    u = (strata + torch.rand(count, generator=generator)) / count
    times = (u**power * 1000).long().clamp(max=999).repeat_interleave(alike)
    noise = torch.randn(count, *data.latents.shape[1:], generator=generator).repeat_interleave(alike, 0)
    members = [image_captions(data.scenes[first + number], draw.generator("captions")) for number in range(alike)]
    captions = [caption for four in zip(*members, strict=True) for caption in four]
    dropped = (torch.rand(count, generator=generator) < s.drop).repeat_interleave(alike)
    told = ["" if drop else caption for drop, caption in zip(dropped.tolist(), captions, strict=True)]
    mine = (first[:, None] + torch.arange(alike)).flatten()[share]
    weights = 1 + left * (s.object_weight - 1) * (data.objects[mine].float() / 255).sqrt()
    return Batch(
        data.latents[mine].float().to(device),
        weights[:, :, None].to(device),
        told[share],
        times[share],
        noise[share].to(device),
        alike,
        left * s.apart if alike > 1 and len(mine) % alike == 0 else 0.0,
        1 - left * s.uneven,
        data.grounds[mine].float().to(device),
        places(data.scenes[mine], data.middle),
    )


def evened(alpha: Tensor) -> Tensor:
    """What to weigh the square of v's error with, of any shape: about the inverse of its size, 1 on average over all times.

    At high noise an object's place is open, and errors are six times those at low noise. They tell little, and their scatter would drown what
    decides on shapes, at t of 400 to 700. (Measured on object cells: 6.5 at alpha 0, 3.1 at 0.23, 1.0 at 0.5 and 0.75 above.)
    """
    return (1 + (alpha / 0.22) ** 2).clamp(max=6) / 4


def faded(fade: tuple[float, float], progress: float) -> float:
    """1 until the first share of the budget, 0 from the second on, linear between."""
    return min(1.0, max(0.0, (fade[1] - progress) / (fade[1] - fade[0])))


def write_unet(unet: UNet | Any, folder: Path) -> None:
    """The image layers of `unet` in float16, in diffusers' layout."""
    from safetensors.torch import save_file

    folder.mkdir()
    state = {
        name: value.half().contiguous() for name, value in unet.state_dict().items() if "motion_modules." not in name
    }
    save_file(state, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(unet.config.to_diffusers(), indent=2))
