"""Low-rank changes written in the dialects that other programs read: the inverse of `lora_dialects.read_lora`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from videogen.adapters.low_rank import LowRank
from videogen.errors import InputError
from videogen.models.weights import motion_keys

Dialect = Literal["kohya", "diffusers", "authors"]


def write_lora(changes: Sequence[LowRank], dialect: Dialect) -> dict[str, Tensor]:
    """Changes of a UNet (its motion modules among them) as a file's tensors.

    kohya      `lora_unet_...`, with alpha
    diffusers  `unet....lora_A.weight`; a scale other than 1 is multiplied into `up`, as in the next
    authors    AnimateDiff's: attention processors, motion modules by the authors' names (MotionLoRA, domain adapter)

    Raises InputError where the dialect has no name for a layer.
    """
    state: dict[str, Tensor] = {}
    for change in changes:
        if change.target not in ("unet", "motion") or change.middle is not None:
            raise InputError(f"only plain low-rank changes of a UNet can be written; {change.module} is none")
        if dialect == "kohya":
            layer = f"lora_unet_{change.module.replace('.', '_')}"
            state[f"{layer}.lora_down.weight"] = change.down
            state[f"{layer}.lora_up.weight"] = change.up
            state[f"{layer}.alpha"] = torch.tensor(float(change.scale * change.rank))
            continue
        down, up = (f"{name}.weight" for name in _names(change, dialect))
        state[down] = change.down
        state[up] = change.up * change.scale
    return state


def _names(change: LowRank, dialect: Dialect) -> tuple[str, str]:
    if dialect == "diffusers":
        return f"unet.{change.module}.lora_A", f"unet.{change.module}.lora_B"
    name = motion_keys.to_authors(change.module)[0] if change.target == "motion" else change.module
    attention, _, projection = name.removesuffix(".0").rpartition(".")
    if projection not in ("to_q", "to_k", "to_v", "to_out"):
        raise InputError(f"AnimateDiff's LoRA files name attention layers only; {change.module} is none")
    return f"{attention}.processor.{projection}_lora.down", f"{attention}.processor.{projection}_lora.up"
