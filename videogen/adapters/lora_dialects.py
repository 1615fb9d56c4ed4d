"""LoRA files of the field brought to one normal form, a list of `Change`.

Dialects: kohya (`lora_unet_`, `lora_te_`; SDXL's UNet by sgm block names; convolutions), diffusers (`lora_A`,
`lora.down`, and the old attention processors), peft (`base_model.model.`, alpha in adapter_config.json),
AnimateDiff's MotionLoRA and v3 domain adapter (no division by the rank), and LyCORIS' LoHa and LoKr. All but the
first say alpha = rank by saying nothing, so `scale` is 1 there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from videogen.adapters.low_rank import Change, Hadamard, Kronecker, LowRank, Target
from videogen.errors import InputError, reason
from videogen.models.weights import motion_keys
from videogen.models.weights.families import recognise

# How a key ends -> which factor it is. What stands before is the layer.
ENDINGS = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"\.lora_down\.weight$", "down"),
        (r"\.lora_up\.weight$", "up"),
        (r"\.lora_mid\.weight$", "middle"),
        (r"\.lora_A(\.\w+)?\.weight$", "down"),
        (r"\.lora_B(\.\w+)?\.weight$", "up"),
        (r"\.lora(_linear_layer)?\.down\.weight$", "down"),
        (r"\.lora(_linear_layer)?\.up\.weight$", "up"),
        (r"_lora\.down\.weight$", "down"),
        (r"_lora\.up\.weight$", "up"),
        (r"\.alpha$", "alpha"),
        (r"\.(hada_w[12]_[ab]|hada_t[12]|lokr_w[12](_[ab])?|lokr_t2)$", ""),
    )
)

# Names that hold an underscore of their own; all other underscores of a kohya name are dots.
WORDS = (
    "down_blocks", "up_blocks", "mid_block", "motion_modules", "temporal_transformer", "transformer_blocks", "attention_blocks",
    "time_emb_proj", "time_embedding", "add_embedding", "conv_shortcut", "conv_in", "conv_out", "proj_in", "proj_out", "to_q", "to_k",
    "to_v", "to_out", "linear_1", "linear_2", "input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers",
    "skip_connection", "time_embed", "label_emb", "text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection",
    "token_embedding", "position_embedding",
)  # fmt: skip
WORD = re.compile(rf"(?:{'|'.join(sorted(WORDS, key=len, reverse=True))})(?=_|$)|[^_]+")

PEFT = "base_model.model."
PREFIXES: tuple[tuple[str, Target | None], ...] = (
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("unet.", "unet"),
    (PEFT, None),
    ("", None),
)

RESNET = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
}
TEXT_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
WIDTHS_OF_SECOND = (1280, 5120)  # of SDXL's second text encoder, and of its feed-forward; the first has 768 and 3072
SETTINGS = "lora_adapter_metadata"  # the entry of the header under which diffusers writes peft's settings


def read_lora(
    state: Mapping[str, Tensor], adapter: Mapping[str, Any] | None = None, metadata: Mapping[str, str] | None = None
) -> list[Change]:
    """The changes that a LoRA file holds, in the file's order.

    adapter   the content of the `adapter_config.json` beside a peft file
    metadata  the safetensors header's; diffusers writes alpha there

    Raises InputError for other files, for DoRA, for a key that is no part of a change (the first is named), for a tensor
    with too few axes, for settings that cannot be read, and for two adapters in one file.
    """
    family = recognise({name: tensor.shape for name, tensor in state.items()})
    if family.name == "lora_dora":
        raise InputError(
            "the LoRA file uses weight decomposition (DoRA), which is not supported; use one trained without it"
        )
    if family.part != "lora":
        raise InputError(f"the file given as LoRA is none; it looks like: {family.title}")
    layers: dict[str, dict[str, str]] = {}
    for key, tensor in state.items():
        layer, role = _split(key)
        _check_axes(key, role, tensor)
        other = layers.setdefault(layer, {}).setdefault(role, key)
        if other != key:
            raise InputError(f"the LoRA file has two adapters for one layer, {other} and {key}; give a file with one")
    settings = _settings(adapter or {}, metadata or {})
    return [
        _change(layer, {role: state[key] for role, key in keys.items()}, settings) for layer, keys in layers.items()
    ]


def is_peft(keys: Iterable[str]) -> bool:
    """Whether peft itself wrote the file: it keeps alpha in an `adapter_config.json` beside it."""
    return any(key.startswith(PEFT) for key in keys)


def fits(adapter: Mapping[str, Any], keys: Iterable[str]) -> bool:
    """Whether the target names of an `adapter_config.json` choose every layer of a peft file, by peft's rule; one that
    names none may be of any.
    """
    targets = adapter.get("target_modules")
    layers = {re.sub(r"\.(lora|hada|lokr)_.*", "", key.removeprefix(PEFT)) for key in keys}
    if isinstance(targets, str):
        try:
            return targets == "all-linear" or all(re.fullmatch(targets, layer) for layer in layers)
        except re.error:
            return False
    endings = tuple(f".{name}" for name in targets) if isinstance(targets, list) else ("",)
    return all(f".{layer}".endswith(endings) for layer in layers)


def lacks_alpha(keys: Iterable[str], adapter: Mapping[str, Any] | None, metadata: Mapping[str, str]) -> bool:
    """Whether nothing tells the alpha of a peft file, where the other dialects mean the rank by saying nothing."""
    keys = tuple(keys)
    told = SETTINGS in metadata or any(name in (adapter or {}) for name in ("lora_alpha", "alpha"))
    return is_peft(keys) and not told and not any(key.endswith(".alpha") for key in keys)


def address(layer: str, width: int = 0) -> tuple[Target, str]:
    """Part and module name of a layer as any dialect spells it, without the factor's ending.

    width: the input width of the layer, which tells the second text encoder from the first where no prefix does.
    """
    prefix, target = next((p, t) for p, t in PREFIXES if layer.startswith(p))
    name = layer.removeprefix(prefix)
    if prefix.startswith("lora_"):
        name = ".".join(WORD.findall(name))
    name = name.replace(".processor.", ".")
    if target is None:
        text = name.startswith(("text_model.", "encoder.layers.", "text_projection"))
        target = ("text_encoder_2" if width in WIDTHS_OF_SECOND else "text_encoder") if text else "unet"
    if target in ("text_encoder", "text_encoder_2"):
        head, _, last = name.rpartition(".")
        name = f"{head}.{TEXT_PROJECTIONS.get(last, last)}" if head else last
        return target, name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"
    name = _from_sgm(name)
    if name.endswith(".to_out"):
        name += ".0"
    if motion_keys.is_motion(name):
        return "motion", motion_keys.to_ours(f"{name}.weight").removesuffix(".weight")
    return target, name


def _from_sgm(name: str) -> str:
    """A UNet layer's name by LDM's or sgm's block numbers, in diffusers' spelling; two residual blocks a level in
    every released model.
    """
    for theirs, ours in TOP.items():
        if name == theirs:
            return ours
    if found := re.match(r"middle_block\.([012])\.(.*)", name):
        place = int(found[1])
        return f"mid_block.{'attentions.0' if place == 1 else f'resnets.{place // 2}'}.{RESNET.get(found[2], found[2])}"
    if not (found := re.match(r"(input|output)_blocks\.(\d+)\.(\d)\.(.*)", name)):
        return name
    side, number, place, rest = found[1], int(found[2]), int(found[3]), found[4]
    level, j = divmod(number - 1 if side == "input" else number, 3)
    block = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
    if rest == "op":
        return f"{block}.downsamplers.0.conv"
    if rest == "conv":
        return f"{block}.upsamplers.0.conv"
    return f"{block}.{'attentions' if place == 1 else 'resnets'}.{j}.{RESNET.get(rest, rest)}"


def _split(key: str) -> tuple[str, str]:
    for pattern, role in ENDINGS:
        if found := pattern.search(key):
            return key[: found.start()], role or found[1]
    raise InputError(f"the LoRA file has the key {key}, which is no part of a low-rank change")


def _check_axes(key: str, role: str, tensor: Tensor) -> None:
    if role == "alpha" and tensor.numel() != 1:
        raise InputError(f"the LoRA file has {tensor.numel()} numbers at {key}, where one is needed")
    if role != "alpha" and (tensor.ndim < 2 or not tensor.numel()):
        shape = tuple(tensor.shape)
        raise InputError(f"the LoRA file has the shape {shape} at {key}, where a matrix or a kernel is needed")


def _change(layer: str, factors: dict[str, Tensor], settings: Mapping[str, Any]) -> Change:
    width = next((factors[name].shape[1] for name in ("down", "hada_w1_b") if name in factors), 0)
    target, module = address(layer, width)
    try:
        if "hada_w1_a" in factors:
            change: Change = _hadamard(target, module, factors)
        elif any(name.startswith("lokr") for name in factors):
            change = _kronecker(target, module, factors)
        else:
            change = LowRank(target, module, factors["down"], factors["up"], 1.0, factors.get("middle"))
    except KeyError as missing:
        raise InputError(f"the LoRA file lacks the factor {missing.args[0]!r} of {layer}") from None
    except (RuntimeError, ValueError):
        shapes = ", ".join(f"{layer}.{name} {tuple(f.shape)}" for name, f in factors.items() if name != "alpha")
        raise InputError(f"the LoRA file has factors that do not multiply: {shapes}") from None
    if "alpha" in factors:
        # two full Kronecker factors have no rank, and alpha means nothing then
        return replace(change, scale=float(factors["alpha"]) / change.rank if change.rank else 1.0)
    return replace(change, scale=_scale(target, module, change.rank, settings))


def _hadamard(target: Target, module: str, f: Mapping[str, Tensor]) -> Hadamard:
    cores = (f["hada_t1"], f["hada_t2"]) if "hada_t1" in f else None
    return Hadamard(target, module, (f["hada_w1_a"], f["hada_w1_b"]), (f["hada_w2_a"], f["hada_w2_b"]), 1.0, cores)


def _kronecker(target: Target, module: str, f: Mapping[str, Tensor]) -> Kronecker:
    first = f["lokr_w1"] if "lokr_w1" in f else f["lokr_w1_a"].float() @ f["lokr_w1_b"].float()
    if "lokr_t2" in f:
        a, b, core = f["lokr_w2_a"], f["lokr_w2_b"], f["lokr_t2"]
        second = LowRank(target, module, b, a.T, 1.0, core).delta((a.shape[1], b.shape[1], *core.shape[2:]))
    else:
        second = f["lokr_w2"] if "lokr_w2" in f else f["lokr_w2_a"].float() @ f["lokr_w2_b"].float()
    rank = next((f[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in f), 0)
    return Kronecker(target, module, first, second, 1.0, rank)


def _settings(adapter: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's settings by part: from adapter_config.json (any part), or from diffusers' header entry, whose keys begin
    with the part's name.
    """
    if adapter:
        return {"": dict(adapter)}
    try:
        flat = json.loads(metadata.get(SETTINGS, "{}"))
    except (ValueError, RecursionError):
        flat = None
    if not isinstance(flat, dict):
        raise InputError(f"the LoRA file's header has {SETTINGS}, which tells alpha, and it is no JSON object")
    settings: dict[str, Any] = {}
    for key, value in flat.items():
        part, _, name = key.partition(".")
        settings.setdefault(part, {})[name] = value
    return settings


def _scale(target: Target, module: str, rank: int, settings: Mapping[str, Any]) -> float:
    part = settings.get("") or settings.get("unet" if target == "motion" else target) or {}
    try:
        rank = rank or int(_matching(part, "rank_pattern", module, part.get("r", 1)))
        alpha = float(_matching(part, "alpha_pattern", module, part.get("lora_alpha", part.get("alpha", rank))))
        return alpha / (math.sqrt(rank) if part.get("use_rslora") else rank)
    except (ArithmeticError, AttributeError, TypeError, ValueError, re.error) as problem:
        raise InputError(
            f"the LoRA's settings (adapter_config.json, or {SETTINGS} in the header) tell no alpha of {module}: "
            f"{reason(problem)}"
        ) from None


def _matching(part: Mapping[str, Any], patterns: str, module: str, otherwise: Any) -> Any:
    """The value of the first pattern that fits the layer, as peft chooses it."""
    found = (part.get(patterns) or {}).items()
    return next((value for pattern, value in found if re.match(rf"(.*\.)?({pattern})$", module)), otherwise)
