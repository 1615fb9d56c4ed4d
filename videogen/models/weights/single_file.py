"""One-file checkpoints of Stable Diffusion 1.x, 2.x and SDXL (Rombach et al. 2022; Podell et al. 2023), split into
parts with our names.

The renaming is diffusers' (its single-file converters, which need no network); the configs are
`videogen.models.presets`. Stable Diffusion 2.x files do not say whether they predict eps (the 512 base) or v (the 768
model). Asked in this order: the caller, the file's own metadata, the file name (`512` or `base` means eps); else v.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogen.errors import InputError
from videogen.models.presets import PRESETS, Preset
from videogen.models.weights import files
from videogen.models.weights.families import Family, is_ignored, recognise
from videogen.models.weights.strict import Difference, load_state, shapes_of

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from videogen.models.folder import Parts

UNET, VAE = "model.diffusion_model.", "first_stage_model."
LOSSES = "first_stage_model.loss."  # what the VAE was trained with
PREDICTIONS = {"eps": "epsilon", "epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}

PRESET_OF = {"sd1_single": "sd15", "sd2_single": "sd21", "sdxl_single": "sdxl", "sdxl_refiner_single": "sdxl-refiner"}

# Where each family's text encoders lie: part name -> prefix, and whether it is spelt as OpenCLIP spells it.
TEXT = {
    "sd1_single": {"text_encoder": ("cond_stage_model.transformer.", False)},
    "sd2_single": {"text_encoder": ("cond_stage_model.model.", True)},
    "sdxl_single": {
        "text_encoder": ("conditioner.embedders.0.transformer.", False),
        "text_encoder_2": ("conditioner.embedders.1.model.", True),
    },
    "sdxl_refiner_single": {"text_encoder_2": ("conditioner.embedders.0.model.", True)},
}

OPENCLIP = re.compile(
    r"transformer\.|(token_embedding|ln_final)\.\w+$|(positional_embedding|text_projection|logit_scale|attn_mask)$"
)
"""What OpenCLIP's text side holds; the converter drops anything else that lies beside it."""

MARKS = ("v_pred", "ztsnr")
"""Empty tensors by which fine-tuned community models say that they predict v, and that their last noise has no signal."""

EMBEDDED = tuple(f"{UNET}label_emb.0.{i}.{name}" for i in (0, 2) for name in ("weight", "bias"))
"""SDXL's embedding of sizes, which the converter reads unasked."""

CUT = (
    (re.compile(r"\.in_proj_bias$"), (1,)),
    (re.compile(r"\.(in_proj_weight|text_projection)$"), (2,)),
    (re.compile(r"^first_stage_model\..*\.attn_1\.(q|k|v|proj_out)\.weight$"), (2, 4)),
)
"""Tensors that the converters cut by their axes -> how many they may have."""

CACHED_TOKENIZERS = {
    "openai/clip-vit-large-patch14": "vocab.json",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "tokenizer/vocab.json",
}
"""Repositories that have CLIP's tokenizer, and the file by which it is known that the local cache has it."""


@dataclasses.dataclass(frozen=True)
class SingleFile:
    """A single file, split. parts: "unet", "vae", "text_encoder" (and "text_encoder_2") -> state dict with diffusers'
    names.
    """

    family: Family
    preset: Preset
    parts: dict[str, dict[str, Tensor]]
    line: str


def read_single_file(source: str | Path, prediction_type: str | None = None) -> SingleFile:
    """Read a .safetensors or .ckpt file of a whole model; averaged copies of its weights (EMA) are passed over.

    prediction_type  "epsilon" or "v_prediction", where the file cannot say

    Raises InputError for another kind of file, for a form that cannot be generated with (inpainting), and for keys that
    are of no part.
    """
    path = Path(source)
    state = files.read(path)
    family = recognise({name: tensor.shape for name, tensor in state.items()})
    if family.name not in TEXT:
        raise InputError(
            f"{path} is no single file of a whole model that can be generated with; it looks like: {family.title}"
        )
    if family.facts.get("form", "plain") != "plain":
        form, channels = family.facts["form"], family.facts["input channels"]
        raise InputError(
            f"{path} is the {form} model ({channels} input channels), which `generate` cannot use; give a plain one"
        )
    metadata = files.read_header(path).metadata if path.suffix == ".safetensors" else {}
    preset = _preset(family, path.name, metadata, prediction_type, state)
    parts = split(state, family.name, preset)
    if difference := Difference(surplus=surplus(state, family.name)):
        raise InputError(f"{path} does not fit its config: it {difference}; it looks like: {family.title}")
    count = sum(map(len, parts.values()))
    passed = f"; passed over: {', '.join(family.ignored)}" if family.ignored else ""
    line = f"{path.name}: {family.title}, {preset.scheduler['prediction_type']}, {count} tensors{passed}"
    return SingleFile(family, preset, parts, line)


def split(state: Mapping[str, Tensor], family: str, preset: Preset) -> dict[str, dict[str, Tensor]]:
    """The parts in a single file's state dict, with diffusers' names (text encoders in the spelling with
    `text_model.`).

    family is one of `TEXT`. Position ids, logit scales, schedule buffers, the losses of a VAE's training and a last text
    layer that the model never reads are left out. Raises InputError for what cannot be renamed, with its key.
    """
    import videogen.foreign

    from diffusers.loaders import single_file_utils as converters

    def section(prefix: str) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if name.startswith(prefix) and not name.startswith(LOSSES)}

    _check_convertible(state, preset)
    unet, vae = preset.unet.to_diffusers(), dict(preset.vae)
    with _quiet(converters.logger.name):
        parts = {
            "unet": _renamed(section(UNET), lambda own: converters.convert_ldm_unet_checkpoint(own, unet)),
            "vae": _renamed(section(VAE), lambda own: converters.convert_ldm_vae_checkpoint(own, vae)),
        }
        for part, (prefix, openclip) in TEXT[family].items():
            own = section(prefix)
            if openclip:
                width = SimpleNamespace(config=SimpleNamespace(hidden_size=preset.text[part]["hidden_size"]))
                text = converters.convert_open_clip_checkpoint(width, own, prefix=prefix)
            else:
                text = {name.removeprefix(prefix): tensor for name, tensor in own.items()}
            parts[part] = spelt_with_prefix(text)
    return parts


def surplus(keys: Iterable[str], family: str) -> tuple[str, ...]:
    """The keys of a single file that are of no part and of no kind that is passed over; family is one of `TEXT`."""
    known = (UNET, VAE, "model_ema.", *(prefix for prefix, openclip in TEXT[family].values() if not openclip))
    spelt = tuple(prefix for prefix, openclip in TEXT[family].values() if openclip)

    def of_a_part(key: str) -> bool:
        return key.startswith(known) or any(
            key.startswith(prefix) and OPENCLIP.match(key.removeprefix(prefix)) for prefix in spelt
        )

    return tuple(key for key in keys if not (of_a_part(key) or key in MARKS or is_ignored(key)))


def _check_convertible(state: Mapping[str, Tensor], preset: Preset) -> None:
    missing = () if preset.unet.added_width is None else tuple(name for name in EMBEDDED if name not in state)
    if missing:
        looks = recognise(shapes_of(state)).title
        raise InputError(f"the single file {Difference(missing=missing)}; it looks like: {looks}")
    for name, tensor in state.items():
        axes = next((allowed for pattern, allowed in CUT if pattern.search(name)), None)
        if axes and (tensor.ndim not in axes or not tensor.numel()):
            needed = " or ".join(map(str, axes))
            raise InputError(
                f"the single file has the shape {tuple(tensor.shape)} at {name!r}, where {needed} axes are needed"
            )


def _renamed(own: dict[str, Tensor], convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors under the names that a converter gives them.

    What it drops in silence keeps its name, so that loading and `videogen inspect` tell of it. A first pass over numbers
    that take the tensors' places shows which those are.
    """
    numbers = {name: torch.tensor(i).expand(tensor.shape) for i, (name, tensor) in enumerate(own.items())}
    read = {int(number[(0,) * number.ndim]) for number in convert(numbers).values() if number.numel()}
    dropped = {name: tensor for i, (name, tensor) in enumerate(own.items()) if i not in read and tensor.numel()}
    return {**convert(dict(own)), **dropped}


def spelt_with_prefix(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP text encoder's state dict in the public spelling: `text_model.` before all but the projection; position
    ids left out.

    transformers 5 writes `CLIPTextModel` without that prefix, as some community files do.
    """
    plain = {name: tensor for name, tensor in text.items() if not name.endswith("position_ids")}
    return {
        name if name.startswith(("text_model.", "text_projection.", "logit_scale")) else f"text_model.{name}": tensor
        for name, tensor in plain.items()
    }


def load_single_file(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    tokenizer: str | Path | None = None,
    prediction_type: str | None = None,
) -> Parts:
    """The parts of a pipeline from one file; the tokenizer from its folder or the local cache, never from the network.

    Raises InputError for what is missing, broken, of another family, or of a form that cannot be generated with
    (inpainting).
    """
    import videogen.foreign

    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig

    from videogen.models.folder import Parts
    from videogen.models.text import text_model, text_side
    from videogen.models.unet import UNet

    file = read_single_file(path, prediction_type)
    with torch.device("meta"):
        unet = UNet(file.preset.unet)
        vae: Any = AutoencoderKL(**file.preset.vae)
    title = file.family.title
    load_state(unet, {name: tensor.to(dtype) for name, tensor in file.parts["unet"].items()}, path, looks=title)
    load_state(vae, {name: tensor.float() for name, tensor in file.parts["vae"].items()}, path, looks=title)
    encoders = {}
    for part, config in file.preset.text.items():
        state = {name: tensor.to(dtype) for name, tensor in file.parts[part].items()}
        model = text_model(CLIPTextConfig(**config), state, path, pooled=part == "text_encoder_2", looks=title)
        encoders[part] = (find_tokenizer(tokenizer, zero_pads=TEXT[file.family.name][part][1]), model)
    side = text_side(encoders, zero_null=len(encoders) == 2)  # SDXL's own folder says so, its refiner's the opposite
    return Parts(unet.eval(), vae.eval(), side, dict(file.preset.scheduler), file.line).to(dtype=dtype)


def find_tokenizer(folder: str | Path | None, *, zero_pads: bool = False) -> CLIPTokenizer:
    """CLIP's tokenizer from `folder` (or its `tokenizer/`), else from the local cache.

    zero_pads: OpenCLIP's encoders fill up with id 0 ("!"), OpenAI's with the end token. Raises InputError where there
    is none, or where it cannot be read.
    """
    from videogen.models.text import read_tokenizer

    if folder is None:
        folder = _cached_tokenizer()
    inner = Path(folder) / "tokenizer"
    found = read_tokenizer(inner if inner.is_dir() else folder)
    found.pad_token = "!" if zero_pads else found.eos_token
    return found


def _cached_tokenizer() -> Path:
    from huggingface_hub import try_to_load_from_cache

    for repository, file in CACHED_TOKENIZERS.items():
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found).parent
    raise InputError(
        "a single file has no tokenizer and none is in the cache; give --tokenizer DIR, "
        "the tokenizer folder of any Stable Diffusion model (vocab.json and merges.txt)"
    )


def _preset(
    family: Family, name: str, metadata: Mapping[str, str], asked: str | None, state: Mapping[str, Tensor]
) -> Preset:
    if asked is not None and asked not in PREDICTIONS:
        raise InputError(f"the prediction type {asked!r} is not known; choose epsilon or v_prediction")
    said = metadata.get("modelspec.prediction_type")
    told = asked or (said if said in PREDICTIONS else None) or ("v" if "v_pred" in state else None)
    if family.name == "sd2_single":
        base = any(word in name.lower() for word in ("512", "base"))
        preset = PRESETS["sd21-base" if PREDICTIONS[told or ("eps" if base else "v")] == "epsilon" else "sd21"]
    else:
        preset = PRESETS[PRESET_OF[family.name]]
    scheduler: dict[str, Any] = dict(preset.scheduler)
    if told is not None:
        scheduler["prediction_type"] = PREDICTIONS[told]
    if "ztsnr" in state:
        scheduler["rescale_betas_zero_snr"] = True
    unet = dataclasses.replace(preset.unet, in_channels=int(family.facts.get("input channels", 4)))
    return dataclasses.replace(preset, scheduler=scheduler, unet=unet)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
