"""Folders of Tune-A-Video: diffusers' layout, but for the UNet, whose class and level types are the authors' own.

Their `unet/config.json` is that of an image UNet with other words in it: `UNet3DConditionModel`, levels called `...Block3D`, and
`attention_head_dim` is the number of heads, as in every Stable Diffusion config. (ModelScope's UNet has the same class name and level types, and
no `mid_block_type`; it is another network.) Their loader reads `unet/diffusion_pytorch_model.bin` only, so that is what is written.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motion_modules.animatediff import remove_motion
from motion_modules.tune_a_video import Bias, add_temporal, our_name, temporal_parameters, tuned_state
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL
from videogen.models.folder import Parts, describing, load_vae, read_advice, read_json, write_advice, write_json
from videogen.models.text import load_text_side, save_text_side
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights import files
from videogen.models.weights.strict import load_state
from videogen.pipeline import Motion, Pipeline


@dataclasses.dataclass(frozen=True)
class Wording:
    """What authors call their UNet and its parts: `kind` stands for 2D in the names of levels, `owner` and `pipeline` in `model_index.json`."""

    method: str
    unet: str
    kind: str
    owner: str
    pipeline: str

    @property
    def middle(self) -> str:
        """The class of the middle level."""
        return f"UNetMidBlock{self.kind}CrossAttn"


TUNE_A_VIDEO = Wording("Tune-A-Video", "UNet3DConditionModel", "3D", "tuneavideo.models.unet", "TuneAVideoPipeline")


def image_config(config: Mapping[str, Any], wording: Wording = TUNE_A_VIDEO) -> dict[str, Any]:
    """The authors' `unet/config.json` as that of the image UNet under it. Raises InputError for another class."""
    if config.get("_class_name") != wording.unet or config.get("mid_block_type") != wording.middle:
        raise InputError(
            f"this UNet is a {config.get('_class_name')} with {config.get('mid_block_type')}; "
            f"{wording.method}'s is a {wording.unet} with {wording.middle}"
        )
    types = {
        key: [name.replace(f"Block{wording.kind}", "Block2D") for name in config[key]]
        for key in ("down_block_types", "up_block_types")
    }
    return {**config, **types, "mid_block_type": "UNetMidBlock2DCrossAttn"}


def authors_config(config: UNetConfig, wording: Wording = TUNE_A_VIDEO) -> dict[str, Any]:
    """The inverse of `image_config`: what the authors' class is built from."""
    image = config.to_diffusers()
    for key in ("down_block_types", "up_block_types"):
        image[key] = [name.replace("Block2D", f"Block{wording.kind}") for name in image[key]]
    image.pop("transformer_layers_per_block")  # theirs have one block each, and no such key
    heads = set(config.heads)
    image["attention_head_dim"] = heads.pop() if len(heads) == 1 else list(config.heads)
    return {**image, "_class_name": wording.unet, "_diffusers_version": "0.11.1", "mid_block_type": wording.middle}


def load_unet(folder: Path, dtype: torch.dtype = torch.float32) -> UNet:
    """The UNet of a tuned folder's `unet/`, with its temporal layers. Raises InputError for what is missing or does not fit."""
    content = read_json(folder / "config.json")
    with describing(folder / "config.json"), torch.device("meta"):
        unet = add_temporal(UNet(UNetConfig.from_diffusers(image_config(content))))
    load_state(unet, {our_name(name): value.to(dtype) for name, value in files.read(folder).items()}, folder)
    return unet.eval()


def load(folder: str | Path, dtype: torch.dtype = torch.float32) -> Pipeline:
    """A tuned model, from the authors' code or ours; `Pipeline.from_pretrained` comes here too (entry point group `videogen.models`)."""
    return pipeline(parts_around(load_unet(Path(folder) / "unet", dtype), Path(folder), dtype))


def parts_around(unet: UNet, folder: Path, dtype: torch.dtype) -> Parts:
    """A UNet with the other parts of its folder."""
    vae, text = load_vae(folder / "vae", torch.float32), load_text_side(folder, dtype=dtype)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    line = f"{folder.name}, text width {unet.config.context}"
    return Parts(unet, vae, text, scheduler, line, advice=read_advice(folder / files.ADVICE)).to(dtype=dtype)


def pipeline(parts: Parts) -> Pipeline:
    """Parts whose UNet has temporal layers as a pipeline that calls it as it was tuned, for clips of any length."""
    return Pipeline(parts, MOTION)


def write_parts(parts: Parts, folder: Path) -> None:
    """Write a tuned model as the authors do, into an existing empty folder.

    Raises InputError where the UNet has no temporal layers or is not of the authors' kind.
    """
    write_layout(parts, folder, TUNE_A_VIDEO, authors_config(parts.unet.config), tuned_state(parts.unet))


MOTION = Motion("Tune-A-Video", {}, sys.maxsize, sys.maxsize, {}, SPARSE_CAUSAL, write_parts)
"""What tuning installs."""


def write_layout(
    parts: Parts, folder: Path, wording: Wording, config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Write a tuned model with its UNet's config and state dict as given, as `write_parts` does."""
    own = parts.unet.config
    if not temporal_parameters(parts.unet):
        raise InputError(f"this UNet has no temporal layers of {wording.method}; save it as the image model it is")
    if own.size_width is not None or set(own.depths) - {0, 1}:
        raise InputError("the authors' folders hold Stable Diffusion 1.x and 2.x; this UNet is of another family")
    index: dict[str, Any] = {"_class_name": wording.pipeline, "_diffusers_version": "0.11.1"}
    index |= {"unet": [wording.owner, wording.unet], "vae": ["diffusers", "AutoencoderKL"]}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    write_json(folder / "model_index.json", {**index, "scheduler": ["diffusers", "DDIMScheduler"]})
    (folder / "unet").mkdir()
    write_json(folder / "unet" / "config.json", config)
    plain = {name: value.cpu().contiguous() for name, value in state.items()}
    torch.save(plain, folder / "unet" / "diffusion_pytorch_model.bin")
    parts.vae.save_pretrained(folder / "vae")
    save_text_side(parts.text, folder)
    (folder / "scheduler").mkdir()
    scheduler = {**parts.scheduler, "_class_name": "DDIMScheduler"}
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_advice(folder, parts.advice)


def animated(parts: Parts, bias: Bias = "zero") -> Parts:
    """Parts with a copy of their image UNet to which temporal layers are added; what is given stays as it is."""
    return dataclasses.replace(
        parts, unet=add_temporal(remove_motion(copy.deepcopy(parts.unet)), bias=bias), motion=None
    )
