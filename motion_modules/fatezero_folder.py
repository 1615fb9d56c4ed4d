"""Folders of FateZero's tuned models: Tune-A-Video's layout with the class `UNetPseudo3DConditionModel`.

What the authors' configurations hold under `model_config` (`lora`, `SparseCausalAttention_index`, `least_sc_channel`) their own code does not
write into `unet/config.json`, though it reads it from there. So the rank is read off the tensors where the file does not say it, and the frames
are the class's default then. Folders written here say all of it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motion_modules.pseudo_3d import NAMES, add_pseudo_3d, frame_table, lowered
from motion_modules.tune_a_video import authors_name, our_name
from motion_modules.tune_a_video_folder import Wording, authors_config, image_config, parts_around, write_layout
from videogen.errors import InputError
from videogen.frame_choice import Entry
from videogen.models.folder import Parts, describing, read_json
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights import files
from videogen.models.weights.strict import compare, load_state, shapes_of
from videogen.pipeline import Motion, Pipeline

FATEZERO = Wording(
    "FateZero", "UNetPseudo3DConditionModel", "Pseudo3D", "video_diffusion.models.unet_3d_condition",
    "DDIMSpatioTemporalStableDiffusionPipeline",
)  # fmt: skip
LOW_RANK = "conv_temporal.down.weight"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """FateZero's `model_config`.

    rank     `lora`: of the convolutions along the frames; None is full ones
    entries  `SparseCausalAttention_index`: which frames self-attention reads
    least    `least_sc_channel`: on levels at least so wide
    """

    rank: int | None
    entries: tuple[Entry, ...] = (-1, "first")
    least: int = 0

    @classmethod
    def read(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ModelConfig:
        """From `unet/config.json` and the tensors (with the authors' names). Raises InputError for networks that are not known here."""
        for key in ("temporal_downsample", "temporal_downsample_time"):
            if config.get(key):
                raise InputError(f"it has {key}={config[key]!r}; a network that halves the frames is not known here")
        position = config.get("temporal_attention_position", "after_feedforward")
        if position != "after_feedforward":
            raise InputError(f"its temporal attention stands {position}; only after_feedforward is known here")
        entries = config.get("SparseCausalAttention_index", cls.entries)
        if not isinstance(entries, (list, tuple)):
            raise InputError(f"SparseCausalAttention_index is {entries!r}; a list such as [-1, 'first'] belongs there")
        rank, least = config.get("lora", rank_of(state)), config.get("least_sc_channel", 0)
        if not isinstance(least, int) or not (rank is None or isinstance(rank, int)):
            raise InputError(f"lora is {rank!r} and least_sc_channel {least!r}; whole numbers belong there")
        return cls(rank, tuple("middle" if entry == "mid" else entry for entry in entries), least)

    def words(self) -> dict[str, Any]:
        """The authors' keys, as their class reads them; it takes any `lora` for low rank, so full convolutions have none."""
        rank = {} if self.rank is None else {"lora": self.rank}
        entries = ["mid" if entry == "middle" else entry for entry in self.entries]
        return {**rank, "SparseCausalAttention_index": entries, "least_sc_channel": self.least}


def rank_of(state: Mapping[str, Tensor]) -> int | None:
    """The rank that gave the convolutions along the frames their sizes, None where they are full. Raises InputError where none did."""
    sizes = {(value.shape[1], value.shape[0]) for name, value in state.items() if name.endswith(LOW_RANK)}
    if not sizes:
        return None
    # One that fits nowhere is no longer to be seen; any that is wider than all does the same.
    for rank in (*sorted({low for _, low in sizes}, reverse=True), 1 + max(width for width, _ in sizes)):
        if all(lowered(rank, width) == low for width, low in sizes):
            return rank
    raise InputError("its convolutions along the frames have ranks that no single `lora` gives; get the folder again")


def load_unet(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[UNet, ModelConfig]:
    """The UNet of a tuned folder's `unet/`, with its temporal layers. Raises InputError for what is missing or does not fit."""
    content, state = read_json(folder / "config.json"), files.read(folder)
    with describing(folder / "config.json"), torch.device("meta"):
        config = ModelConfig.read(content, state)
        unet = add_pseudo_3d(UNet(UNetConfig.from_diffusers(image_config(content, FATEZERO))), config.rank)
        frame_table(unet, config.entries, config.least)
    wanted = {authors_name(name, NAMES): value for name, value in unet.state_dict().items()}
    if difference := compare(shapes_of(state), shapes_of(wanted)):
        raise InputError(f"{folder} is no whole UNet of FateZero: it {difference}; get the folder again")
    load_state(unet, {our_name(name, NAMES): value.to(dtype) for name, value in state.items()}, folder)
    return unet.eval(), config


def load(folder: str | Path, dtype: torch.dtype = torch.float32) -> Pipeline:
    """A tuned model; `Pipeline.from_pretrained` comes here too (entry point group `videogen.models`)."""
    unet, config = load_unet(Path(folder) / "unet", dtype)
    return pipeline(parts_around(unet, Path(folder), dtype), config)


def pipeline(parts: Parts, config: ModelConfig) -> Pipeline:
    """Parts whose UNet has pseudo-3D layers as a pipeline that calls it as it was tuned, for clips of any length."""
    table = frame_table(parts.unet, config.entries, config.least)
    save = functools.partial(write_parts, config=config)
    return Pipeline(parts, Motion("FateZero", {}, sys.maxsize, sys.maxsize, {}, table, save))


def write_parts(parts: Parts, folder: Path, config: ModelConfig) -> None:
    """Write a tuned model as the authors do, into an existing empty folder. Raises InputError for a UNet that is not of their kind."""
    words = {**authors_config(parts.unet.config, FATEZERO), **config.words()}
    state = {authors_name(name, NAMES): value for name, value in parts.unet.state_dict().items()}
    write_layout(parts, folder, FATEZERO, words, state)
