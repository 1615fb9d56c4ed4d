"""Say what a checkpoint is from its keys and shapes alone, and read the numbers that the shapes tell."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from videogen.models.weights.motion_keys import HEADER
from videogen.models.weights.signatures import INTO_MODEL, INTO_UNET, NOT_YET, SIGNATURES, Signature

Shapes = Mapping[str, Sequence[int]]

BASES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL", 1280: "SDXL refiner"}
"""Width of the text that cross-attention reads, and whose text encoder has it."""

FORMS = {4: "plain", 5: "depth", 7: "upscaler", 8: "InstructPix2Pix", 9: "inpainting"}
"""Channels of the first convolution, and which relative of Stable Diffusion has them."""

SCHEDULE_BUFFERS = re.compile(
    r"^(betas|alphas_cumprod.*|sqrt_.*|log_one_minus_.*|posterior_.*|logvar|lvlb_weights|denoiser\.sigmas)$"
)

IGNORED = {
    "schedule buffers": SCHEDULE_BUFFERS,
    "EMA copies (model_ema.*)": re.compile(r"^model_ema\.(?!decay)"),
    "position_ids": re.compile(r"position_ids$"),
    "logit scales": re.compile(r"logit_scale$"),
    "training losses (first_stage_model.loss.*)": re.compile(r"^first_stage_model\.loss\."),
}
"""Kinds of keys that no loader needs."""

FIRST_CONV = r"^(unet\.|control_model\.|model\.diffusion_model\.)?(conv_in|input_blocks\.0\.0)\.weight$"
CROSS = (
    r"^(?!.*(motion_modules|temporal|temp_)).*(to_k_ip\.weight"
    r"|attn2[._](processor\.)?to_k(_custom_diffusion|_lora)?(\.lora_A|\.lora[._]down|\.down)?\.weight)$"
)
DOWN = r"(\.lora_down|\.lora_A(\.\w+)?|\.lora\.down|_lora\.down|lora_linear_layer\.down)\.weight$"


@dataclass(frozen=True)
class Family:
    """What a checkpoint is.

    name: its short name in `signatures`, "unknown" where none fits. title: the same for people. part: "model",
    "unet", "vae", "text_encoder", "motion", "lora", "controlnet", "adapter", "tokens", "refused", ... into: what it
    would load into. facts: numbers read from the shapes. ignored: kinds of keys that no loader needs, with their
    count.
    """

    name: str
    title: str
    part: str
    into: str
    facts: dict[str, int | str | bool] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def recognise(shapes: Shapes, metadata: Mapping[str, str] | None = None) -> Family:
    """The family of a checkpoint with these keys and shapes; the first signature that fits, else the family
    "unknown".

    metadata: of its header, where it was read; motion modules that were trained here have any sizes, and say there
    what they are.
    """
    keys = "\n" + "\n".join(shapes) + "\n"
    found = next((signature for signature in SIGNATURES if _fits(signature, keys, shapes)), None)
    facts, ignored = _facts(shapes), tuple(_ignored(shapes))
    if found is None:
        first = next(iter(shapes), "none")
        return Family(
            "unknown", f"no family that videogen knows (first key: {first})", "unknown", "nothing", facts, ignored
        )
    family = Family(found.name, found.title, found.part, _into(found.into, facts), facts, ignored)
    return _trained(family, metadata or {}) if found.part == "motion" else family


def is_ignored(key: str) -> bool:
    """Whether a key is of one of the kinds that no loader needs."""
    return any(kind.search(key) for kind in IGNORED.values())


def _into(place: str, facts: Mapping[str, int | str | bool]) -> str:
    """A place, or nowhere yet for a form of Stable Diffusion that loading refuses there."""
    form = facts.get("form", "plain")
    # a UNet of a folder may have the channels of that folder's own autoencoder
    fine = {INTO_MODEL: ("plain",), INTO_UNET: ("plain", "of its own")}.get(place, (form,))
    return place if form in fine else f"{NOT_YET} (form {form})"


def _trained(family: Family, metadata: Mapping[str, str]) -> Family:
    """Motion modules as the header says that was written when they were trained here; as they are where it has none."""
    try:
        said = json.loads(metadata[HEADER])
        facts: dict[str, int | str | bool] = {
            "heads": int(said["config"]["motion_num_attention_heads"]),
            "norm over each": str(said["config"]["norm_scope"]),
            "trained on": f"clips of {int(said['frames'])} frames",
        }
    except (KeyError, TypeError, ValueError):  # of other people, or broken, which loading says
        return family
    layout = "diffusers layout" if family.name.endswith("_diffusers") else "AnimateDiff's layout"
    title = f"motion modules that videogen wrote, {layout}"
    return replace(family, title=title, facts=family.facts | facts)


def _fits(signature: Signature, keys: str, shapes: Shapes) -> bool:
    return (
        (signature.most is None or len(shapes) <= signature.most)
        and all(_has(keys, pattern) for pattern in signature.needs)
        and not any(_has(keys, pattern) for pattern in signature.lacks)
        and all(_shaped(shapes, pattern, shape) for pattern, shape in signature.shapes)
    )


def _has(keys: str, pattern: str) -> bool:
    return any(word.replace("^", "\n").replace("$", "\n") in keys for word in pattern.split("|"))


def _shaped(shapes: Shapes, pattern: str, wanted: Sequence[int | None]) -> bool:
    shape = next((shape for key, shape in shapes.items() if key.endswith(pattern)), None)
    return (
        shape is not None
        and len(shape) == len(wanted)
        and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))
    )


def _first(shapes: Shapes, pattern: str) -> Sequence[int] | None:
    return next((shape for key, shape in shapes.items() if re.search(pattern, key)), None)


def _facts(shapes: Shapes) -> dict[str, int | str | bool]:
    facts: dict[str, int | str | bool] = {}
    # most, not first: ModelScope's temporal layers call their second self-attention attn2 too
    widths = Counter(shape[1] for key, shape in shapes.items() if len(shape) > 1 and re.search(CROSS, key))
    if widths:
        width = widths.most_common(1)[0][0]
        facts["text width"] = width
        facts["base"] = BASES.get(width, "of another text width")
    conv = _first(shapes, FIRST_CONV)
    if conv is not None and len(conv) == 4 and widths:
        facts["input channels"] = conv[1]
        facts["form"] = FORMS.get(conv[1], "of its own")
    ranks = sorted({shape[0] for key, shape in shapes.items() if shape and re.search(DOWN, key)})
    if ranks:
        facts["rank"] = ranks[0] if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        facts["convolutions"] = any(
            len(shape) == 4 and shape[2] > 1 for key, shape in shapes.items() if re.search(DOWN, key)
        )
    if any(".motion_modules." in key or ".temporal_attentions." in key for key in shapes) and not ranks:
        facts |= _motion_facts(shapes)
    return facts


def _motion_facts(shapes: Shapes) -> dict[str, int | str | bool]:
    table = _first(shapes, r"(pos_encoder\.pe|positional_encoding|pos_embed\.pe)$")
    modules = {
        m.group(0) for key in shapes if (m := re.match(r".*?\.(motion_modules|temporal_attentions)\.\d+\.", key))
    }
    levels = {m.group(1) for key in modules if (m := re.search(r"down_blocks\.(\d+)\.", key))}
    return {
        "motion modules": len(modules),
        "levels": len(levels),
        "middle module": any("mid_block." in module for module in modules),
        "positions": "none in the file" if table is None else table[1] if len(table) > 1 else "not told by the table",
    }


def _ignored(shapes: Shapes) -> Iterator[str]:
    for name, kind in IGNORED.items():
        if count := sum(1 for key in shapes if kind.search(key)):
            yield f"{count} {name}"
