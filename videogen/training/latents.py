"""Latents of rendered scenes, encoded once: a memory-mapped store keyed by the VAE's weights and the scenes' seed.

It is filled in pieces, each a file that is there whole or not at all, so that several processes can fill it and an interrupted filling goes on.
The scenes themselves are not stored: they are a function of the seed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import videogen.foreign

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from videogen.errors import InputError
from videogen.files import replacing
from videogen.models.autoencoder import encode
from videogen.shapes import render, sample
from videogen.shapes.middle import ANYWHERE, Middle
from videogen.shapes.twins import TWINS, Word, twins
from videogen.shapes.usual import AS_DRAWN, Usual
from videogen.shapes.world import FRAMES, SIZE, Scenes

PIECE = 512  # scenes a file
VERSION = 3  # of the world and of this format; a new one makes old stores stale


@dataclass(frozen=True)
class Latents:
    """`latents[i]` belongs to `scenes[i]`: `n f 4 16 16` float16; `objects` `n f 16 16`, the share of each cell that objects cover, of 255.

    `grounds`, `n 4 16 16`, are the latents of the backgrounds alone. So many in a row as `together` says differ in one word only.
    `middle` says where they were drawn.
    """

    scenes: Scenes
    latents: Tensor
    objects: Tensor
    grounds: Tensor
    together: int = 1
    middle: Middle = ANYWHERE

    def frames_of(self, frames: slice) -> Latents:
        """Some of the frames of each clip."""
        return replace(self, latents=self.latents[:, frames], objects=self.objects[:, frames])

    def only(self, which: Tensor) -> Latents:
        """The clips for which `which` (`n`, true or false) says so, each for itself."""
        rows = which.nonzero()[:, 0]
        return self._rows(rows, 1)

    def fours(self, which: Tensor) -> Latents:
        """The scenes that belong together for which `which` (one for each `together` in a row) says so, still together."""
        rows = which.repeat_interleave(self.together).nonzero()[:, 0]
        return self._rows(rows, self.together)

    def _rows(self, rows: Tensor, together: int) -> Latents:
        return Latents(
            self.scenes[rows], self.latents[rows], self.objects[rows], self.grounds[rows], together, self.middle
        )


@dataclass(frozen=True)
class Order:
    """What a store holds: `count` training scenes drawn with `seed`, and of each clip these frames (None: one still, see `still_frames`).

    With `twins`, scenes come in fours that differ in this word only; without, they have so many `objects` (None: one or two). `middle` says where
    most are, `usual` of what size and how fast.
    """

    count: int
    seed: int = 0
    frames: tuple[int, ...] | None = None
    twins: Word | None = None
    objects: int | None = None
    middle: Middle = ANYWHERE
    usual: Usual = AS_DRAWN

    def scenes(self) -> tuple[Scenes, Tensor]:
        """The scenes, and the frames of each, `n f`."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.twins:
            scenes = twins(self.count, self.twins, generator=generator)
        else:
            scenes = sample(self.count, generator=generator, objects=self.objects)
        alike = TWINS if self.twins else 1
        scenes = self.usual.drawn(scenes, generator=generator, alike=alike)
        scenes = self.middle.moved(scenes, generator=generator, alike=alike)
        if self.frames:
            return scenes, torch.tensor(self.frames).expand(self.count, -1)
        return scenes, still_frames(self.count // alike, generator).repeat_interleave(alike, 0)


def still_frames(count: int, generator: torch.Generator) -> Tensor:
    """One frame number a clip, `count 1`: the first in half of the cases, any otherwise.

    That is a visible cue: an object that is to move right begins on the left more often. It gives an image model a reason to listen to motion
    words, without which a motion module behind frozen image layers could not hear them.
    """
    anywhere = torch.randint(FRAMES, (count, 1), generator=generator)
    return anywhere * (torch.rand(count, 1, generator=generator) < 0.5)


def open_latents(order: Order, vae_folder: Path, store: Path, device: torch.device) -> Latents:
    """The latents of `order`; what `store` lacks of them is encoded."""
    folder = encode_missing(order, vae_folder, store, device)
    scenes, _ = order.scenes()
    pieces = [load_file(folder / f"{start}.safetensors") for start in range(0, order.count, PIECE)]
    stored = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    return Latents(scenes, **stored, together=TWINS if order.twins else 1, middle=order.middle)


def encode_missing(
    order: Order, vae_folder: Path, store: Path, device: torch.device, rank: int = 0, ranks: int = 1
) -> Path:
    """Encode what `store` lacks of `order`, this process its share of the pieces; the folder of the pieces."""
    if not (vae_folder / "config.json").is_file():
        raise InputError(f"{vae_folder} has no autoencoder; train it first (videogen train miniature/vae)")
    scenes, only = order.scenes()
    folder = store / _key(order, vae_folder)
    folder.mkdir(parents=True, exist_ok=True)
    vae = None
    for number, start in enumerate(range(0, order.count, PIECE)):
        if number % ranks == rank and not (folder / f"{start}.safetensors").is_file():
            vae = vae or AutoencoderKL.from_pretrained(vae_folder).to(device, memory_format=torch.channels_last).eval()
            piece = slice(start, start + PIECE)
            with replacing(folder / f"{start}.safetensors") as beside:
                alike = TWINS if order.twins else 1
                save_file(_encoded(vae, scenes[piece], only[piece], alike, device), beside)
    return folder


@torch.no_grad()
def _encoded(vae: AutoencoderKL, scenes: Scenes, only: Tensor, alike: int, device: torch.device) -> dict[str, Tensor]:
    """A piece of the store. So many scenes in a row as `alike` says have the same background."""

    def latents_of(frames: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return encode(vae, frames * 2 - 1, slice_frames=32).half().cpu()

    latents, objects, grounds = [], [], []
    empty = scenes.change(centre=torch.full_like(scenes.centre, -10.0 * SIZE))[::alike]
    for start in range(0, len(scenes), 64):
        part = slice(start, start + 64)
        rendered = render(scenes[part].to(device), only=only[part])
        latents.append(latents_of(rendered.frames))
        objects.append(cells(rendered.masks.sum(2)).cpu())
    for start in range(0, len(empty), 64):
        rendered = render(empty[start : start + 64].to(device), only=[0])
        grounds.append(latents_of(rendered.frames)[:, 0])
    return {
        "latents": torch.cat(latents),
        "objects": torch.cat(objects),
        "grounds": torch.cat(grounds).repeat_interleave(alike, 0)[: len(scenes)],
    }


def cells(masks: Tensor) -> Tensor:
    """Pixel masks `b f H W` in [0, 1] -> the share of each 8 x 8 cell that is covered, `b f H/8 W/8` uint8 of 255."""
    return (F.avg_pool2d(masks, SIZE // 16) * 255).round().clamp(0, 255).to(torch.uint8)


def _key(order: Order, vae_folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(vae_folder.iterdir()):
        digest.update(file.read_bytes())
    digest.update(json.dumps([VERSION, asdict(order)]).encode())
    return digest.hexdigest()
