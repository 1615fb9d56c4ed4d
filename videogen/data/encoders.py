"""What turns clips and captions into what is trained on: a model's VAE and text side, with a key that changes when their weights do."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from videogen.errors import InputError
from videogen.models import autoencoder
from videogen.models.folder import find, load_vae
from videogen.models.prompt import plain
from videogen.models.text import TextSide, load_text_side

SLICE = 16  # frames encoded at once


class Encoders(Protocol):
    """Encodes clips and captions; equal keys promise equal results."""

    @property
    def clip_key(self) -> str:
        """Of what encodes clips."""

    @property
    def text_key(self) -> str:
        """Of what encodes captions."""

    def clip(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents, both `f c h w`, of frames `f 3 H W` uint8."""

    def text(self, caption: str, chunks: int) -> dict[str, Tensor]:
        """What the net is told of one caption, by `port.name`: `tokens.text` `n d`, and `vector.text` `d` where there is one.

        `n` is the same for all captions, so many `chunks` of the encoder.
        """


class PartEncoders:
    """A VAE and a text side, where they are, in their own dtype."""

    def __init__(self, vae: Any, side: TextSide) -> None:
        self.vae, self.side = vae, side

    @property
    def device(self) -> torch.device:
        """Where frames are encoded."""
        found: torch.device = next(self.vae.parameters()).device
        return found

    @functools.cached_property
    def _keys(self) -> tuple[str, str]:
        tokens = [encoder.tokenizer.get_vocab() for encoder in self.side.encoders]  # type: ignore[operator,union-attr]
        return fingerprint(self.vae, self.vae.config), fingerprint(self.side, {"tokens": tokens})

    @property
    def clip_key(self) -> str:
        """A digest of the VAE's weights and configuration."""
        return self._keys[0]

    @property
    def text_key(self) -> str:
        """A digest of the text encoders' weights and their tokens."""
        return self._keys[1]

    @torch.no_grad()
    def clip(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See `Encoders.clip`."""
        return autoencoder.posterior(self.vae, frames.to(self.device).float().div(127.5).sub(1), SLICE)

    def text(self, caption: str, chunks: int) -> dict[str, Tensor]:
        """See `Encoders.text`."""
        return {name: value[0] for name, value in self.texts([caption], chunks).items()}

    @torch.no_grad()
    def texts(self, captions: Sequence[str], chunks: int) -> dict[str, Tensor]:
        """The same of several captions, `b n d` and `b d`. All take `chunks`, whichever others there are, so that no caption's clip depends on its
        neighbours: a short one is filled up with empty chunks, a long one is cut with a warning.

        A caption is no prompt: its brackets are characters, and weigh nothing.
        """
        whole = self.side.tokenize([plain(caption) for caption in captions])
        if whole[0][0].chunks > chunks:
            warnings.warn(f"captions are cut that take more than chunks: {chunks}, of 75 tokens each", stacklevel=2)
        words = tuple(tuple(one.cut(chunks).padded(chunks) for one in batch) for batch in whole)
        told = self.side.encode(self.side.embed(words), words)
        ports: dict[str, Mapping[str, Tensor]] = {"tokens": told.tokens, "vector": told.vector}
        return {f"{port}.{name}": value for port, named in ports.items() for name, value in named.items()}


class ModelEncoders(PartEncoders):
    """Those of a Stable Diffusion model: a folder in diffusers' layout, a hub id, or `shapes`. Raises InputError for anything else."""

    def __init__(self, model: str | Path, device: str | torch.device = "cpu") -> None:
        folder = find(model)
        if not folder.is_dir():
            raise InputError(
                f"{folder} is a single file, which a training's configuration opens; give that, or a folder"
            )
        vae, side = load_vae(folder / "vae", torch.float32), load_text_side(folder, dtype=torch.float32)
        super().__init__(vae.to(device), side.to(device))


def fingerprint(net: nn.Module, config: Mapping[str, Any]) -> str:
    """A digest of weights and configuration; where they were read from plays no part."""
    return digest_of(net.state_dict(), {key: value for key, value in config.items() if not key.startswith("_")})


def digest_of(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> str:
    """A digest of tensors with their names, and of what is said of them."""
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True, default=str).encode(), digest_size=12)
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
