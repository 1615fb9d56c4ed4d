"""The store of latents: filled once, by any number of processes, and stale when its VAE or its order changes."""

from pathlib import Path

import pytest
import torch

from videogen.errors import InputError
from videogen.shapes import render, sample
from videogen.training import latents
from videogen.training.latents import Order, cells, encode_missing, open_latents, still_frames

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("vae")
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    AutoencoderKL(
        block_out_channels=(4,) * 4,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
    ).save_pretrained(folder)
    return folder


def test_processes_fill_it_together_and_nothing_is_encoded_twice(
    vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "PIECE", 3)
    order = Order(8, frames=(0, 15))
    alone = open_latents(order, vae, tmp_path / "alone", CPU)
    assert alone.latents.shape == (8, 2, 4, 16, 16)
    for rank in (1, 0):
        encode_missing(order, vae, tmp_path / "shared", CPU, rank, 2)
    monkeypatch.setattr(latents, "_encoded", None)
    shared = open_latents(order, vae, tmp_path / "shared", CPU)
    assert torch.equal(alone.latents, shared.latents)
    assert torch.equal(alone.objects, shared.objects)


def test_another_vae_or_order_is_another_store(vae: Path, tmp_path: Path) -> None:
    open_latents(Order(2), vae, tmp_path / "store", CPU)
    open_latents(Order(2, seed=1), vae, tmp_path / "store", CPU)
    (vae / "note.txt").write_text("another VAE")
    open_latents(Order(2), vae, tmp_path / "store", CPU)
    (vae / "note.txt").unlink()
    assert len(list((tmp_path / "store").iterdir())) == 3


def test_a_missing_vae_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train it first"):
        open_latents(Order(2), tmp_path, tmp_path / "store", CPU)


def test_cells_hold_the_share_that_objects_cover() -> None:
    scenes = sample(3, generator=torch.Generator().manual_seed(0), objects=1)
    masks = render(scenes, only=[4]).masks.sum(2)
    assert torch.allclose(cells(masks).float().sum((2, 3)) / 255 * 64, masks.sum((2, 3)), rtol=0.02)


def test_half_of_the_stills_are_first_frames() -> None:
    scenes = sample(400, generator=torch.Generator().manual_seed(0))
    frames = still_frames(len(scenes), torch.Generator().manual_seed(1))
    assert 0.44 < float((frames == 0).float().mean()) < 0.63
    assert set(frames[:, 0].tolist()) == set(range(16))
