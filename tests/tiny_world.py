"""A tiny model folder of the shapes world, for tests of the recipes that stand on one."""

from pathlib import Path

import torch

from videogen.models.unet import UNet, UNetConfig
from videogen.training.image import write_unet
from videogen.training.text_image import Settings, TextImage

CHANNELS, DEPTHS = (8, 16), (1, 0)


def write(folder: Path) -> Path:
    """Random VAE, text side and UNet in diffusers' layout."""
    from diffusers import AutoencoderKL

    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    AutoencoderKL(
        block_out_channels=(4,) * 4, down_block_types=down, up_block_types=up, layers_per_block=1, norm_num_groups=2,
        mid_block_add_attention=False, scaling_factor=1.0,
    ).save_pretrained(folder / "vae")  # fmt: skip
    text = TextImage(Settings(layers=1, image_width=16, image_layers=1))
    text.prepare(torch.device("cpu"))
    text.export(folder)
    config = UNetConfig(channels=CHANNELS, depths=DEPTHS, heads=(2, 2), context=128, layers=1, groups=4, sample_size=16)
    write_unet(UNet(config), folder / "unet")
    return folder
