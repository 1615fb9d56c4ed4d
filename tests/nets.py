"""Tiny networks of every kind with random weights, and clips and conditions that fit them."""

from typing import Any

import torch
from torch import Tensor, nn

from motion_modules.animatediff import MotionConfig, add_motion, motion_parameters
from videogen.conditioning import Conditioning
from videogen.control import Control, Pass, Site
from videogen.denoiser import Denoiser
from videogen.models.unet import UNet, UNetConfig
from videogen.path import Path
from videogen.prediction import Denoise

KINDS = ("sd1", "sd2", "sdxl")
CONTEXT = 12  # width of the text tokens
POOLED = 10  # width of the pooled text of the SDXL kind
PLACE = Site("unet", "here", "self", "down", 0)  # an address for tests of single layers

# Each kind's own ways at a size of a few thousand parameters, as diffusers' `unet/config.json`.
_CROSS, _PLAIN = "CrossAttn{}Block2D", "{}Block2D"
_TINY: dict[str, dict[str, Any]] = {
    "sd1": {  # 1x1 convolutions around the tokens, one number of heads
        "block_out_channels": [8, 16, 16], "attention_head_dim": 2, "layers_per_block": 2, "types": [_CROSS, _CROSS, _PLAIN],
    },
    "sd2": {  # matrices around the tokens, heads by level
        "block_out_channels": [8, 16, 16], "attention_head_dim": [1, 2, 4], "layers_per_block": 1, "types": [_CROSS, _CROSS, _PLAIN],
        "use_linear_projection": True,
    },
    "sdxl": {  # transformers of several blocks, none outermost; sizes and pooled text beside the time
        "block_out_channels": [8, 16, 16], "attention_head_dim": [1, 2, 4], "layers_per_block": 1, "types": [_PLAIN, _CROSS, _CROSS],
        "use_linear_projection": True, "transformer_layers_per_block": [1, 2, 3], "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": POOLED + 6 * 8,
    },
}  # fmt: skip


def diffusers_config(kind: str) -> dict[str, Any]:
    """A tiny network of that kind in diffusers' words."""
    config = dict(_TINY[kind])
    types = config.pop("types")
    return {
        **config,
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "cross_attention_dim": CONTEXT, "norm_num_groups": 4,
        "down_block_types": [name.format("Down") for name in types],
        "up_block_types": [name.format("Up") for name in reversed(types)],
    }  # fmt: skip


def tiny_unet(kind: str = "sd1", seed: int = 0, dtype: torch.dtype = torch.float32) -> UNet:
    """A UNet of that kind with random weights."""
    torch.manual_seed(seed)
    return UNet(UNetConfig.from_diffusers(diffusers_config(kind))).to(dtype).eval()


def motion_config(unet: UNet, **changes: Any) -> MotionConfig:
    """Motion modules that fit a tiny UNet."""
    sizes = {"channels": unet.config.channels, "layers": unet.config.layers, "heads": 2, "positions": 8, "groups": 4}
    return MotionConfig(**{**sizes, **changes})


def tiny_video_unet(kind: str = "sd1", dtype: torch.dtype = torch.float32, **changes: Any) -> UNet:
    """A UNet with motion modules whose projections back are random too, so that they do something."""
    unet = tiny_unet(kind, dtype=dtype)
    awaken(add_motion(unet, motion_config(unet, **changes)))
    return unet


def awaken(unet: nn.Module) -> None:
    """Give the motion modules projections back that are not zero."""
    for name, value in motion_parameters(unet).items():
        if ".proj_out." in name:
            nn.init.normal_(value, std=0.5)


def clip(
    b: int = 1, f: int = 3, size: tuple[int, int] = (8, 8), seed: int = 1, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Noise `b f 4 h w`."""
    return torch.randn(b, f, 4, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def condition(
    kind: str = "sd1", b: int = 1, f: int | None = None, seed: int = 2, dtype: torch.dtype = torch.float32, **more: Any
) -> Conditioning:
    """Text `b 5 d` (`b f 5 d` with f), and what the SDXL kind needs beside it."""
    draw = torch.Generator().manual_seed(seed)
    lead = (b,) if f is None else (b, f)
    vector = {}
    if kind == "sdxl":
        vector["text"] = torch.randn(b, POOLED, generator=draw, dtype=dtype)
        vector["size"] = torch.tensor([[64.0, 48.0, 3.0, 0.0, 64.0, 56.0]], dtype=dtype).repeat(b, 1)
    tokens = {"text": torch.randn(*lead, 5, CONTEXT, generator=draw, dtype=dtype)}
    return Conditioning(tokens=tokens, vector=vector, **more)


def predict(
    unet: UNet, x: Tensor, cond: Conditioning, control: Control | None = None, t: float = 500.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """One call of the bare network: the output, and what was kept."""
    return unet(x, torch.full((x.shape[0],), t), cond.at(t, range(x.shape[1])), control)


def given(unet: UNet, cond: Conditioning, control: Control | None = None, times: Any = None) -> Denoise:
    """The network as a `Denoise`."""
    return Denoiser(unet, Path.from_config({"beta_schedule": "linear"})).given(cond, control, times)


def one_pass(b: int = 1, f: int = 3, **changes: Any) -> Pass:
    """The pass of a network that is not there, for tests of single layers."""
    fields: dict[str, Any] = {
        "emb": torch.zeros(b, 1, 4),
        "tokens": {},
        "frames": tuple(range(f)),
        "rows": (frozenset(),) * b,
    }
    return Pass(b, f, **{**fields, **changes})


class Maps(Control):
    """Changes nothing and wants every attention map to be made."""

    def wants_maps(self, site: Site, p: Pass) -> bool:
        return True
