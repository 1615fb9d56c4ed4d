"""What the recipes on motion modules write: AnimateDiff's layout and diffusers', and by how much diffusers will differ.

The header of each file says how the modules are built and on which schedule they were trained (`motion_modules.loading`), so they come back
as they were, whatever their sizes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from motion_modules.animatediff import MotionConfig, MotionModule, motion_state
from motion_modules.dialects import write_official
from motion_modules.loading import header
from videogen.errors import InputError
from videogen.models.folder import write_part
from videogen.models.layers import Scope
from videogen.models.weights import files
from videogen.training.diffusion import Diffusion
from videogen.training.image_layers import lora_writer, write_image_unet

MODULE, ADAPTER, LORA = "motion_module.safetensors", "motion_adapter", "motion_lora.safetensors"


def write_motion(recipe: Diffusion, folder: Path) -> list[str]:
    """`motion_module.safetensors` in the authors' layout, `motion_adapter/` in diffusers'."""
    motion = recipe.pipe.motion
    if motion is None:
        raise InputError("there are no motion modules to write")
    config = MotionConfig.from_diffusers(motion.config)
    state = {name: value.to(recipe.dtype) for name, value in motion_state(recipe.root).items()}
    told = recipe.header | header(motion)
    files.write(folder / MODULE, write_official(state, "animatediff_v2" if config.mid else "animatediff_v3"), told)
    write_part(folder / ADAPTER, config.to_diffusers(), state, told)
    return [
        f"- `{MODULE}`: the modules in AnimateDiff's layout; `videogen generate PROMPT --motion {MODULE}`.",
        f"- `{ADAPTER}/`: the same as a MotionAdapter of diffusers.",
        *_says(recipe, config.norm_scope),
    ]


def write_motion_and_image(recipe: Diffusion, folder: Path) -> list[str]:
    """The image UNet, and the motion modules where there are any."""
    written = write_image_unet(recipe, folder)
    return written if recipe.pipe.motion is None else [*write_motion(recipe, folder), *written]


_write_lora = lora_writer(
    LORA, "authors",
    "the change in AnimateDiff's layout, for the motion modules it was trained on; "
    f"`videogen generate PROMPT --motion MODULE --lora {LORA}`, with `:0.5` behind the name at half strength",
)  # fmt: skip


def write_motion_lora(recipe: Diffusion, folder: Path) -> list[str]:
    """`motion_lora.safetensors` in the authors' layout, `pytorch_lora_weights.safetensors` for diffusers."""
    motion = recipe.pipe.motion
    scope: Scope = "clip" if motion is None else MotionConfig.from_diffusers(motion.config).norm_scope
    return [*_write_lora(recipe, folder), *_says(recipe, scope)]


def _says(recipe: Diffusion, scope: Scope) -> list[str]:
    """What the card says of diffusers."""
    if scope == "clip":
        return ["", "The modules' GroupNorm runs over the clip, as diffusers has it: diffusers makes the same clips."]
    off = difference(recipe)
    return [
        "",
        "The modules' GroupNorm runs over each frame, as in AnimateDiff's own code. diffusers always runs it over the clip, so its clips "
        f"differ: on a batch of the training data what the UNet predicts changes by {off:.2g} of its size (root mean square). "
        "videogen reads the scope from the file.",
    ]


@torch.no_grad()
def difference(recipe: Diffusion) -> float:
    """How much the prediction on one batch changes when the modules' norm runs over the clip: |difference| / |prediction|, root mean squares."""
    modules = [module for module in recipe.root.modules() if isinstance(module, MotionModule)]
    trained = torch.cat([recipe.predicted(batch) for batch in recipe.sample])
    scopes = [module.norm.scope for module in modules]
    try:
        for module in modules:
            module.norm.scope = "clip"
        theirs = torch.cat([recipe.predicted(batch) for batch in recipe.sample])
    finally:
        for module, scope in zip(modules, scopes, strict=True):
            module.norm.scope = scope
    return float((theirs - trained).norm() / trained.norm())
