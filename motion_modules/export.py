"""What the recipes on motion modules write: AnimateDiff's layout and diffusers', and what other readers of these files will do otherwise.

The header of each file says how the modules are built and on which schedule they were trained (`motion_modules.loading`), so they come back
as they were, whatever their sizes. diffusers reads the sizes alone, AnimateDiff's own code the tensors alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from motion_modules.animatediff import MotionConfig, MotionModule, motion_state, set_resnet_norm_scope
from motion_modules.dialects import FAMILIES, write_official
from videogen.errors import InputError
from videogen.models.folder import write_json, write_part
from videogen.models.layers import GroupNorm, Scope
from videogen.models.weights import files
from videogen.models.weights.families import recognise
from videogen.pipeline import Motion
from videogen.training.diffusion import Diffusion
from videogen.training.image_layers import lora_writer, write_image_unet

MODULE, ADAPTER, LORA = "motion_module.safetensors", "motion_adapter", "motion_lora.safetensors"
SCHEDULE = "scheduler_config.json"
OVER: dict[Scope, str] = {"frame": "over each frame", "clip": "over the clip"}
HEADS = 8
"""Of all modules in AnimateDiff's layout that were released; no shape tells them."""


def write_motion(recipe: Diffusion, folder: Path) -> list[str]:
    """`motion_module.safetensors` in the authors' layout, `motion_adapter/` in diffusers'."""
    motion = recipe.pipe.motion
    if motion is None:
        raise InputError("there are no motion modules to write")
    config = MotionConfig.from_diffusers(motion.config)
    state = {name: value.to(recipe.dtype) for name, value in motion_state(recipe.root).items()}
    told = recipe.header | motion.header
    official = write_official(state, "animatediff_v2" if config.mid else "animatediff_v3")
    files.write(folder / MODULE, official, told)
    write_part(folder / ADAPTER, config.to_diffusers(), state, told)
    return [
        f"- `{MODULE}`: the modules in AnimateDiff's layout; `videogen generate PROMPT --motion {MODULE}`.",
        f"- `{ADAPTER}/`: the same as a MotionAdapter of diffusers.",
        *_written_schedule(recipe, motion, folder),
        *_says_of_diffusers(recipe, motion),
        *_says_of_tensors(recipe, config, official),
    ]


def write_motion_and_image(recipe: Diffusion, folder: Path) -> list[str]:
    """The image UNet, and the motion modules where there are any."""
    written = write_image_unet(recipe, folder)
    return written if recipe.pipe.motion is None else [*written, *write_motion(recipe, folder)]


_write_lora = lora_writer(
    LORA, "authors",
    "the change in AnimateDiff's layout, for the motion modules it was trained on; "
    f"`videogen generate PROMPT --motion MODULE --lora {LORA}`, with `:0.5` behind the name at half strength",
)  # fmt: skip


def write_motion_lora(recipe: Diffusion, folder: Path) -> list[str]:
    """`motion_lora.safetensors` in the authors' layout, `pytorch_lora_weights.safetensors` for diffusers."""
    written, motion = _write_lora(recipe, folder), recipe.pipe.motion
    if motion is None:
        raise InputError("there are no motion modules that a MotionLoRA could be for")
    return [*written, *_written_schedule(recipe, motion, folder), *_says_of_diffusers(recipe, motion)]


def _written_schedule(recipe: Diffusion, motion: Motion, folder: Path) -> list[str]:
    """`scheduler_config.json`: what the modules were trained on, with the class of diffusers that samples as videogen does."""
    write_json(folder / SCHEDULE, {**recipe.pipe.scheduler, "_class_name": _sampler(motion)})
    return [
        f"- `{SCHEDULE}`: the noise schedule of the modules, for diffusers; videogen reads it from the modules' file."
    ]


def _sampler(motion: Motion) -> str:
    return str(motion.scheduler.get("_class_name", "DDIMScheduler"))


def _says_of_diffusers(recipe: Diffusion, motion: Motion) -> list[str]:
    """What the card says of diffusers: the schedule, which it must be told, and the norms, which it cannot be."""
    config, sampler = MotionConfig.from_diffusers(motion.config), _sampler(motion)
    changed = [f"{key}={value!r}" for key, value in motion.scheduler.items() if not key.startswith("_")]
    betas = recipe.pipe.scheduler.get("beta_schedule")
    trained = "another" if betas is None else f"{betas} betas"
    lines = [
        "",
        f"diffusers reads no noise schedule with motion modules and keeps that of the base model. These were trained on {trained}; set "
        f"`pipe.scheduler = {sampler}.from_config({', '.join(['pipe.scheduler.config', *changed])})`, or load the pipeline with "
        f"`scheduler={sampler}.from_pretrained(FOLDER)`, FOLDER being where `{SCHEDULE}` lies.",
        "",
    ]
    norms = _norms(config.norm_scope, config.resnet_norm_scope)
    if (config.norm_scope, config.resnet_norm_scope) == ("clip", "frame"):
        return [*lines, f"{norms}, as diffusers has it: on that schedule diffusers makes the same clips."]
    off = difference(recipe, "clip", "frame")
    return [
        *lines,
        f"{norms}. diffusers always runs them over the clip and over each frame, so its clips differ on that schedule too: {_by(off)}. "
        "videogen reads the scopes from the file.",
    ]


def _says_of_tensors(recipe: Diffusion, config: MotionConfig, official: Mapping[str, Tensor]) -> list[str]:
    """What it says of those who read nothing but the tensors in AnimateDiff's layout, and take the rest from the family that these look like."""
    family = FAMILIES[recognise({name: value.shape for name, value in official.items()}).name]
    readers = f"Where only the tensors of `{MODULE}` are read, as by AnimateDiff's own code and ComfyUI,"
    lines: list[str] = []
    if (family.norm_scope, family.resnet_norm_scope) != (config.norm_scope, config.resnet_norm_scope):
        norms = _norms(family.norm_scope, family.resnet_norm_scope)
        off = difference(recipe, family.norm_scope, family.resnet_norm_scope)
        lines += ["", f"{readers} clips differ: there {norms[0].lower()}{norms[1:]}, and {_by(off)}."]
    if config.heads != HEADS:
        lines += [
            "",
            f"{readers} the modules are taken to have {HEADS} heads. They have {config.heads}, so clips differ.",
        ]
    return lines


def _norms(motion: Scope, resnets: Scope) -> str:
    return f"The GroupNorm of the modules runs {OVER[motion]}, that of the residual blocks {OVER[resnets]}"


def _by(off: float) -> str:
    return f"on a batch of the training data what the UNet predicts changes by {off:.2g} of its size (root mean square)"


@torch.no_grad()
def difference(recipe: Diffusion, motion: Scope, resnets: Scope) -> float:
    """How much the prediction on one batch changes when the norms run over these: |difference| / |prediction|, root mean squares.

    motion   the norms of the motion modules
    resnets  those of the residual blocks, and the last
    """
    unet = recipe.pipe.parts.unet
    scopes = {norm: norm.scope for norm in unet.modules() if isinstance(norm, GroupNorm)}
    trained = torch.cat([recipe.predicted(batch) for batch in recipe.sample])
    try:
        set_resnet_norm_scope(unet, resnets)
        for module in unet.modules():
            if isinstance(module, MotionModule):
                module.norm.scope = motion
        theirs = torch.cat([recipe.predicted(batch) for batch in recipe.sample])
    finally:
        for norm, scope in scopes.items():
            norm.scope = scope
    return float((theirs - trained).norm() / trained.norm())
