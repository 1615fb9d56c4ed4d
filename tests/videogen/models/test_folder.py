"""Parts of model folders as other programs saved them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import folders
from videogen.errors import InputError
from videogen.models import folder

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """A VAE's folder, and the VAE."""
    vae = folders.vae()
    vae.save_pretrained(tmp_path / "vae")
    return tmp_path / "vae", vae


def test_a_vae_is_read_as_it_was_written(saved: tuple[Path, torch.nn.Module]) -> None:
    path, vae = saved
    read = folder.load_vae(path, torch.float32)
    wanted = vae.state_dict()
    assert {n: v.shape for n, v in read.state_dict().items()} == {n: v.shape for n, v in wanted.items()}
    assert all(value.equal(wanted[name]) for name, value in read.state_dict().items())
    assert not read.training
    assert folder.load_vae(path, torch.float16).dtype == torch.float16


def test_a_vae_with_the_attention_names_of_early_diffusers(saved: tuple[Path, torch.nn.Module]) -> None:
    """diffusers reads such a folder too, and both are the same network."""
    from diffusers import AutoencoderKL

    path, vae = saved
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = load_file(path / WEIGHTS)
    early = {}
    for name, value in state.items():
        present = next((n for n in names if n in name), None)
        early[name.replace(present, names[present]) if present else name] = value
    assert early.keys() != state.keys()
    save_file(early, path / WEIGHTS, {"format": "pt"})
    theirs = AutoencoderKL.from_pretrained(path, local_files_only=True)
    pixels = torch.randn(1, 3, 16, 16)
    ours = folder.load_vae(path, torch.float32).encode(pixels).latent_dist.mean
    assert ours.equal(theirs.encode(pixels).latent_dist.mean)
    assert ours.equal(vae.encode(pixels).latent_dist.mean)


def test_the_first_tensor_that_does_not_fit_is_named(saved: tuple[Path, torch.nn.Module]) -> None:
    path, _ = saved
    state = load_file(path / WEIGHTS)
    for change, says in (
        ({n: v for n, v in state.items() if n != "decoder.conv_in.bias"}, "lacks 'decoder.conv_in.bias' .1 missing"),
        ({**state, "decoder.extra": torch.zeros(1)}, "has 'decoder.extra', which the model does not know .1 surplus"),
        ({**state, "decoder.conv_in.bias": torch.zeros(3)}, r"has \(3,\) where \(16,\) is needed"),
    ):
        save_file(change, path / WEIGHTS)
        with pytest.raises(InputError, match=says):
            folder.load_vae(path, torch.float32)
