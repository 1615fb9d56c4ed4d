"""The recipes on image layers: `image` (AnimateDiff's stage 0 and stage 1) and `lora`.

Guo et al. 2023, section 4.1: before motion is learnt, the look of the video data is taken up, by the whole image UNet (v1) or by a LoRA
that is left out again afterwards, the domain adapter (v3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field, model_validator

from videogen.adapters.lora_writing import Dialect, write_lora
from videogen.models.folder import write_part
from videogen.models.weights import files
from videogen.pipeline import Pipeline
from videogen.training import Offer
from videogen.training.config import RunConfig
from videogen.training.diffusion import Diffusion, Kind, LowRankSettings, Settings, opened
from videogen.training.trainable import IMAGE, IMAGE_ATTENTION, changes

DIFFUSERS_LORA = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for a LoRA in a folder."""


class ImageSettings(Settings):
    """The whole image UNet; with a `rank` (128 in AnimateDiff v3) a low-rank change of its attention, the domain adapter."""

    rank: int | None = Field(None, gt=0)
    alpha: float | None = Field(None, gt=0)
    layers: str | None = None

    @model_validator(mode="after")
    def _low_rank(self) -> ImageSettings:
        if self.rank is None and (self.alpha is not None or self.layers is not None):
            raise ValueError("alpha and layers are of a low-rank change; give its rank, or leave them out")
        return self


def still(settings: Settings) -> Pipeline:
    """The model without motion modules."""
    return opened(settings, "none")


def write_image_unet(recipe: Diffusion, folder: Path) -> list[str]:
    """`unet/` in diffusers' layout, without what is temporal."""
    unet = recipe.pipe.parts.unet
    state = {n: v.to(recipe.dtype) for n, v in unet.state_dict().items() if "motion_modules." not in n}
    write_part(folder / "unet", unet.config.to_diffusers(), state, recipe.header)
    return [
        "- `unet/`: the image UNet in diffusers' layout. Put it in place of the base model's `unet/`, or name it as `settings.unet` of a "
        "further training."
    ]


def lora_writer(name: str, dialect: Dialect, use: str) -> Callable[[Diffusion, Path], Sequence[str]]:
    """What writes the trained change in a dialect under `name`, and in diffusers' under the name that it looks for.

    use  what the first file is and how it is used, for the card
    """

    def written(recipe: Diffusion, folder: Path) -> list[str]:
        found = changes(recipe.root)
        spellings: dict[str, Dialect] = {name: dialect, DIFFUSERS_LORA: "diffusers"}
        for file, spelling in spellings.items():
            state = {key: value.to(recipe.dtype) for key, value in write_lora(found, spelling).items()}
            files.write(folder / file, state, recipe.header)
        return [
            f"- `{name}`: {use}.",
            f"- `{DIFFUSERS_LORA}`: the same for diffusers, `pipe.load_lora_weights(FOLDER)`.",
        ]

    return written


WHOLE = Kind("Image UNet", {"image": IMAGE}, False, still, write_image_unet)
ADAPTER = Kind(
    "Domain adapter (LoRA of the image layers)", {"image": IMAGE_ATTENTION}, True, still,
    lora_writer(
        "domain_adapter.safetensors", "authors",
        "the change in AnimateDiff's layout; `videogen generate PROMPT --lora domain_adapter.safetensors`",
    ),
)  # fmt: skip
LORA = Kind(
    "LoRA of the image layers", {"lora": IMAGE_ATTENTION}, True, still,
    lora_writer("lora.safetensors", "kohya", "the change in kohya's layout; `videogen generate PROMPT --lora lora.safetensors`"),
)  # fmt: skip


def image() -> Offer:
    """The recipe `image`."""

    def build(run: RunConfig[ImageSettings]) -> Diffusion:
        return Diffusion(run, ADAPTER if run.settings.rank else WHOLE)

    return Offer(ImageSettings, build, takes_run=True)


def lora() -> Offer:
    """The recipe `lora`."""
    return Offer(LowRankSettings, lambda run: Diffusion(run, LORA), takes_run=True)
