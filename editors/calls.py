"""From a request of the command line to a call of one of the methods (entry point group `videogen.editing`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from torch import Tensor

import editors
from editors.alignment import Edit as Kind
from editors.choice import METHODS, TUNING, chosen
from editors.config_files import configured
from editors.edited import Edited
from editors.fatezero import PRESETS, Settings, masks
from editors.map_fusion import Exchange
from editors.prompt_to_prompt import Blend
from motion_modules.fatezero_folder import ModelConfig
from motion_modules.pseudo_3d import frame_table
from motion_modules.tune_a_video import temporal_parameters
from motion_modules.tune_a_video_folder import MOTION as TUNED
from videogen.editing import Few, Job, Offer, Piece, Request
from videogen.errors import InputError
from videogen.frame_choice import FrameChoice
from videogen.pipeline import Pipeline

INVERSION_STEPS = 50
"""Of methods that invert: the papers' own number, for inversion errs more with fewer."""

TUNED_ON = 24
"""Frames that Tune-A-Video tunes on, at most: those of its paper."""

WHOLE = (0.0, 1.0)
"""The steps in which latents outside the place of `--blend` return to the clip's: all, where the papers leave some out."""

Call = Callable[[Tensor, int], Edited]


def offer() -> Offer:
    """What this package brings to `videogen edit`."""
    return Offer(METHODS, configured, begin)


def begin(pipe: Pipeline, request: Request, frames: int, few: Few, progress: bool = True) -> Job:
    """Settle method, steps, guidance and settings, and make the method ready for chunks of the clip."""
    tuned = bool(temporal_parameters(pipe.parts.unet))
    if request.edit not in get_args(Kind):
        raise InputError(f"--edit {request.edit}: choose one of {', '.join(get_args(Kind))}")
    method, why = chosen(request, frames, tuned)
    request = settled(pipe, request, method, tuned)
    call, masked = _CALLS[method](pipe, request, few, progress)
    base, detail = request.base, _detail(request)
    line = f"{method} ({why}): {base.steps} steps, guidance {base.guidance:g}{detail}"

    def edit(clip: Tensor, first: int) -> Piece:
        made = call(clip, first)
        return Piece(made.frames, made.mask, made.measured)

    motion = TUNED if method == "tune_a_video" and not tuned else pipe.motion
    return Job(line, request, masked, motion, edit)


def settled(pipe: Pipeline, request: Request, method: str, tuned: bool) -> Request:
    """The request with everything chosen that it left open. Raises InputError for a strength that is no step."""
    steps = pipe.steps if method == "sdedit" else INVERSION_STEPS
    guidance = float(pipe.parts.advice.get("guidance", 12.5)) if method == "tune_a_video" else pipe.guidance
    base = dataclasses.replace(
        request.base,
        steps=steps if request.base.steps is None else request.base.steps,
        guidance=guidance if request.base.guidance is None else request.base.guidance,
    )
    changes: dict[str, Any] = {"base": base, "method": method}
    strength = request.strength
    if strength is None:
        inverted = request.settings.get(
            "invert", True
        )  # else it begins from a seed's noise, with all of the way before it
        strength = pipe.advised_strength(0.8 if method == "sdedit" else 1.0) if inverted else 1.0
        changes["strength"] = strength
    if strength > 0 and int(strength * (base.steps or 0)) == 0:
        raise InputError(
            f"a strength of {strength:g} is less than one of {base.steps} steps, so nothing would change; take more --steps, or a higher --strength"
        )
    if method == "fatezero" and request.preset is None and not request.settings:
        changes["preset"] = "shape" if tuned else "attribute"
    if method == "tune_a_video" and tuned:
        changes["settings"] = {name: value for name, value in request.settings.items() if name not in TUNING}
    elif method == "tune_a_video":
        # The authors' rate is for Stable Diffusion; a net with narrower levels wants a higher one.
        rate = 3e-5 if pipe.parts.unet.config.channels[0] >= 320 else 1e-3
        changes["settings"] = {"tuning_steps": 200, "learning_rate": rate, **request.settings}
    return dataclasses.replace(request, **changes)


def _detail(request: Request) -> str:
    told = [] if request.strength in (None, 1) else [f"strength {request.strength:g}"]
    told += [] if request.preset is None else [f"preset {request.preset}"]
    told += [] if request.edit == "auto" else [request.edit]
    told += [f"only where {' and '.join(request.blend)} is"] if request.blend else []
    told += [f"{word} x {factor:g}" for word, factor in request.weights.items()]
    told += [f"{n.replace('_', ' ')} {v}" for n, v in request.settings.items() if isinstance(v, (int, float, str))]
    return "".join(f", {text}" for text in told)


def _sdedit(pipe: Pipeline, r: Request, few: Few, progress: bool) -> tuple[Call, bool]:
    def call(clip: Tensor, first: int) -> Edited:
        shared = _shared(r, progress)
        return editors.sdedit(pipe, clip, r.source_prompt, r.prompt, seed=r.base.seed, first=first, **shared)

    return call, False


def _ddim_inversion(pipe: Pipeline, r: Request, few: Few, progress: bool) -> tuple[Call, bool]:
    def call(clip: Tensor, first: int) -> Edited:
        return editors.ddim_inversion(pipe, clip, r.source_prompt, r.prompt, **_shared(r, progress))

    return call, False


def _null_text(pipe: Pipeline, r: Request, few: Few, progress: bool) -> tuple[Call, bool]:
    def call(clip: Tensor, first: int) -> Edited:
        shared = _shared(r, progress)
        del shared["negative_prompt"]  # null texts stand in its place; `choice` refuses one
        return editors.null_text(pipe, clip, r.source_prompt, r.prompt, **shared)

    return call, False


def _prompt_to_prompt(pipe: Pipeline, r: Request, few: Few, progress: bool) -> tuple[Call, bool]:
    blend = Blend(r.blend, window=WHOLE) if r.blend else None

    def call(clip: Tensor, first: int) -> Edited:
        return editors.prompt_to_prompt(
            pipe, clip, r.source_prompt, r.prompt, edit=cast(Kind, r.edit), weights=r.weights, blend=blend, **_shared(r, progress)
        )  # fmt: skip

    return call, bool(r.blend)


def _fatezero(pipe: Pipeline, r: Request, few: Few, progress: bool) -> tuple[Call, bool]:
    settings, table = fatezero_settings(r), fatezero_frames(r, pipe)

    def call(clip: Tensor, first: int) -> Edited:
        return editors.fatezero(
            pipe, clip, r.source_prompt, r.prompt, settings=settings, frames=table, hold=r.settings.get("hold", "recomputed"),
            **_shared(r, progress),
        )  # fmt: skip

    return call, masks(pipe, r.source_prompt, r.prompt, settings)


def _shared(r: Request, progress: bool) -> dict[str, Any]:
    """What all methods are told."""
    return {
        "steps": r.base.steps, "strength": r.strength, "guidance_scale": r.base.guidance, "negative_prompt": r.base.negative,
        "motion_scale": r.base.motion_scale, "progress": progress,
    }  # fmt: skip


def fatezero_settings(r: Request) -> Settings:
    """FateZero's settings: those of a configuration file if there was one, else the preset's, then what the options say.

    Raises InputError for an unknown preset.
    """
    if r.preset is not None and r.preset not in PRESETS:
        raise InputError(f"--preset {r.preset}: choose one of {', '.join(PRESETS)}")
    if "fusion" in r.settings:
        found: Mapping[str, Any] = r.settings["fusion"]
        settings = Settings(**{**found, "exchange": Exchange(**found["exchange"])})
    else:
        settings = PRESETS[r.preset or "attribute"]
    exchange = settings.exchange
    if r.edit != "auto":
        exchange = dataclasses.replace(exchange, edit=cast(Kind, r.edit))
    exchange = dataclasses.replace(exchange, weights={**exchange.weights, **r.weights})
    settings = dataclasses.replace(settings, exchange=exchange)
    # Whoever names a place wants all others kept, in structure and in colour.
    return dataclasses.replace(settings, blend=r.blend, blend_latents=True, blend_window=WHOLE) if r.blend else settings


def fatezero_frames(r: Request, pipe: Pipeline) -> FrameChoice | None:
    """The frame table of a configuration file; None is the method's own, and a tuned model's where the file has no `model_config`."""
    unet, said = pipe.parts.unet, r.settings
    if "fusion" not in said or ("entries" not in said and temporal_parameters(unet)):
        return None
    return frame_table(unet, said.get("entries", ModelConfig.entries), int(said.get("least", ModelConfig.least)))


def _tune_a_video(pipe: Pipeline, r: Request, few: Few, progress: bool) -> tuple[Call, bool]:
    from editors.tune_a_video import check_tuning, sample, tune

    tuned = pipe if temporal_parameters(pipe.parts.unet) else None
    inversion_prompt = "" if r.settings.get("invert", True) else None
    if tuned is None:
        steps, rate = int(r.settings["tuning_steps"]), float(r.settings["learning_rate"])
        check_tuning(steps, rate)

    def call(clip: Tensor, first: int) -> Edited:
        nonlocal tuned
        error: Mapping[str, float] = {}
        if tuned is None:  # not before the first chunk, when all that can be refused has been
            frames = few(int(r.settings.get("tuned_on", TUNED_ON)))
            tuned, error = tune(
                pipe, frames, r.source_prompt, steps=steps, learning_rate=rate, seed=r.base.seed, progress=progress
            )
        made = sample(
            tuned,
            clip,
            r.prompt,
            inversion_prompt=inversion_prompt,
            seed=r.base.seed,
            first=first,
            **_shared(r, progress),
        )
        return dataclasses.replace(made, measured={**made.measured, **error})

    return call, False


_CALLS = {
    "sdedit": _sdedit,
    "ddim_inversion": _ddim_inversion,
    "null_text": _null_text,
    "prompt_to_prompt": _prompt_to_prompt,
    "fatezero": _fatezero,
    "tune_a_video": _tune_a_video,
}
