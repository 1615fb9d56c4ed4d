"""The one bundle users hold: text side, VAE, denoiser and path. A method is a function over it, never another class."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogen import plan
from videogen.announced import model_opener, motion_installer
from videogen.applied import compile_blocks
from videogen.branches import Pair, apart, together
from videogen.conditioning import Dial
from videogen.control import Control, both
from videogen.denoiser import Denoiser
from videogen.errors import InputError
from videogen.files import replacing
from videogen.free_init import FreeInit
from videogen.guidance import Scale
from videogen.models import autoencoder, folder
from videogen.models.folder import Parts
from videogen.models.sizes import Sizes, count, size_condition
from videogen.models.text import suffixed
from videogen.models.weights.motion_keys import HEADER
from videogen.noise import FrameNoise, Generators, source_of
from videogen.offload import Turns
from videogen.path import Path
from videogen.plan import Plan
from videogen.prediction import Denoise, kind_from_config
from videogen.result import Output, Result, check_output, shown
from videogen.run import sampled
from videogen.windows import Windows, windowed

if TYPE_CHECKING:
    from videogen.adapters.lora import Loras

Callback = Callable[["Pipeline", int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]


@dataclasses.dataclass(frozen=True)
class Motion:
    """What was installed into the UNet's motion slots.

    line       what the checkpoint is, in one line
    config     the `config.json` of the same modules as a diffusers MotionAdapter
    longest    frames of one call, at most (the table of positions)
    trained    frames it was trained on, the length of a window
    scheduler  what the family changes in the scheduler config (AnimateDiff: linear betas)
    control    what the weights were trained with, in every call of the pipeline (Tune-A-Video's frame choice)
    save       what writes the parts into a folder, where diffusers has no layout for them
    """

    line: str
    config: Mapping[str, Any]
    longest: int
    trained: int
    scheduler: Mapping[str, Any]
    control: Control | None = None
    save: Callable[[Parts, FilePath], None] | None = None

    @property
    def header(self) -> dict[str, str]:
        """The entry of a safetensors header that says what shapes do not: heads, norm scopes, the schedule, frames of the training clips."""
        said = {"config": self.config, "scheduler": self.scheduler, "frames": self.trained}
        return {HEADER: json.dumps(said, default=dict)}


class Pipeline:
    """Text to clips and pictures. `Pipeline.from_pretrained(...)`, then `pipe(prompt, num_frames=16)`."""

    def __init__(self, parts: Parts, motion: Motion | None = None) -> None:
        self.parts = parts
        self.motion = motion
        self._turns: Turns | None = None
        self.scheduler: dict[str, Any] = {**parts.scheduler, **(motion.scheduler if motion else {})}
        self.denoiser = Denoiser(parts.unet, Path.from_config(self.scheduler), kind_from_config(self.scheduler))

    @classmethod
    def from_pretrained(
        cls,
        model: str | FilePath = "shapes",
        *,
        motion: str | FilePath | None = None,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        variant: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        local_files_only: bool = False,
        tokenizer: str | FilePath | None = None,
        prediction_type: str | None = None,
    ) -> Pipeline:
        """Load a model folder in diffusers' layout, a hub id, or a single checkpoint file; `shapes` is the miniature in this package.

        dtype            float32 where neither it nor `torch_dtype`, diffusers' older name for it, is given
        motion           a motion module: an AnimateDiff file, a MotionAdapter folder or hub id; `none` leaves out one that the model folder brings
        variant          of each part's weights (`fp16`), where the part has it; `revision` and `subfolder` are the model's, not the module's
        tokenizer        for single files, which have none: a folder with CLIP's vocabulary
        prediction_type  for single files that cannot say it (Stable Diffusion 2.x): `epsilon` or `v_prediction`

        Raises InputError for what is missing, broken or of another family.
        """
        if None not in (dtype, torch_dtype) and dtype != torch_dtype:
            raise InputError(f"dtype is {dtype} and torch_dtype {torch_dtype}, which mean the same; give one of them")
        dtype = dtype or torch_dtype or torch.float32
        place = folder.find(model, variant, subfolder, revision=revision, local_files_only=local_files_only)
        given = motion is not None and str(motion) != "none"
        source = folder.find(str(motion), local_files_only=local_files_only) if given else None
        if place.is_dir():
            if tokenizer is not None or prediction_type is not None:
                raise InputError(
                    f"{place} is a model folder, which brings its tokenizer and prediction type; leave those options out"
                )
            if opener := model_opener(place):
                if motion is not None or variant is not None:
                    raise InputError(
                        f"{place} brings its own temporal layers, which belong to it, in one variant; leave the motion module and variant out"
                    )
                opened: Pipeline = opener(place, dtype)
                return opened.to(device)
            parts = folder.load_folder(place, dtype, variant)
        else:
            from videogen.models.weights.single_file import load_single_file

            if variant is not None:
                raise InputError(f"{place} is a single file, which has no variant {variant}; leave variant out")
            parts = load_single_file(place, dtype=dtype, tokenizer=tokenizer, prediction_type=prediction_type)
        if motion is None and parts.motion is not None:
            installed = motion_installer()(parts.unet, parts.motion)
            if not parts.pictures_apart:  # the folder's scheduler is that of its modules too
                installed = dataclasses.replace(installed, scheduler={})
        else:
            installed = None if source is None else motion_installer()(parts.unet, source)
        return cls(parts, installed).to(device)

    @classmethod
    def from_single_file(cls, path: str | FilePath, **options: Any) -> Pipeline:
        """`from_pretrained` of a checkpoint file, by diffusers' name for it."""
        return cls.from_pretrained(path, **options)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Pipeline:
        """Move all parts (SDXL's VAE stays in float32 where float16 is too narrow for it), to stay there; returns itself."""
        if device is not None and self._turns is not None:
            self._turns.end()
            self._turns = None
        self.parts.to(device, dtype)
        self.parts.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def compile(self) -> Pipeline:
        """Compile each block of the UNet by itself (`torch.compile`): the first call of a shape takes a minute or so more; returns itself.

        Calls with a control (other than a frame choice), as editing has them, run as written.
        """
        compile_blocks(self.parts.unet)
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep text side, UNet and VAE in main memory, each on the device for as long as it computes, as in diffusers.

        `pipe.to(device)` ends it.
        """
        if self._turns is not None:
            self._turns.end()
        parts = self.parts
        self._turns = Turns((parts.text, parts.unet, parts.vae), torch.device(device), on_call=[parts.unet])

    def enable_vae_tiling(self) -> None:
        """Decode and encode large frames in overlapping tiles, as in diffusers. Frames go through the VAE in slices anyway."""
        self.parts.vae.enable_tiling()

    @property
    def device(self) -> torch.device:
        """Where the UNet computes."""
        return next(self.parts.unet.parameters()).device if self._turns is None else self._turns.device

    def _bring(self, part: torch.nn.Module) -> None:
        if self._turns is not None:
            self._turns.bring(part)

    @property
    def line(self) -> str:
        """What was loaded, in one line."""
        return self.parts.line if self.motion is None else f"{self.parts.line}; motion: {self.motion.line}"

    @functools.cached_property
    def loras(self) -> Loras:
        """The LoRA files merged into this model: `pipe.loras.add(file, weight)`, `set_weight`, `remove`, each exact."""
        from videogen.adapters.lora import Loras

        encoders = {f"text_encoder{ending}": encoder.model for ending, encoder in suffixed(self.parts.text).items()}
        return Loras({"unet": self.parts.unet, **encoders})

    def load_lora(self, path: str | FilePath, weight: float = 1.0, name: str | None = None) -> Pipeline:
        """Merge a LoRA file (kohya, diffusers, peft, MotionLoRA, domain adapter) into the parts it names; returns itself."""
        self.loras.add(path, weight, name)
        return self

    @property
    def steps(self) -> int:
        """Sampling steps where a call does not say: the model's own advice, else 25."""
        return int(self.parts.advice.get("steps", 25))

    @property
    def guidance(self) -> float:
        """The guidance scale where a call does not say: the model's own advice, else 7.5."""
        return float(self.parts.advice.get("guidance", 7.5))

    def advised_strength(self, otherwise: float) -> float:
        """How far towards noise an edit goes where a call does not say: the model's own advice, else the method's."""
        return float(self.parts.advice.get("strength", otherwise))

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width the model was trained at, in pixels."""
        factor = autoencoder.factor(self.parts.vae)
        height, width = self.parts.unet.config.sample_grid
        return height * factor, width * factor

    def save_pretrained(self, target: str | FilePath) -> None:
        """Write a folder in diffusers' layout (with the motion modules as a MotionAdapter), complete or not at all.

        Tuned models of Tune-A-Video are written as their authors do. Raises InputError where the target holds anything already.
        """
        place = FilePath(target)
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            raise InputError(f"{place} holds something already; give a new or an empty folder")
        motion = None
        if self.motion is not None:
            state = {n: v for n, v in self.parts.unet.state_dict().items() if "motion_modules." in n}
            motion = (self.motion.config, state, self.motion.header)
        with replacing(place) as beside:
            beside.mkdir()
            if self.motion is not None and self.motion.save is not None:
                self.motion.save(self.parts, beside)
                return
            folder.save_folder(self.parts, beside, self.scheduler, motion)

    def plan(
        self,
        *,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: Scale | None = None,
        sampler: str = "ddim",
        eta: float = 0.0,
        karras: bool = False,
        denoising_start: float = 0.0,
        denoising_end: float = 1.0,
        windows: Windows | None = None,
        free_noise: bool = False,
        control: Control | None = None,
    ) -> Plan:
        """What a call with these options will do, without doing it.

        height, width        pixels, multiples of the VAE's factor (8); the model's own size by default
        num_inference_steps  steps; None is the model's own number (25 where it says nothing)
        guidance_scale       a number, a function of the time, or a list by frame; 1 is no guidance, None the model's own (7.5)
        denoising_start, denoising_end   the shares of the path between which steps are made, as in diffusers
        windows              how clips longer than the module's table are cut; chosen by itself where they are
        free_noise           FreeNoise instead: shuffled noise, and temporal layers in overlapping pieces inside one call

        Raises InputError for impossible values.
        """
        steps = self.steps if num_inference_steps is None else num_inference_steps
        guidance = self.guidance if guidance_scale is None else guidance_scale
        plan.check_numbers(num_frames, steps, guidance_scale=guidance)
        factor = autoencoder.factor(self.parts.vae)
        size = plan.size_of(height, width, self.default_size, factor)
        # A picture is the image model's alone, and so is its schedule.
        scheduler = self.parts.scheduler if num_frames == 1 else self.scheduler
        method = plan.sampler_of(sampler, scheduler, eta, karras)
        times = method.times(method.path(scheduler), steps).between(denoising_start, denoising_end)
        table = (None, None) if self.motion is None else (self.motion.longest, self.motion.trained)
        pieces = plan.windows_of(windows, num_frames, free_noise, *table, chosen=control is not None)
        latents = (self.parts.unet.config.in_channels, size[0] // factor, size[1] // factor)
        return Plan(tuple(range(num_frames)), size, latents, guidance, method, times, eta, pieces, free_noise)

    # fmt: off
    @torch.no_grad()
    def __call__(
        self, prompt: str | Mapping[int, str] | Sequence[str | Mapping[int, str]], *,
        negative_prompt: str | Sequence[str] | None = None, clip_skip: int | None = None,
        prompt_2: str | Sequence[str] | None = None, negative_prompt_2: str | Sequence[str] | None = None,
        sizes: Sizes | None = None, negative_sizes: Sizes | None = None,
        num_frames: int = 16, height: int | None = None, width: int | None = None,
        sampler: str = "ddim", num_inference_steps: int | None = None, eta: float = 0.0, karras: bool = False,
        guidance_scale: Scale | None = None, guidance_rescale: float = 0.0, guidance_batched: bool = True,
        seed: int | Sequence[int] | None = None, generator: Generators | None = None, latents: Tensor | None = None,
        denoising_start: float = 0.0, denoising_end: float = 1.0,
        motion_scale: float | Dial = 1.0, conditions: Sequence[Pair] = (), control: Control | None = None,
        windows: Windows | None = None, free_noise: bool = False, free_init: FreeInit | None = None,
        output_type: Output = "pil", callback_on_step_end: Callback | None = None, progress: bool = True,
    ) -> Result:
        """Make a clip (or, with `num_frames=1`, a picture) for each prompt.

        prompt             text, `{frame: text}` for a prompt that travels, or a list of either
        clip_skip          layers left out at the end of the text encoders, for the prompt alone, as in diffusers
        prompt_2           what SDXL's second text encoder reads instead (`negative_prompt_2` likewise)
        sizes              what SDXL is told of sizes and crops (its refiner: of beauty), `negative_sizes` on the other side
        seed               frame-addressed noise: frame i is the same in a clip of 8 or 800 frames; a list gives one per prompt
        generator          diffusers' draw instead, from one or one per prompt; `latents` (`b f c h w`, unit variance) wins over both
        denoising_start    share of the path after which `latents` are, to go on from there; `denoising_end` where to stop
        guidance_batched   both branches in one call, or one after the other in half the memory
        conditions         pairs (given, null) of `Conditioning`, merged with the text
        control            what changes attention or activations (`Control`), a frame choice among others
        callback_on_step_end  `(pipe, step, t, {"latents": x}) -> {"latents": x} or None`, after each step, as in diffusers

        The others are `plan`'s. Raises InputError for impossible values, before anything is computed.
        """
        settled = self.plan(
            num_frames=num_frames, height=height, width=width, num_inference_steps=num_inference_steps, sampler=sampler,
            guidance_scale=guidance_scale, eta=eta, karras=karras, denoising_start=denoising_start, denoising_end=denoising_end,
            windows=windows, free_noise=free_noise, control=control,
        )
        check_output(output_type)
        plan.check_finite(guidance_rescale=guidance_rescale, motion_scale=motion_scale)
        plan.tell_unheard(settled.guidance, negative_prompt or negative_prompt_2, guidance_rescale)
        plan.check_together(settled, latents, control, free_init, batched=guidance_batched)
        prompts = [prompt] if isinstance(prompt, (str, Mapping)) else list(prompt)
        source, address = source_of(seed, generator), (len(prompts), settled.frames, settled.latents)
        x = plan.first_noise(latents, source, address, settled.pieces).to(self.device, torch.float32)
        pair = self.condition(
            prompts, negative_prompt, settled.frames, settled.size, motion_scale, conditions, prompt_2=prompt_2,
            negative_2=negative_prompt_2, clip_skip=clip_skip or 0, sizes=sizes, negative_sizes=negative_sizes,
        )
        denoise = self._denoise(settled, pair, control, guidance_rescale, batched=guidance_batched)
        callback = None if callback_on_step_end is None else functools.partial(_told, callback_on_step_end, self)
        x = sampled(settled, denoise, x, lambda draw: source(*address, draw).to(x), free_init, callback, progress)
        drawn_with = source.seed if isinstance(source, FrameNoise) and isinstance(source.seed, int) else None
        return Result(shown(x, self.decode, output_type), drawn_with, tuple(settled.times.t.tolist()), settled.cut)
    # fmt: on

    def _denoise(self, settled: Plan, pair: Pair, control: Control | None, rescale: float, *, batched: bool) -> Denoise:
        """The network under a condition, guided, in windows where the clip needs them."""
        if settled.pieces is not None:
            pair = (pair[0].replace(spans=settled.pieces), pair[1].replace(spans=settled.pieces))
        always = None if self.motion is None else self.motion.control
        guided = (together if batched else apart)(
            self.denoiser.replace(path=settled.times.path), pair, settled.guidance, settled.times.t, both(always, control), rescale
        )  # fmt: skip
        return guided if settled.windows is None or settled.free_noise else windowed(guided, settled.windows)

    def condition(
        self,
        prompts: Sequence[str | Mapping[int, str]],
        negative: str | Sequence[str] | None,
        frames: Sequence[int],
        size: tuple[int, int],
        motion_scale: float | Dial = 1.0,
        conditions: Sequence[Pair] = (),
        *,
        prompt_2: str | Sequence[str] | None = None,
        negative_2: str | Sequence[str] | None = None,
        clip_skip: int = 0,
        sizes: Sizes | None = None,
        negative_sizes: Sizes | None = None,
    ) -> Pair:
        """The pair (given, null) of a call: text, SDXL's sizes (`size` in pixels), the motion dial, and `conditions`."""
        self._bring(self.parts.text)
        given, null = self.parts.text(
            list(prompts), negative, second=prompt_2, negative_second=negative_2, clip_skip=clip_skip
        )
        config = self.parts.unet.config
        if config.size_width is not None:
            numbers = count(config.added_width, config.size_width, given.vector["text"].shape[-1])
            told, untold = size_condition(len(prompts), size, numbers, sizes, negative_sizes)
            given, null = given & told, null & untold
        elif sizes is not None or negative_sizes is not None:
            raise InputError("only SDXL is told sizes, and this model is none; leave them out")
        for more_given, more_null in conditions:
            given, null = given & more_given, null & more_null
        if self.motion is not None:
            # A picture is not a clip of one frame to a module that was trained on clips: it is skipped there.
            dial = motion_scale if isinstance(motion_scale, Dial) else Dial(motion_scale)
            by_condition = "motion" in given.dials or "motion" in null.dials
            if by_condition and motion_scale != 1.0:
                raise InputError(
                    "a condition turns the motion modules, and so does motion_scale; leave one of them out"
                )
            asked = {} if by_condition else {"motion": dial}
            last = {"motion": Dial(0.0)} if len(frames) == 1 else {}
            given, null = (side.replace(dials={**asked, **side.dials, **last}) for side in (given, null))
        elif motion_scale not in (0.0, 1.0):  # 0, without motion, is what a model without modules does
            raise InputError("a motion scale turns motion modules, and none is loaded; give --motion, or leave it out")
        return given, null

    def encode(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels `b f 3 H W` in [0, 1] -> latents `b f c h w`."""
        self._bring(self.parts.vae)
        return autoencoder.encode(self.parts.vae, clip.to(self.device) * 2 - 1, generator)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `b f c h w` -> pixels `b f 3 H W` in [0, 1], float32, on the processor."""
        self._bring(self.parts.vae)
        return autoencoder.decode(self.parts.vae, latents).div_(2).add_(0.5).clamp_(0, 1)


def _told(callback: Callback, pipe: Pipeline, step: int, t: float, x: Tensor) -> Tensor | None:
    changed = callback(pipe, step, t, {"latents": x})
    return None if changed is None else changed.get("latents")
