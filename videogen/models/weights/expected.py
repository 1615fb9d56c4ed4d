"""What a checkpoint of a family should hold, so that missing and surplus keys can be named before anything is loaded.

The rule is the network itself where this package has it (built on the meta device), and the naming rule for motion
modules. For other families nothing is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from videogen.errors import InputError
from videogen.models.autoencoder import present_name
from videogen.models.presets import PRESETS, SD_VAE, Preset
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights import motion_keys
from videogen.models.weights.families import Family
from videogen.models.weights.single_file import PRESET_OF, TEXT, spelt_with_prefix, split
from videogen.models.weights.single_file import surplus as surplus_keys
from videogen.models.weights.strict import Shapes, compare, shapes_of

BY_WIDTH = {768: "sd15", 1024: "sd21", 2048: "sdxl", 1280: "sdxl-refiner"}
TEXTS = {
    "clip_text": ("sd15", "text_encoder"),
    "clip_text_h": ("sd21", "text_encoder"),
    "clip_text_2": ("sdxl", "text_encoder_2"),
}


@dataclass(frozen=True)
class Verdict:
    """How a checkpoint compares with its rule: keys that are missing, surplus, or of another shape; `note` is said
    where all is well.
    """

    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    note: str = "complete"

    def __str__(self) -> str:
        """One line that names the first of each kind."""
        kinds = (("lacks", self.missing), ("has too many", self.surplus), ("has of another shape", self.misshapen))
        said = [f"{verb} {len(keys)}, the first {keys[0]}" for verb, keys in kinds if keys]
        return "; ".join(said) or self.note


def verdict(shapes: Shapes, family: Family, folder: Path | None = None) -> Verdict | None:
    """Compare keys and shapes with the family's rule; None where there is none, or where the sizes are nobody's and
    no config tells.

    folder: where the file lies; a `config.json` beside it gives the sizes of a network of other widths than the
    presets'.
    """
    try:
        if family.part == "motion":
            return _motion(shapes)
        if family.name in PRESET_OF:
            return _single(shapes, family)
        if family.name in ("sd_unet", "sdxl_unet", "sdxl_refiner_unet"):
            config = _config(folder, "UNet2DConditionModel")
            preset = PRESETS.get(BY_WIDTH.get(int(family.facts.get("text width", 0)), ""))
            known = preset is not None and _width(shapes, "conv_in.weight") == preset.unet.channels[0]
            return _compare(shapes, _unet(family, config)) if config or known else None
        if family.name == "vae":
            config = _config(folder, "AutoencoderKL")
            known = _width(shapes, "encoder.conv_in.weight") == 128
            return (
                _compare({present_name(key): shape for key, shape in shapes.items()}, _vae(config or SD_VAE))
                if config or known
                else None
            )
        if family.name in TEXTS:
            return _text_encoder(shapes, *TEXTS[family.name], _config(folder, "CLIPTextModel"))
    except InputError as problem:  # the config beside it describes a network that is not known here
        return Verdict(note=str(problem))
    return None


def _text_encoder(shapes: Shapes, name: str, part: str, config: Mapping[str, Any] | None) -> Verdict | None:
    preset = PRESETS[name].text[part]
    if config is None and _width(shapes, "layers.0.self_attn.q_proj.weight") != preset["hidden_size"]:
        return None
    wanted = _text(config or preset)
    found = spelt_with_prefix({key: torch.empty(tuple(shape), device="meta") for key, shape in shapes.items()})
    if "text_projection.weight" not in found:
        wanted.pop("text_projection.weight")
    found.pop("logit_scale", None)
    return _compare(shapes_of(found), wanted)


def _width(shapes: Shapes, ending: str) -> int:
    return next((shape[0] for key, shape in shapes.items() if shape and key.endswith(ending)), 0)


def _compare(found: Shapes, wanted: Shapes) -> Verdict:
    difference = compare(found, wanted)
    return Verdict(difference.missing, difference.surplus, tuple(key for key, _, _ in difference.misshapen))


def _unet(family: Family, config: Mapping[str, Any] | None) -> dict[str, tuple[int, ...]]:
    channels = int(family.facts.get("input channels", 4))
    if config is not None:
        known = UNetConfig.from_diffusers(config)
    else:
        known = PRESETS[BY_WIDTH.get(int(family.facts["text width"]), "sd15")].unet
    with torch.device("meta"):
        return shapes_of(UNet(replace(known, in_channels=channels)).state_dict())


def _vae(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    import videogen.foreign

    from diffusers import AutoencoderKL

    with torch.device("meta"):
        return shapes_of(AutoencoderKL.from_config(dict(config)).state_dict())


def _text(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    import videogen.foreign

    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    with torch.device("meta"):
        model = CLIPTextModelWithProjection(CLIPTextConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    return shapes_of(model.state_dict())


def _single(shapes: Shapes, family: Family) -> Verdict | None:
    preset: Preset = PRESETS[PRESET_OF[family.name]]
    if _width(shapes, "model.diffusion_model.input_blocks.0.0.weight") != preset.unet.channels[0]:
        return None
    unet = replace(preset.unet, in_channels=int(family.facts.get("input channels", 4)))
    state = {key: torch.empty(tuple(shape), device="meta") for key, shape in shapes.items()}
    parts = split(state, family.name, replace(preset, unet=unet))
    wanted = {"unet": _unet(family, None), "vae": _vae(preset.vae)}
    wanted |= {part: _text(preset.text[part]) for part in TEXT[family.name]}
    verdicts = []
    for part, keys in wanted.items():
        found = shapes_of(parts[part])
        if "text_projection.weight" not in found:
            keys.pop("text_projection.weight", None)
        one = _compare(found, keys)
        verdicts.append([tuple(f"{part}: {key}" for key in kind) for kind in (one.missing, one.surplus, one.misshapen)])
    missing, surplus, misshapen = (sum(kind, ()) for kind in zip(*verdicts, strict=True))
    surplus += surplus_keys(shapes, family.name)
    return Verdict(missing, surplus, misshapen, f"complete ({', '.join(wanted)})")


def _motion(shapes: Shapes) -> Verdict:
    found = {motion_keys.to_ours(key): tuple(shape) for key, shape in shapes.items() if motion_keys.is_motion(key)}
    channels, layers, mid, positions = motion_keys.layout(found)
    wanted = motion_keys.shapes(channels, layers, mid, positions or 0)
    if positions is None:
        wanted = {key: shape for key, shape in wanted.items() if not key.endswith(".pos_embed.pe")}
    others = len(shapes) - sum(map(motion_keys.is_motion, shapes))
    verdict = _compare(found, wanted)
    note = "complete" + (f"; {others} keys beside the motion modules are passed over" if others else "")
    return Verdict(verdict.missing, verdict.surplus, verdict.misshapen, note)


def _config(folder: Path | None, kind: str) -> dict[str, Any] | None:
    """The `config.json` beside a file, where it is of this class."""
    if folder is None or not (folder / "config.json").is_file():
        return None
    try:
        content = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    classes = [str(content.get("_class_name", "")), *map(str, content.get("architectures") or ())]
    return content if any(name.startswith(kind) for name in classes) else None
