"""Configs of the models whose single files carry none: Stable Diffusion 1.x, 2.x and SDXL.

The numbers are those of the public model folders in diffusers' layout (`unet/config.json` and so on), named at each
entry; what a state dict tells by itself (input channels) overrides them when a file is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from videogen.models.unet import UNetConfig

Config = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Preset:
    """One model: `text` holds a transformers CLIPTextConfig for each encoder, by part name; `source` is where the
    numbers come from.
    """

    name: str
    unet: UNetConfig
    vae: Config
    text: Mapping[str, Config]
    scheduler: Config
    source: str


def _frozen(**entries: Any) -> Config:
    return MappingProxyType(entries)


# Rombach et al. 2022: factor 8, four channels; 0.18215 is one over the standard deviation of its latents.
SD_VAE = _frozen(
    in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, act_fn="silu",
    norm_num_groups=32, sample_size=512, scaling_factor=0.18215,
)  # fmt: skip

# Podell et al. 2023: the same network, trained again; it overflows in half precision.
SDXL_VAE = _frozen(**{**SD_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True})

# Radford et al. 2021, ViT-L/14
CLIP_L = _frozen(
    vocab_size=49408, max_position_embeddings=77, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
    num_attention_heads=12, projection_dim=768, hidden_act="quick_gelu", bos_token_id=0, eos_token_id=2, pad_token_id=1,
)  # fmt: skip

# OpenCLIP ViT-H/14; of its 24 layers Stable Diffusion 2 reads the last but one, so its folders keep 23.
OPENCLIP_H = _frozen(
    **{**CLIP_L, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
       "projection_dim": 512, "hidden_act": "gelu"},
)  # fmt: skip

# OpenCLIP ViT-bigG/14
OPENCLIP_G = _frozen(
    **{**CLIP_L, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
       "projection_dim": 1280, "hidden_act": "gelu"},
)  # fmt: skip

# "linear" of the latent diffusion code is linear in the square root, which diffusers calls scaled_linear.
SCHEDULE = _frozen(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
    set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
)  # fmt: skip
PNDM = _frozen(_class_name="PNDMScheduler", skip_prk_steps=True, **SCHEDULE)
DDIM_V = _frozen(_class_name="DDIMScheduler", **{**SCHEDULE, "prediction_type": "v_prediction"})
EULER = _frozen(
    _class_name="EulerDiscreteScheduler", timestep_spacing="leading", interpolation_type="linear", use_karras_sigmas=False, **SCHEDULE
)  # fmt: skip

SD1_UNET = UNetConfig()
SD2_UNET = UNetConfig(heads=(5, 10, 20, 20), context=1024, linear=True)
SDXL_UNET = UNetConfig(
    channels=(320, 640, 1280), depths=(0, 2, 10), heads=(5, 10, 20), context=2048, linear=True, size_width=256, added_width=2816,
    sample_size=128,
)  # fmt: skip
REFINER_UNET = UNetConfig(
    channels=(384, 768, 1536, 1536), depths=(0, 4, 4, 0), heads=(6, 12, 24, 24), middle=4, context=1280, linear=True, size_width=256,
    added_width=2560, sample_size=128,
)  # fmt: skip
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("sd15", SD1_UNET, SD_VAE, {"text_encoder": CLIP_L}, PNDM, "the folder of Stable Diffusion 1.5"),
        Preset("sd21", dataclasses.replace(SD2_UNET, sample_size=96), SD_VAE, {"text_encoder": OPENCLIP_H}, DDIM_V,
               "the folder of Stable Diffusion 2.1 (768 pixels, v-prediction)"),
        Preset("sd21-base", SD2_UNET, SD_VAE, {"text_encoder": OPENCLIP_H}, PNDM,
               "the folder of Stable Diffusion 2.1 base (512 pixels, eps-prediction)"),
        Preset("sdxl", SDXL_UNET, SDXL_VAE, {"text_encoder": CLIP_L, "text_encoder_2": OPENCLIP_G}, EULER, "the folder of SDXL base 1.0"),
        Preset("sdxl-refiner", REFINER_UNET, SDXL_VAE, {"text_encoder_2": OPENCLIP_G}, EULER, "the folder of SDXL refiner 1.0"),
    )
}  # fmt: skip
