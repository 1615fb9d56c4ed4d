"""Tiny models with random weights as diffusers itself saves them."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

LETTERS = [chr(c) for c in range(33, 127)]


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """Byte-level BPE without merges: every character is a token."""
    vocab = {token: i for i, token in enumerate([*LETTERS, *(f"{letter}</w>" for letter in LETTERS)])}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token=pad, model_max_length=77)


def text_encoder(width: int = 32, kind: Any = CLIPTextModel) -> Any:
    """Two layers, `width` wide."""
    vocabulary = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_hidden_layers=2, num_attention_heads=4, bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id, pad_token_id=vocabulary.eos_token_id,
    )  # fmt: skip
    return kind(config).eval()


def vae(**changes: Any) -> Any:
    """Factor 8, four channels, a few thousand parameters."""
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), norm_num_groups=4, latent_channels=4, **blocks, **changes
    ).eval()


def unet(context: int = 32, **changes: Any) -> Any:
    """A UNet of the Stable Diffusion kind with two levels."""
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": context,
        "attention_head_dim": 4, "norm_num_groups": 8, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**{**settings, **changes}).eval()


def motion_adapter(seed: int = 1) -> Any:
    """Motion modules for `unet()`, with a projection back that is not zero."""
    from diffusers import MotionAdapter

    torch.manual_seed(seed)
    return MotionAdapter(
        block_out_channels=(32, 64), motion_layers_per_block=1, motion_num_attention_heads=4, motion_norm_num_groups=8,
        motion_max_seq_length=16, use_motion_mid_block=True,
    ).eval()  # fmt: skip


def animatediff(folder: Path) -> Any:
    """diffusers' AnimateDiffPipeline over the parts above, saved into `folder`."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler

    torch.manual_seed(0)
    pipe = AnimateDiffPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=tokenizer(), unet=unet(), motion_adapter=motion_adapter(),
        scheduler=DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe


def stable_diffusion(folder: Path) -> Any:
    """diffusers' StableDiffusionPipeline, saved into `folder`."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=tokenizer(), unet=unet(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe


def stable_diffusion_xl(folder: Path) -> Any:
    """diffusers' StableDiffusionXLPipeline, saved into `folder`."""
    from diffusers import StableDiffusionXLPipeline

    first = {"text_encoder": text_encoder(), "tokenizer": tokenizer()}
    return _saved_sdxl(folder, StableDiffusionXLPipeline, 56, 6, **first)


def stable_diffusion_xl_refiner(folder: Path) -> Any:
    """SDXL's refiner (the second encoder alone, five sizes) as diffusers' StableDiffusionXLImg2ImgPipeline, saved."""
    from diffusers import StableDiffusionXLImg2ImgPipeline

    first = {"text_encoder": None, "tokenizer": None}
    told = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False}
    return _saved_sdxl(folder, StableDiffusionXLImg2ImgPipeline, 24, 5, **first, **told)


def _saved_sdxl(folder: Path, kind: Any, context: int, sizes: int, **parts: Any) -> Any:
    from diffusers import EulerDiscreteScheduler

    torch.manual_seed(0)
    net = unet(
        context=context, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 8 * sizes, use_linear_projection=True,
        transformer_layers_per_block=(1, 2), attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    pipe = kind(
        vae=vae(), text_encoder_2=text_encoder(24, CLIPTextModelWithProjection), tokenizer_2=tokenizer("!"), unet=net,
        add_watermarker=False, **parts,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe


def released_config(blocks: str) -> dict[str, Any]:
    """What a file saved by Tune-A-Video's authors' class ("3D"), or by FateZero's ("Pseudo3D"), says of the network under it: all of
    its arguments at Stable Diffusion 1.5's size.
    """
    return {
        "_class_name": f"UNet{blocks}ConditionModel", "_diffusers_version": "0.11.1", "act_fn": "silu", "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False, "class_embed_type": None,
        "cross_attention_dim": 768, "downsample_padding": 1, "dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0,
        "down_block_types": [*[f"CrossAttnDownBlock{blocks}"] * 3, f"DownBlock{blocks}"], "in_channels": 4, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "mid_block_type": f"UNetMidBlock{blocks}CrossAttn", "norm_eps": 1e-05, "norm_num_groups": 32,
        "num_class_embeds": None, "only_cross_attention": False, "out_channels": 4, "resnet_time_scale_shift": "default",
        "sample_size": 64, "up_block_types": [f"UpBlock{blocks}", *[f"CrossAttnUpBlock{blocks}"] * 3], "upcast_attention": False,
        "use_linear_projection": False,
    }  # fmt: skip
