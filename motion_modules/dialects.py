"""Motion module files of the field, read into our names with the numbers that their family stands for, and written
back.

AnimateDiff (Guo et al. 2023) v1, v2, v3 and the SDXL beta in the authors' layout, what the authors' training script
saves, AnimateLCM (Wang et al. 2024), Hotshot-XL, and diffusers' MotionAdapter. A file holds weights only: over what
the normalisation runs, which noise schedule it was trained with and how many heads it has follow from the family, and
each entry of `FAMILIES` says where its numbers come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from motion_modules.animatediff import sinusoidal_positions
from videogen.errors import InputError
from videogen.models.layers import Scope
from videogen.models.weights import motion_keys
from videogen.models.weights.families import Family, recognise
from videogen.models.weights.files import check_finite
from videogen.models.weights.strict import compare, shapes_of

LINEAR = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "clip_sample": False}
# The authors build their sampler from their own keys alone, so that its last step ends in clean data; over Stable Diffusion's it would not.
AUTHORS = {**LINEAR, "set_alpha_to_one": True}
LCM = {**AUTHORS, "_class_name": "LCMScheduler", "original_inference_steps": 100}
SDXL_BETA = {**LINEAR, "beta_schedule": "scaled_linear", "beta_end": 0.020}


@dataclass(frozen=True)
class MotionFamily:
    """What a family stands for beyond its weights.

    norm_scope         statistics of GroupNorm inside the motion modules, per frame or over the clip
    resnet_norm_scope  the same for the UNet's residual blocks
    positions          frames it has positions for, where the file brings no table
    scheduler          what changes in the base model's scheduler config
    source             where these numbers come from
    frames             of the clips it was trained on
    """

    norm_scope: Scope
    resnet_norm_scope: Scope
    positions: int
    scheduler: Mapping[str, Any]
    source: str
    frames: int = 16


# heads are 8 in all of them: num_attention_heads in the authors' configs, the default of diffusers' MotionAdapter
FAMILIES = {
    "animatediff_v1": MotionFamily("frame", "clip", 24, AUTHORS, "authors' code, inference-v1.yaml (use_inflated_groupnorm off)"),
    "animatediff_v2": MotionFamily("frame", "frame", 32, AUTHORS, "authors' code, inference-v2.yaml (use_inflated_groupnorm on)"),
    "animatediff_v3": MotionFamily("frame", "frame", 32, AUTHORS, "authors' code, inference-v3.yaml (use_inflated_groupnorm on)"),
    "animatediff_sdxl": MotionFamily("clip", "frame", 32, SDXL_BETA, "authors' code, branch sdxl (image blocks fold frames)"),
    "animatediff_trained": MotionFamily("frame", "frame", 32, AUTHORS, "authors' training script, training.yaml (32 positions)"),
    "animatediff_no_positions": MotionFamily("frame", "frame", 32, AUTHORS, "taken to be of the authors' training script"),
    "animatelcm": MotionFamily("frame", "frame", 64, LCM, "authors' code, inference-t2v.yaml; positions are fixed sinusoids"),
    "hotshotxl": MotionFamily("frame", "clip", 24, {}, "authors' code: norm after folding frames, residual blocks on the clip", 8),
    "motion_adapter_diffusers": MotionFamily("clip", "frame", 32, LINEAR, "diffusers' UNetMotionModel"),
    "unet_motion_diffusers": MotionFamily("clip", "frame", 32, LINEAR, "diffusers' UNetMotionModel"),
}  # fmt: skip

REFUSALS = {
    "pia": "is PIA (nine input channels, image animation), which is not supported yet; use an AnimateDiff v3 module",
    "animatelcm_i2v": "is AnimateLCM image-to-video (it brings an image encoder), which is not supported yet; use its text-to-video file",
    "cameractrl": "is a CameraCtrl pose adaptor, which goes on top of a motion module and is not supported yet",
    "animatediff_motion_lora": "is a MotionLoRA, not a motion module; give it to --lora, beside a motion module of AnimateDiff v2",
    "animatediff_domain_adapter": "is the AnimateDiff v3 domain adapter, not a motion module; give it to --lora",
    "sd_unet": "holds image layers only (an image-stage checkpoint?) and no motion modules",
    "sdxl_unet": "holds image layers only (an image-stage checkpoint?) and no motion modules",
}


@dataclass(frozen=True)
class MotionFile:
    """A motion module file as read.

    config     keyword arguments of `MotionConfig`
    state      our (diffusers') names -> tensors, position tables included
    line       what it is, in one line
    scheduler  what changes in the base model's scheduler config
    frames     of the clips its family was trained on
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    line: str
    scheduler: dict[str, Any] = field(default_factory=dict)
    frames: int = 16


def read_motion(
    state: Mapping[str, Tensor],
    adapter: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
) -> MotionFile:
    """Read motion modules of any known dialect.

    state      what `videogen.models.weights.files.read` gives; keys of other parts (a whole UNet) are passed over
    adapter    the `config.json` beside a diffusers MotionAdapter, for heads and groups, which no shape tells
    scheduler  what changes in the base model's scheduler config, where the file's own header says it: in place of what its family stands for

    Raises InputError for another kind of file, missing, surplus or misshapen keys (the first is named), position
    tables that differ within a block, and NaN.
    """
    family = recognise({name: tensor.shape for name, tensor in state.items()})
    if family.part != "motion":
        raise InputError(
            f"the motion file {REFUSALS.get(family.name, f'holds no motion modules; it looks like: {family.title}')}"
        )
    ours = _renamed({name: tensor for name, tensor in state.items() if motion_keys.is_motion(name)})
    facts = FAMILIES[family.name]
    config = _config(ours, facts, adapter or {})
    if not (config["channels"] and config["layers"]):
        raise InputError(f"the motion file looks like {family.title}, but its first level is missing")
    _add_positions(ours, config)
    _check(ours, config, family)
    check_finite(ours, "the motion file")
    if scheduler is None and family.name.endswith("_diffusers"):
        # Those of Stable Diffusion's widths are AnimateDiff's, converted; models of other widths bring their schedule in their folder.
        scheduler = {(320, 640, 1280, 1280): LINEAR, (320, 640, 1280): SDXL_BETA}.get(config["channels"], {})
    title = family.title if scheduler is None else "motion modules that videogen wrote"
    scheduler = dict(facts.scheduler if scheduler is None else scheduler)
    others = len(state) - sum(map(motion_keys.is_motion, state))
    return MotionFile(config, ours, _line(title, config, scheduler, others), scheduler, facts.frames)


def write_official(state: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """Our names -> the file of one of `FAMILIES`, ready for `files.write`: the inverse of `read_motion`.

    Position tables appear twice a block (authors), once (diffusers), or not at all (AnimateLCM, training script,
    which prefixes `module.`).
    """
    if family not in FAMILIES:
        raise InputError(f"the motion family {family!r} is not known; choose one of {', '.join(FAMILIES)}")
    if family.endswith("_diffusers"):
        return dict(state)
    tables = family not in ("animatelcm", "animatediff_trained", "animatediff_no_positions")
    prefix = "module." if family == "animatediff_trained" else ""
    return {
        prefix + name: tensor
        for key, tensor in state.items()
        if tables or not key.endswith(".pos_embed.pe")
        for name in motion_keys.to_authors(key, hotshot=family == "hotshotxl")
    }


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = motion_keys.to_ours(key)
        if name in ours and not torch.equal(ours[name], tensor):
            raise InputError(f"the motion file has two position tables that differ in one block, at {key}")
        ours[name] = tensor
    return ours


def _config(state: Mapping[str, Tensor], facts: MotionFamily, adapter: Mapping[str, Any]) -> dict[str, Any]:
    channels, layers, mid, positions = motion_keys.layout(shapes_of(state))
    return {
        "channels": channels,
        "layers": layers,
        "heads": int(adapter.get("motion_num_attention_heads", 8)),
        "positions": facts.positions if positions is None else positions,
        "mid": mid,
        "norm_scope": adapter.get("norm_scope", facts.norm_scope),
        "resnet_norm_scope": adapter.get("resnet_norm_scope", facts.resnet_norm_scope),
        "groups": int(adapter.get("motion_norm_num_groups", 32)),
    }


def _add_positions(state: dict[str, Tensor], config: Mapping[str, Any]) -> None:
    if any(name.endswith(".pos_embed.pe") for name in state):
        return
    for name, shape in motion_keys.shapes(
        config["channels"], config["layers"], config["mid"], config["positions"]
    ).items():
        if name.endswith(".pos_embed.pe"):
            state[name] = sinusoidal_positions(shape[-1], config["positions"])


def _check(state: Mapping[str, Tensor], config: Mapping[str, Any], family: Family) -> None:
    wanted = motion_keys.shapes(config["channels"], config["layers"], config["mid"], config["positions"])
    if difference := compare(shapes_of(state), wanted):
        raise InputError(f"the motion file {difference}; it looks like: {family.title}")


def _line(title: str, config: Mapping[str, Any], scheduler: Mapping[str, Any], others: int) -> str:
    layers, levels = config["layers"], len(config["channels"])
    count = levels * (2 * layers + 1) + config["mid"]
    schedule = scheduler.get("beta_schedule")
    return (
        f"{title}: {count} modules, {config['positions']} positions, norm over each {config['norm_scope']}"
        + (f", {schedule} betas" if schedule else ", the base model's schedule")
        + (f" to {scheduler['beta_end']}" if "beta_end" in scheduler else "")
        + (f"; {others} other tensors passed over" if others else "")
    )
