"""What `videogen generate` would do, told before it does it (`--explain`): nothing is sampled, and what could not run is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from videogen import generation
from videogen.generation import Request
from videogen.pipeline import Pipeline
from videogen.plan import Plan

Line = tuple[str, str]


def explain(pipe: Pipeline, request: Request) -> list[Line]:
    """Pairs (name, text), in the order in which things happen. Raises InputError for what the call itself would refuse."""
    plan = pipe.plan(**generation.planned(pipe, request))
    _check_words(pipe, plan, request)
    return [
        ("model", pipe.parts.line),
        ("parts", _parts(pipe)),
        ("motion", _motion(pipe, request)),
        *(("lora", line) for line in pipe.loras.lines),
        *_refiner(pipe, request),
        ("prompt", _prompt(pipe, request)),
        ("clip", _clip(plan, request)),
        ("sampler", _sampler(pipe, plan, request)),
        ("guidance", _guidance(plan, request)),
        ("windows", _windows(plan, request)),
        ("each step", _step(plan, request)),
        ("memory", _memory(pipe, plan)),
    ]


@torch.no_grad()
def _check_words(pipe: Pipeline, plan: Plan, request: Request) -> None:
    """Encode the prompts: quickly done, and what the model cannot be told ends here."""
    pipe.condition(
        [request.prompt], request.negative, plan.frames, plan.size, request.motion_scale, prompt_2=request.prompt_2,
        negative_2=request.negative_2, clip_skip=request.clip_skip,
    )  # fmt: skip


def _parts(pipe: Pipeline) -> str:
    parts = {"UNet": pipe.parts.unet, "VAE": pipe.parts.vae, "text": pipe.parts.text}
    told = ", ".join(f"{name} {_millions(part)} ({_dtype(part)})" for name, part in parts.items())
    return f"{told} parameters, on {pipe.device}"


def _motion(pipe: Pipeline, request: Request) -> str:
    if pipe.motion is None:
        return "none; frames do not know of each other"
    if request.frames == 1:
        return "left out, for one frame is a picture"
    return pipe.motion.line + (f"; strength {request.motion_scale:g}" if request.motion_scale != 1 else "")


def _refiner(pipe: Pipeline, request: Request) -> list[Line]:
    refiner = generation.load_refiner(pipe, request)
    if refiner is None:
        return []
    asked, start = generation.planned(pipe, request), request.refiner_start
    pipe.plan(**asked, denoising_end=start)
    steps = {"num_inference_steps": asked["num_inference_steps"] or pipe.steps}
    later = refiner.plan(**{**asked, **steps, "windows": None, "free_noise": False}, denoising_start=start)
    return [("refiner", f"{refiner.line}; from {start:g} of the path on, {len(later.times)} steps")]


def _prompt(pipe: Pipeline, request: Request) -> str:
    texts = list(request.prompt.values()) if isinstance(request.prompt, Mapping) else [request.prompt]
    words = pipe.parts.text.tokenize([*texts, request.negative or ""])[0]
    told = (
        f"at frames {', '.join(map(str, sorted(request.prompt)))}"
        if isinstance(request.prompt, Mapping)
        else repr(texts[0])
    )
    against = "" if request.negative is None else f", against {request.negative!r}"
    return f"{told}{against}: {words[0].chunks} x {len(words[0].ids[0])} tokens"


def _clip(plan: Plan, request: Request) -> str:
    height, width = plan.size
    count = len(plan.frames)
    if count == 1:
        return f"a picture of {width} x {height} pixels, seed {request.seed}"
    seconds = f"{float(count / request.fps):g} s at {float(request.fps):g} frames per second"
    return f"{count} frames of {width} x {height} pixels, {seconds}, seed {request.seed}"


def _sampler(pipe: Pipeline, plan: Plan, request: Request) -> str:
    t = plan.times.t
    rounds = f", {request.free_init} times over (FreeInit)" if request.free_init > 1 else ""
    span = f"{len(plan.times)} steps from t = {float(t[0]):g} to {float(t[-1]):g}"
    return f"{request.sampler} (diffusers' {plan.sampler.scheduler}), {span}{rounds}; the UNet predicts {pipe.denoiser.predicts}"


def _guidance(plan: Plan, request: Request) -> str:
    if plan.guidance == 1:
        return "none" + (", so the negative prompt has no effect" if request.negative else "")
    return f"{plan.guidance:g}" + (f", rescaled by {request.rescale:g}" if request.rescale else "")


def _windows(plan: Plan, request: Request) -> str:
    if plan.windows is None:
        return "none; all frames in one piece"
    cut = [f"{window.frames[0]}-{window.frames[-1]}" for window in plan.windows.cut(plan.frames)]
    where = "inside the motion modules (FreeNoise)" if request.free_noise else "whole calls, averaged"
    return f"{len(cut)} of {plan.windows.length} frames, {where}: {', '.join(cut)}"


def _step(plan: Plan, request: Request) -> str:
    windows = None if plan.windows is None or request.free_noise else plan.windows.cut(plan.frames)
    calls, frames = (1, len(plan.frames)) if windows is None else (len(windows), len(windows[0].frames))
    rows = 1 if plan.guidance == 1 else 2
    order = ["given", *(["guidance"] if rows == 2 else []), *(["windows"] if windows else [])]
    size = " x ".join(map(str, plan.latents))
    return f"{calls} call{'s' * (calls > 1)} of {rows} x {frames} frames of {size} numbers; order: {', '.join(order)}"


def _memory(pipe: Pipeline, plan: Plan) -> str:
    parts = (pipe.parts.unet, pipe.parts.vae, pipe.parts.text)
    weights = sum(value.nbytes for part in parts for value in part.state_dict().values())
    height, width = plan.size
    pixels = 4 * 3 * len(plan.frames) * height * width
    return (
        f"weights {_mib(weights)}, the finished clip {_mib(pixels)}; what the UNet holds while it computes comes on top"
    )


def _millions(part: nn.Module) -> str:
    return f"{sum(value.numel() for value in part.parameters()) / 1e6:.1f} M"


def _dtype(part: Any) -> str:
    return str(next(part.parameters()).dtype).removeprefix("torch.")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
