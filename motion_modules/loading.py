"""Install motion modules from whatever file or folder holds them. Announced to videogen's pipeline as the entry point `videogen.motion`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch

from motion_modules.animatediff import MotionConfig, add_motion, remove_motion
from motion_modules.dialects import read_motion
from videogen.errors import InputError
from videogen.models.folder import describing, read_json
from videogen.models.unet import UNet
from videogen.models.weights import files
from videogen.models.weights.motion_keys import HEADER
from videogen.models.weights.strict import load_state
from videogen.pipeline import Motion

# Classes whose `config.json` says how the motion modules beside it are built.
CLASSES = ("MotionAdapter", "UNetMotionModel")


def install(unet: UNet, source: Path) -> Motion:
    """Add the modules in `source` (an AnimateDiff file of any dialect, a MotionAdapter folder or file) to a UNet, strictly.

    Raises InputError where the file is of another kind, belongs to another family of UNets, or does not fit, and where
    the `config.json` beside it is broken, which it then names; the UNet is then as it was.
    """
    config_file = source / "config.json" if source.is_dir() else source.with_name("config.json")
    own = read_header(source)
    adapter = own["config"] if own else read_json(config_file) if config_file.is_file() else {}
    told = adapter.get("_class_name") in CLASSES
    state = files.read(source)
    with describing(source if own else config_file) if told else contextlib.nullcontext():
        given = MotionConfig.from_diffusers(adapter) if told else None
    found = read_motion(state, adapter if told else None, own.get("scheduler"))
    config = given or MotionConfig(**found.config)
    like = unet.conv_in.weight
    with torch.device("meta"):
        add_motion(unet, config)
    try:
        state = {name: value.to(like.device, like.dtype) for name, value in found.state.items()}
        load_state(unet, state, source, part="motion_modules.")
    except BaseException:
        remove_motion(unet)
        raise
    frames = min(int(own.get("frames", found.frames)), config.positions)
    return Motion(found.line, config.to_diffusers(), config.positions, frames, found.scheduler)


def read_header(source: Path) -> dict[str, Any]:
    """What `Motion.header` says in a file, or in the weights of a folder; empty where it is not there."""
    file = files.locate(source)[0]
    if file.suffix != ".safetensors":
        return {}
    said = files.read_safetensors_header(file)[1].get(HEADER)
    if said is None:
        return {}
    try:
        content = json.loads(said)
        return {"config": dict(content["config"]), "scheduler": dict(content["scheduler"]), "frames": content["frames"]}
    except (ValueError, TypeError, KeyError) as problem:
        raise InputError(f"{file} has a header {HEADER} that cannot be read ({problem}); get the file again") from None
