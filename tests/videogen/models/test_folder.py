"""Parts of model folders as other programs saved them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from tests import folders
from videogen.errors import InputError
from videogen.models import folder
from videogen.models.weights import files
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


@pytest.mark.parametrize(
    ("changes", "told"), [({"scaling_factor": None}, "config.json"), ({"latents_mean": [0.0]}, "latents_mean")]
)
def test_a_vae_whose_scale_cannot_be_used_is_refused(
    saved: tuple[Path, torch.nn.Module], changes: dict[str, object], told: str
) -> None:
    file = saved[0] / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(InputError, match=told):
        folder.load_vae(saved[0], torch.float32)


def test_a_model_of_pictures_that_are_not_square(tmp_path: Path) -> None:
    """Its size is a pair, height first, as diffusers takes it; and is saved so."""
    folders.stable_diffusion(tmp_path / "model")
    file = tmp_path / "model" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": [4, 6]}))
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    made = pipe("a circle", num_frames=1, num_inference_steps=1, output_type="pt", progress=False).frames
    assert made.shape[-2:] == (32, 48)
    pipe.save_pretrained(tmp_path / "saved")
    assert Pipeline.from_pretrained(tmp_path / "saved").default_size == (32, 48)


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


LISTING = [
    "model_index.json", "v1-5-pruned.safetensors", "v1-5-pruned.ckpt", "README.md", "safety_checker/config.json",
    "safety_checker/model.safetensors", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors.index.json", "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin", "vae/config.json", "vae/diffusion_pytorch_model.bin",
]  # fmt: skip


def test_of_a_hub_repository_only_what_is_read_is_fetched() -> None:
    plain = {name for name in folder.needed(LISTING) if name.endswith((".safetensors", ".bin", ".index.json"))}
    assert plain == {
        "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors.index.json", "vae/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors", "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    }  # fmt: skip
    half = {name for name in folder.needed(LISTING, "fp16") if name.endswith((".safetensors", ".bin", ".index.json"))}
    assert half == {
        "text_encoder/model.fp16.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.bin",
    }  # fmt: skip
    configs = set(folder.needed(LISTING)) - plain
    assert {"model_index.json", "tokenizer/merges.txt", "vae/config.json"} < configs
    assert not any(name.startswith(("safety", "v1", "README")) for name in configs)


def test_a_motion_adapters_repository_has_its_weights_at_the_top() -> None:
    """With a listing, and by the patterns that serve without one."""
    names = [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "README.md",
    ]
    assert folder.needed(names) == names[:2]
    kept = set(
        filter_repo_objects(
            names, allow_patterns=[*folder.CONFIGS, *folder.WEIGHTS], ignore_patterns=[*folder.LEFT_OUT]
        )
    )
    assert kept == set(names[:3])


def test_a_variant_serves_the_parts_that_have_it(tmp_path: Path) -> None:
    folders.stable_diffusion(tmp_path)
    before = Pipeline.from_pretrained(tmp_path).parts
    for part in ("unet", "text_encoder"):
        state = files.read(tmp_path / part)
        name = files.locate(tmp_path / part)[0].name.replace(".safetensors", ".other.safetensors")
        files.write(tmp_path / part / name, {key: value + 1 for key, value in state.items()})
    after = Pipeline.from_pretrained(tmp_path, variant="other").parts
    torch.testing.assert_close(after.unet.conv_in.weight, before.unet.conv_in.weight + 1)
    was, now = (next(parts.text.encoders[0].model.parameters()) for parts in (before, after))
    torch.testing.assert_close(now, was + 1)
    torch.testing.assert_close(after.vae.encoder.conv_in.weight, before.vae.encoder.conv_in.weight)
    with pytest.raises(InputError, match="weights of variant nosuch"):
        Pipeline.from_pretrained(tmp_path, variant="nosuch")


def test_of_a_subfolder_in_a_hub_repository_that_folder_alone_is_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub's client is asked for, which then finds it in the cache; the listing is a stand-in for the network's."""
    main, asked = cached(cache, "owner/name", "main", "0123"), {}
    folders.stable_diffusion(main / "models" / "small")
    names = [f"{place}{name}" for place in ("", "models/small/") for name in LISTING]
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: names)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **options: asked.update(options) or str(main))
    assert folder.find("owner/name", subfolder="models/small") == main / "models" / "small"
    assert set(asked["allow_patterns"]) == {f"models/small/{name}" for name in folder.needed(LISTING)}


def test_a_subfolder_of_a_model_is_named(tmp_path: Path) -> None:
    folders.stable_diffusion(tmp_path / "models" / "small")
    assert folder.find(tmp_path, subfolder="models/small") == tmp_path / "models" / "small"
    for stray in ("nothing", "../models"):
        with pytest.raises(InputError, match="name one of its own"):
            folder.find(tmp_path / "models", subfolder=stray)


def test_an_unknown_users_home_is_a_missing_model() -> None:
    with pytest.raises(InputError, match="does not exist"):
        folder.find("~nobody-of-that-name/model")


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
