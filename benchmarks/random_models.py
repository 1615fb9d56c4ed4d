"""Models with random weights at the widths of Stable Diffusion 1.5, or small; text side and VAE are tiny, since neither is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WIDTHS: dict[str, dict[str, Any]] = {
    "sd15": {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    },
    "small": {
        "block_out_channels": (32, 64, 64, 64),
        "cross_attention_dim": 64,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
}


def stable_diffusion(widths: str) -> dict[str, Any]:
    """The parts of a text to image pipeline of diffusers, by name, from seed 0."""
    import videogen.foreign

    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    sizes = WIDTHS[widths]
    unet = UNet2DConditionModel(sample_size=32, **sizes)
    letters = [chr(code) for code in range(33, 127)]
    spelled = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(spelled)}, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(spelled), hidden_size=sizes["cross_attention_dim"], intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, bos_token_id=len(spelled) - 2, eos_token_id=len(spelled) - 1, pad_token_id=len(spelled) - 1,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
    )
    return {
        "unet": unet,
        "vae": vae,
        "text_encoder": CLIPTextModel(text),
        "tokenizer": tokenizer,
        "scheduler": scheduler,
    }


def save_stable_diffusion(widths: str, folder: Path) -> None:
    """The same as a folder in diffusers' layout, without the safety checker."""
    import videogen.foreign

    from diffusers import StableDiffusionPipeline

    absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**stable_diffusion(widths), **absent).save_pretrained(folder)


def motion_adapter(widths: str) -> Any:
    """Motion modules for the UNet of `stable_diffusion`, from seed 1."""
    from diffusers import MotionAdapter

    torch.manual_seed(1)
    sizes = WIDTHS[widths]
    return MotionAdapter(
        block_out_channels=sizes["block_out_channels"], motion_num_attention_heads=sizes["attention_head_dim"],
        motion_norm_num_groups=sizes["norm_num_groups"], use_motion_mid_block=True,
    )  # fmt: skip
