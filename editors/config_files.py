"""A configuration file of `videogen edit --config`: with the keys of FateZero's or of Tune-A-Video's authors, told apart by those keys.

What the command line says wins over the file: the clip, the prompts, the model.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from videogen.editing import Configured
from videogen.errors import InputError
from videogen.training.config import load

MARKS = {"editing_config": "FateZero", "train_data": "Tune-A-Video"}


def configured(
    path: Path, clip: str | None, prompt: str | None, source_prompt: str | None, model: str | None
) -> Configured:
    """Read a file; clip, prompts and model are those of the command line, None where it names none.

    Raises InputError for a file of another kind, a wrong key (with the nearest right one), and one that leaves open which prompt is meant.
    """
    keys = [str(key) for key in load(path)]
    if "recipe" in keys:
        raise InputError(
            f"{path} describes a training; run `videogen train {path}`, then edit with --model and the folder it exports"
        )
    if "editing_config" in keys:
        return _fatezero(path, prompt, source_prompt)
    if "train_data" in keys:
        return _tune_a_video(path, prompt, source_prompt, clip, model)
    near = next((near for key in keys for near in difflib.get_close_matches(key, MARKS, n=1, cutoff=0.6)), None)
    advice = f"; did you mean {near}?" if near else ""
    told = " or ".join(f"{key} ({name})" for key, name in MARKS.items())
    raise InputError(f"{path} is no configuration of an edit: it has no key {told}{advice}")


# How FateZero's authors take frames from a longer clip, with the values that take all of them, whole.
FRAMES: Mapping[str, Any] = {"start_sample_frame": 0, "sampling_rate": 1, "offset": {}}


def _fatezero(path: Path, prompt: str | None, source_prompt: str | None) -> Configured:
    from editors.fatezero_config import read_config

    own = read_config(path)
    wanted = [edit.prompt for edit in own.edits if edit.prompt != own.source]
    prompt = _one(wanted or [edit.prompt for edit in own.edits], path) if prompt is None else prompt
    config = read_config(path, source_prompt, prompt)
    (edit,) = config.edits
    for key, standing in FRAMES.items():
        value = config.sampling.get(key, standing)
        if any(value.values()) if isinstance(value, dict) else value != standing:
            warnings.warn(
                f"dataset_config.{key} does nothing here: every frame of the clip is edited, whole (see --range)",
                stacklevel=2,
            )
    if config.halves:
        warnings.warn(
            "model_config.temporal_downsample_time does nothing here: no network halves the frames, all levels see each of them",
            stacklevel=2,
        )
    return Configured(
        method="fatezero",
        clip=config.clip,
        model=config.model,
        prompt=prompt,
        source_prompt=config.source,
        steps=config.steps,
        guidance=config.guidance_scale,
        seed=config.seed,
        chunk=config.sampling.get("n_sample_frame"),
        settings={
            "fusion": dataclasses.asdict(edit.settings),
            "hold": "disk" if config.disk else "recomputed",
            **({} if config.entries is None else {"entries": list(config.entries), "least": config.least}),
        },
    )


# What the command reads of a Tune-A-Video file; a file that sets others to something else is told so.
READ = {
    "pretrained_model_path", "output_dir", "train_data", "validation_data", "max_train_steps", "learning_rate", "seed",
    # of no consequence to a tuning held in memory
    "checkpointing_steps", "validation_steps", "resume_from_checkpoint", "gradient_checkpointing", "mixed_precision",
    "enable_xformers_memory_efficient_attention",
}  # fmt: skip


# Keys of `train_data` that do nothing here, with the option that is there for them.
TAKEN = {"sample_start_idx": "--range", "sample_frame_rate": "--range", "width": "--size", "height": "--size"}


def _tune_a_video(
    path: Path, prompt: str | None, source_prompt: str | None, clip: str | None, model: str | None
) -> Configured:
    from motion_modules.tuning_config import read_authors

    said = [("train_data.video_path", clip), ("pretrained_model_path", model)]
    config = read_authors(path, [f"{key}={value!r}" for key, value in said if value is not None])
    data, made = config.train_data, config.validation_data
    if changed := sorted(_changed(config) - READ):
        warnings.warn(
            f"{', '.join(changed)}: `videogen edit` tunes without; scripts/tune_a_video.py follows the whole file",
            stacklevel=2,
        )
    for name in sorted(TAKEN.keys() & _changed(data)):
        warnings.warn(f"train_data.{name} does nothing here; see {TAKEN[name]}", stacklevel=2)
    prompt = _one(list(made.prompts), path) if prompt is None else prompt
    return Configured(
        method="tune_a_video",
        clip=str(data.video_path),
        model=config.pretrained_model_path,
        prompt=prompt,
        negative=made.negative_prompt,
        source_prompt=data.prompt if source_prompt is None else source_prompt,
        steps=made.num_inference_steps,
        guidance=made.guidance_scale,
        seed=config.seed,
        chunk=made.video_length or data.n_sample_frames,
        settings={
            "tuning_steps": config.max_train_steps,
            "learning_rate": config.learning_rate,
            "tuned_on": data.n_sample_frames,
            "invert": made.use_inv_latent,
        },
    )


def _changed(config: BaseModel) -> set[str]:
    """The keys that a file sets to something else than what stands without it."""
    standing = type(config).model_fields
    return {name for name in config.model_fields_set if getattr(config, name) != standing[name].default}


def _one(prompts: list[str], path: Path) -> str:
    if len(prompts) == 1:
        return prompts[0]
    if not prompts:
        raise InputError(f"{path} names no prompt of an edit; give one behind the clip")
    told = ", ".join(repr(prompt) for prompt in prompts)
    raise InputError(f"{path} has several prompts; say which behind the clip: {told}")
