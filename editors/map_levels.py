"""Which attention maps of a UNet a method means when it says "16 x 16" or "up to 32 x 32".

The papers count cells at the size Stable Diffusion was trained at. What matters is how far a map has been reduced, not how large the clip at
hand happens to be: so a side length is turned into a level (how many times the picture has been halved) at the model's own size, once, and
holds for clips of every size and aspect.
"""

from __future__ import annotations

from videogen.control import Site
from videogen.models.blocks import TransformerBlock
from videogen.models.unet import UNet


def attention_sites(unet: UNet) -> tuple[Site, ...]:
    """The addresses of all attentions inside the picture, self and text, in the order of the state dict."""
    blocks = [module for module in unet.modules() if isinstance(module, TransformerBlock)]
    return tuple(site for block in blocks for site in (block.site_self, block.site_text))


def level_of(unet: UNet, side: int) -> int:
    """The first level whose maps have at most `side` cells a side at the model's own size, or the deepest that attends.

    Stable Diffusion at 512: 32 is level 1 and 16 is level 2, whatever the clip's size.
    """
    deepest = max(site.level for site in attention_sites(unet))
    size = max(unet.config.sample_grid)
    return next((level for level in range(deepest) if -(-size // 2**level) <= side), deepest)


def word_sites(unet: UNet, side: int = 16) -> dict[str, int]:
    """The text attentions that show where a word is: those of the encoder and decoder at `side`, `{place: level}`.

    In Stable Diffusion the third and fourth of the way down and the first three of the way up, as in Prompt-to-Prompt and FateZero.
    """
    outer = [site for site in attention_sites(unet) if site.kind == "cross" and site.part != "mid"]
    level = min(level_of(unet, side), max(site.level for site in outer))
    return {site.place: site.level for site in outer if site.level == level}


def grid(size: tuple[int, int], level: int) -> tuple[int, int]:
    """Height and width of the maps at a level, for latents of `size`."""
    return -(-size[0] // 2**level), -(-size[1] // 2**level)
