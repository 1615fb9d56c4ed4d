"""Text to clip as the command line asks for it: a request, what it makes, and the recipe that makes it again."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videogen import recipe as recipes
from videogen.clip import Clip, frame_rate
from videogen.errors import InputError, reason
from videogen.free_init import FreeInit
from videogen.models import folder
from videogen.noise import FrameNoise
from videogen.pipeline import Pipeline
from videogen.plan import check_numbers, find_sampler
from videogen.recipe import Recipe
from videogen.refiner import check as check_refiner
from videogen.refiner import refined
from videogen.windows import Windows

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Request:
    """What `videogen generate` was asked. None is the model's own choice.

    prompt          text, or texts by frame
    prompt_2, negative_2   for SDXL's second text encoder
    clip_skip       layers left out at the end of the text encoders, for the prompt
    model, motion   what `Pipeline.from_pretrained` takes
    lora            files, each with its strength: (path, weight)
    size            width and height in pixels
    window, overlap frames of a context window and what neighbours share
    free_noise      shuffled noise and windowed temporal attention (FreeNoise)
    free_init       iterations of FreeInit, 1 for none
    refiner         a model that makes the steps from `refiner_start` of the path on
    compile         the UNet's blocks by torch.compile
    """

    prompt: str | Mapping[int, str]
    model: str = "shapes"
    motion: str | None = None
    prompt_2: str | None = None
    negative: str | None = None
    negative_2: str | None = None
    clip_skip: int = 0
    frames: int = 16
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    rescale: float = 0.0
    sampler: str = "ddim"
    eta: float = 0.0
    karras: bool = False
    seed: int = 0
    lora: tuple[tuple[str, float], ...] = ()
    motion_scale: float = 1.0
    window: int | None = None
    overlap: int | None = None
    free_noise: bool = False
    free_init: int = 1
    refiner: str | None = None
    refiner_start: float = 0.8
    fps: Fraction = Fraction(8)
    tokenizer: str | None = None
    prediction_type: str | None = None
    compile: bool = False
    dtype: str = "float32"
    device: str = "cpu"

    def check(self) -> None:
        """Raise InputError for what can be refused before a model is read."""
        scales = {"guidance": self.guidance, "rescale": self.rescale, "motion_scale": self.motion_scale}
        check_numbers(self.frames, 1 if self.steps is None else self.steps, **scales)
        find_sampler(self.sampler)
        frame_rate(self.fps)
        prompts = [self.prompt] if isinstance(self.prompt, str) else self.prompt.values()
        for text in (*prompts, self.prompt_2 or "", self.negative or "", self.negative_2 or ""):
            check_text(text)
        if self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r}: choose one of {', '.join(DTYPES)}")
        if self.overlap is not None and self.window is None:
            raise InputError("an overlap belongs to windows; give --window too")
        FrameNoise(self.seed)
        if self.refiner is None and self.refiner_start != Request.refiner_start:
            raise InputError("a start of the refiner is given and no refiner; give --refiner too, or leave it out")
        if self.refiner is not None and self.free_init > 1:
            raise InputError("FreeInit samples the whole path again and again; leave --refiner or --free-init out")
        try:
            torch.zeros(1, device=self.device).cpu()
        except (RuntimeError, AssertionError) as problem:
            raise InputError(f"the device {self.device!r} cannot be used: {reason(problem)}") from problem


def load(request: Request) -> Pipeline:
    """The pipeline a request names, LoRA merged in."""
    request.check()
    for path, _ in request.lora:
        if not Path(path).exists():
            raise InputError(f"the LoRA file {path} does not exist")
    pipe = Pipeline.from_pretrained(
        request.model,
        motion=request.motion,
        dtype=DTYPES[request.dtype],
        device=request.device,
        tokenizer=request.tokenizer,
        prediction_type=request.prediction_type,
    )
    for i, (path, weight) in enumerate(request.lora):
        pipe.load_lora(path, weight, name=f"lora.{i}")  # file names need not differ
    return pipe.compile() if request.compile else pipe


def load_refiner(pipe: Pipeline, request: Request) -> Pipeline | None:
    """The refiner a request names, None where it names none. Raises InputError where it cannot go on from what the model leaves."""
    if request.refiner is None:
        return None
    found = Pipeline.from_pretrained(request.refiner, dtype=DTYPES[request.dtype], device=request.device)
    check_refiner(pipe, found, request.refiner_start)
    return found.compile() if request.compile else found


def planned(pipe: Pipeline, request: Request) -> dict[str, Any]:
    """What `Pipeline.plan` and the call itself need of a request. Raises InputError where a clip of this size can never fit."""
    width, height = request.size or pipe.default_size[::-1]
    _check_room(request.frames, width, height)
    windows = None
    if request.window is not None:
        overlap = request.window // 4 if request.overlap is None else request.overlap
        windows = Windows(request.window, overlap)
    return {
        "num_frames": request.frames,
        "height": height,
        "width": width,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
        "sampler": request.sampler,
        "eta": request.eta,
        "karras": request.karras,
        "windows": windows,
        "free_noise": request.free_noise,
    }


def make(
    pipe: Pipeline, request: Request, *, refiner: Pipeline | None = None, progress: bool = True
) -> tuple[Clip, Recipe]:
    """The clip of a request and its recipe.

    refiner   what `load_refiner` gave for it, where that is loaded already

    Raises InputError where a clip of this size can never fit, and where it came out as NaN.
    """
    options = planned(pipe, request)
    steps = pipe.steps if request.steps is None else request.steps
    guidance = pipe.guidance if request.guidance is None else request.guidance
    recipe = recipe_of(request, options["width"], options["height"], steps, guidance)
    refiner = load_refiner(pipe, request) if refiner is None else refiner
    call = pipe if refiner is None else functools.partial(refined, pipe, refiner, start=request.refiner_start)
    result = call(
        request.prompt,
        prompt_2=request.prompt_2,
        negative_prompt=request.negative,
        negative_prompt_2=request.negative_2,
        clip_skip=request.clip_skip,
        guidance_rescale=request.rescale,
        motion_scale=request.motion_scale,
        **options,
        seed=request.seed,
        free_init=FreeInit(request.free_init) if request.free_init > 1 else None,
        output_type="pt",
        progress=progress,
    )
    frames: Tensor = result.frames[0]
    if not torch.isfinite(frames).all():
        way = (
            "--dtype float32 or bfloat16"
            if request.dtype == "float16"
            else "other values for guidance, LoRA and weights in the prompt"
        )
        raise InputError(f"the clip holds NaN, which would show as black; try {way}")
    return Clip(frames, request.fps), recipe


def check_text(text: str) -> None:
    """Raise InputError for a prompt that is not text."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:  # bytes of another encoding reach a program as half characters
        raise InputError(
            f"the prompt is not text in UTF-8, from letter {problem.start + 1} on; type it again"
        ) from problem


def _check_room(frames: int, width: int, height: int) -> None:
    try:
        torch.empty(
            (frames, 3, height, width)
        )  # nothing writes into it, so it takes no memory; what can never fit is refused
    except (RuntimeError, TypeError, OverflowError) as problem:
        what = f"{frames} frames of {width} x {height} pixels do not fit into memory"
        raise InputError(f"{what}; ask for fewer frames or a smaller size") from problem


def recipe_of(request: Request, width: int, height: int, steps: int, guidance: float) -> Recipe:
    """The recipe of a request, with the size, steps and guidance that None stood for."""
    named = {part: getattr(request, part) for part in ("model", "motion", "tokenizer", "refiner")}
    named |= {f"lora.{i}": path for i, (path, _) in enumerate(request.lora)}
    standing = {f.name: f.default for f in dataclasses.fields(Request)}
    kept = ("prompt", "model", "motion", "negative", "frames", "size", "steps", "guidance", "sampler", "seed", "fps")
    options = {
        name: value
        for name, value in dataclasses.asdict(request).items()
        if name not in (*kept, "tokenizer", "refiner", "dtype", "device") and value != standing[name]
    }
    prompt = request.prompt
    return Recipe(
        command="generate",
        prompt=prompt if isinstance(prompt, str) else {str(frame): text for frame, text in prompt.items()},
        negative=request.negative,
        seed=request.seed,
        frames=request.frames,
        height=height,
        width=width,
        fps=str(request.fps),
        sampler=request.sampler,
        steps=steps,
        guidance=guidance,
        models={part: {"source": s, "sha256": _hash(s)} for part, s in named.items() if s not in (None, "none")},
        options=options | ({"motion": "none"} if request.motion == "none" else {}),
        versions=recipes.versions(),
        threads=torch.get_num_threads(),
        device=f"{request.device} {request.dtype}",
    )


def request_of(made: Recipe) -> Request:
    """The request that a recipe records. Raises InputError for a recipe of another command, or one that was changed by hand."""
    if made.command != "generate":
        raise InputError(
            f"this file was made by `videogen {made.command}`, which cannot be reproduced from its recipe yet"
        )
    try:
        return _request_of(made)
    except (LookupError, TypeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"the recipe in this file is damaged ({type(problem).__name__}: {problem})") from problem


def _request_of(made: Recipe) -> Request:
    sources = {part: entry["source"] for part, entry in made.models.items()}
    options: dict[str, Any] = dict(made.options)
    options["lora"] = tuple((str(path), float(weight)) for path, weight in options.get("lora", ()))
    known = {field.name for field in dataclasses.fields(Request)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError(
            f"the recipe has an option {unknown[0]!r} that this version does not know; use the version it names"
        )
    kinds = typing.get_type_hints(Request)
    for name, value in options.items():
        recipes.check_kind(kinds[name], value, name)
    device, _, dtype = made.device.partition(" ")
    return Request(
        **{
            **options,
            "prompt": made.prompt if isinstance(made.prompt, str) else {int(k): v for k, v in made.prompt.items()},
            "negative": made.negative,
            "model": sources["model"],
            "motion": options.get("motion", sources.get("motion")),
            "tokenizer": sources.get("tokenizer"),
            "refiner": sources.get("refiner"),
            "frames": made.frames,
            "size": (made.width, made.height),
            "steps": made.steps,
            "guidance": made.guidance,
            "sampler": made.sampler,
            "seed": made.seed if isinstance(made.seed, int) else made.seed[0],
            "fps": Fraction(made.fps),
            "device": device,
            "dtype": dtype or "float32",
        }
    )


def changed_models(made: Recipe) -> list[str]:
    """The parts whose files are not what the recipe recorded, each as `part (file) has changed`, or `is not there`."""
    changed = []
    for part, entry in made.models.items():
        try:
            verdict = "" if _hash(entry["source"]) == entry["sha256"] else "has changed"
        except InputError:
            verdict = "is not there"
        if verdict:
            changed.append(f"{part} ({entry['source']}) {verdict}")
    return changed


def _hash(source: str | None) -> str:
    return recipes.hash_path(folder.find(str(source)))
