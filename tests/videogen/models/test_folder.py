"""Parts of model folders as other programs saved them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import folders
from videogen.errors import InputError
from videogen.models import folder
from videogen.pipeline import Pipeline

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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of hub models, and a network that must not be asked."""
    asked: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    yield tmp_path
    assert not asked


def cached(cache: Path, name: str, revision: str, commit: str) -> Path:
    """A model folder where the hub's own client puts one."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / revision).write_text(commit)
    (place / "snapshots").mkdir(exist_ok=True)
    folders.stable_diffusion(place / "snapshots" / commit)
    return place / "snapshots" / commit


def test_a_hub_id_is_found_in_the_ordinary_cache(cache: Path) -> None:
    """The tests run with HF_HUB_OFFLINE=1, which is honoured: nothing is asked for."""
    main, old = cached(cache, "owner/name", "main", "0123"), cached(cache, "owner/name", "v1", "4567")
    assert folder.find("owner/name") == main
    assert folder.find("owner/name", revision="v1") == old
    assert Pipeline.from_pretrained("owner/name").parts.line == folder.load_folder(main, torch.float32).line
    with pytest.raises(InputError, match="neither a folder here nor a model in the cache"):
        folder.find("owner/another")


def test_a_folder_of_the_same_name_comes_before_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(cache, "owner/name", "main", "0123")
    (cache / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(cache)
    assert folder.find("owner/name") == Path("owner/name")


def test_without_the_network_only_the_cache_is_looked_at(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`local_files_only` where the environment does not say offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    main = cached(cache, "owner/name", "main", "0123")
    assert folder.find("owner/name", local_files_only=True) == main
    with pytest.raises(InputError, match="neither a folder here nor a model in the cache"):
        folder.find("owner/another", local_files_only=True)
