"""The VAE over clips: slices of frames equal the whole, no call holds more frames than a slice, and latents have diffusers' scale."""

import pytest
import torch

from tests import folders
from videogen.models.autoencoder import FRAMES, decode, encode, posterior


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return folders.vae().requires_grad_(False)


@pytest.fixture
def held(vae, monkeypatch):
    """How many frames each call of the encoder and of the decoder was given."""
    counts = []
    for part in (vae.encoder, vae.decoder):
        forward = part.forward
        monkeypatch.setattr(part, "forward", lambda x, *rest, of=forward: counts.append(len(x)) or of(x, *rest))
    return counts


@pytest.mark.parametrize(("slice_frames", "calls"), [(1, [1] * 10), (4, [4, 4, 2]), (99, [10])])
def test_slices_equal_the_whole(vae, held, slice_frames, calls):
    """Two clips of five frames: slices are taken over both."""
    draw = torch.Generator().manual_seed(1)
    clip, latents = torch.rand(2, 5, 3, 16, 24, generator=draw) * 2 - 1, torch.randn(2, 5, 4, 2, 3, generator=draw)
    mean = vae.encode(clip.flatten(0, 1)).latent_dist.mean * vae.config.scaling_factor
    pixels = vae.decode(latents.flatten(0, 1) / vae.config.scaling_factor).sample
    held.clear()
    torch.testing.assert_close(encode(vae, clip, slice_frames=slice_frames), mean.unflatten(0, (2, 5)))
    assert held == calls
    torch.testing.assert_close(decode(vae, latents, slice_frames=slice_frames), pixels.unflatten(0, (2, 5)))
    assert held == calls * 2


def test_a_long_clip_is_cut_without_being_told_to(vae, held):
    clip = torch.zeros(1, 3 * FRAMES + 1, 3, 8, 8)
    assert decode(vae, encode(vae, clip)).shape == clip.shape
    assert held == [FRAMES, FRAMES, FRAMES, 1] * 2


def test_a_mean_and_deviation_of_each_channel_are_taken_off_and_put_back(vae):
    """As diffusers' pipelines of SDXL do: (z - mean) scale / deviation, and its inverse."""
    mean, deviation = [0.5, -1.0, 2.0, 0.0], [1.0, 2.0, 3.0, 4.0]
    told = folders.vae(latents_mean=mean, latents_std=deviation)
    told.load_state_dict(vae.state_dict())
    clip = torch.rand(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latents = encode(vae, clip)
    scale = vae.config.scaling_factor
    shifts, parts = (torch.tensor(values)[:, None, None] for values in (mean, deviation))
    torch.testing.assert_close(encode(told, clip), (latents / scale - shifts) * scale / parts)
    torch.testing.assert_close(decode(told, encode(told, clip)), decode(vae, latents))
    middle, width = posterior(told, clip[0])
    torch.testing.assert_close(middle[None], encode(told, clip))
    torch.testing.assert_close(width, posterior(vae, clip[0])[1] / parts)


def test_the_posterior_is_drawn_from_where_a_generator_is_given(vae):
    clip = torch.rand(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    wanted = vae.encode(clip[0]).latent_dist.sample(torch.Generator().manual_seed(3)) * vae.config.scaling_factor
    assert torch.equal(encode(vae, clip, torch.Generator().manual_seed(3))[0], wanted)
