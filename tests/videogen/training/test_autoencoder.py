"""Folding the latents' statistics into the VAE gives unit latents and the same pictures; crops hold the object."""

import torch
from diffusers import AutoencoderKL

from videogen.training.autoencoder import Autoencoder, Settings, standardise
from videogen.training.recipe import Draw


@torch.no_grad()
def test_standardised_latents_decode_to_the_same_pictures() -> None:
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    vae = AutoencoderKL(block_out_channels=(8, 8), down_block_types=down, up_block_types=up, norm_num_groups=2)
    pixels = torch.randn(6, 3, 16, 16)
    before = vae.encode(pixels).latent_dist
    pictures = vae.decode(before.mean).sample
    mean, deviation = before.mean.mean((0, 2, 3)), before.mean.std((0, 2, 3))
    standardise(vae, mean, deviation)
    after = vae.encode(pixels).latent_dist
    assert torch.allclose(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(after.std, before.std / deviation[:, None, None], rtol=1e-3)
    assert torch.allclose(vae.decode(after.mean).sample, pictures, atol=1e-4)


def test_batches_are_crops_with_the_object_first_and_whole_frames_later() -> None:
    recipe = Autoencoder(Settings(batch_size=8))
    recipe.device = torch.device("cpu")
    early, late = recipe.batches(iter([Draw(0, 0, 0.1), Draw(0, 0, 0.9)]))
    assert early.pixels.shape == (8, 3, 64, 64)
    assert late.pixels.shape == (8, 3, 128, 128)
    assert (early.objects.flatten(1).sum(1) > 100).all()
    assert early.noise.shape == (8, 4, 8, 8)


def test_two_processes_draw_the_halves_of_one_batch() -> None:
    recipe = Autoencoder(Settings(batch_size=6))
    recipe.device = torch.device("cpu")
    (whole,) = recipe.batches(iter([Draw(3, 7)]))
    halves = [next(recipe.batches(iter([Draw(3, 7, 0.0, rank, 2)]))) for rank in (0, 1)]
    for name in whole._fields:
        assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(whole, name))
