"""Files and folders that are no weights, other weights, or broken ones: one line says which and what to do, and nothing is written."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import folders
from videogen.errors import InputError
from videogen.pipeline import Pipeline

Refused = Callable[..., str]

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Code:
    """Runs as soon as it is unpickled: opens a file for writing, which makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, animated: Path) -> Path:
    """A folder of files that are no weights, or not those that are wanted."""
    folder = tmp_path_factory.mktemp("files")
    whole = (animated / "vae" / WEIGHTS).read_bytes()
    (folder / "noise.safetensors").write_bytes(bytes(torch.randint(256, (5000,)).tolist()))
    (folder / "noise.ckpt").write_bytes(bytes(torch.randint(256, (5000,)).tolist()))
    (folder / "text.safetensors").write_text("not weights at all\n" * 100)
    (folder / "empty.safetensors").touch()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_header.safetensors").write_bytes(whole[:100])
    deep = b'{"a":' * 9999
    (folder / "deep.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    (folder / "page.ckpt").write_text("<!DOCTYPE html><html><body>404 not found</body></html>")
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    with open(folder / "code.ckpt", "wb") as file:
        pickle.dump({"state_dict": {"weight": Code(folder / "code_ran")}}, file)
    torch.save({"weight": Code(folder / "code_ran")}, folder / "code.pt")
    return folder


KINDS = {
    "noise.safetensors": "holds no weights", "noise.ckpt": "holds no weights", "text.safetensors": "holds no weights",
    "empty.safetensors": "is empty", "cut.safetensors": "is cut short", "cut_header.safetensors": "is cut short",
    "deep.safetensors": "its header cannot be read", "page.ckpt": "is a web page", "pointer.safetensors": "git lfs pull", "code.ckpt": "carries code",
    "code.pt": "carries code", "missing.ckpt": "does not exist",
}  # fmt: skip


@pytest.mark.parametrize("option", ["--model", "--motion", "--lora"])
@pytest.mark.parametrize("name", list(KINDS))
def test_a_file_that_holds_no_weights(refused: Refused, files: Path, option: str, name: str) -> None:
    line = refused(option, files / name)
    assert KINDS[name] in line
    assert name in line
    assert not (files / "code_ran").exists()


@pytest.mark.parametrize(
    ("option", "given", "looks"),
    [
        ("--model", "motion_adapter", "no model folder"),
        ("--model", f"motion_adapter/{WEIGHTS}", "MotionAdapter"),
        ("--model", f"vae/{WEIGHTS}", "KL autoencoder"),
        ("--motion", "vae", "KL autoencoder"),
        ("--motion", f"vae/{WEIGHTS}", "KL autoencoder"),
        ("--motion", "text_encoder", "text encoder"),
        ("--motion", "", "whole model"),
        ("--lora", f"vae/{WEIGHTS}", "KL autoencoder"),
        ("--lora", f"motion_adapter/{WEIGHTS}", "MotionAdapter"),
    ],
)
def test_a_file_of_another_family_is_called_by_its_name(
    refused: Refused, animated: Path, option: str, given: str, looks: str
) -> None:
    assert looks in refused(option, animated / given)


@pytest.mark.parametrize("option", ["--model", "--motion"])
def test_a_lora_is_neither_model_nor_motion_module(refused: Refused, lora: Path, option: str) -> None:
    assert "LoRA" in refused(option, lora)


@pytest.mark.parametrize(
    "name", ["nonsense", "no/where", "/no/such/place", "model.safetensors", "", "owner/name with spaces"]
)
def test_an_unknown_model(refused: Refused, name: str) -> None:
    assert re.search("does not exist|in the cache|empty name", refused("--model", name))


def test_a_folder_that_is_no_model(refused: Refused, tmp_path: Path) -> None:
    assert "model_index.json" in refused("--model", tmp_path)


Change = Callable[[Path], Any]


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def carry_code(path: Path) -> None:
    torch.save({"weight": Code(path.with_name("code_ran"))}, path.with_suffix(".bin"))
    path.unlink()


def spoil(path: Path) -> str:
    """Put NaN into one tensor, and give its name."""
    state = load_file(path)
    name = sorted(state)[len(state) // 2]
    state[name].view(-1)[0] = float("nan")
    save_file(state, path)
    return name


def numbers_to_words(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: "x" if type(v) in (int, float) else v for k, v in content.items()}))


def set_json(**changes: Any) -> Change:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def damaged(animated: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Change], Path]:
    """A copy of the model folder with one part changed."""

    def make(part: str, change: Change) -> Path:
        folder = tmp_path_factory.mktemp("damaged") / "model"
        shutil.copytree(animated, folder)
        change(folder / part)
        return folder

    return make


PARTS = (f"unet/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors")
CONFIGS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler", *PARTS, *CONFIGS])
def test_a_model_folder_that_lacks_a_part(refused: Refused, damaged: Any, part: str) -> None:
    assert part.split("/")[0] in refused("--model", damaged(part, remove))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("change", "says"), [(cut, "cut short"), (carry_code, "carries code")])
def test_a_model_folder_with_a_bad_file(refused: Refused, damaged: Any, part: str, change: Change, says: str) -> None:
    folder = damaged(part, change)
    assert says in refused("--model", folder)
    assert not list(folder.rglob("code_ran"))


@pytest.mark.parametrize("part", PARTS)
def test_a_model_folder_with_nan(refused: Refused, damaged: Any, part: str) -> None:
    names = []
    line = refused("--model", damaged(part, lambda path: names.append(spoil(path))))
    assert f"{names[0].removeprefix('text_model.')} holds NaN" in line


@pytest.mark.parametrize("content", ['{"act_fn": ', "[" * 99999])
@pytest.mark.parametrize("part", [*CONFIGS, "model_index.json", "tokenizer/tokenizer.json"])
def test_a_config_that_is_no_json(refused: Refused, damaged: Any, part: str, content: str) -> None:
    assert part.split("/")[0] in refused("--model", damaged(part, lambda path: path.write_text(content)))


@pytest.mark.parametrize("part", CONFIGS)
@pytest.mark.parametrize("change", [numbers_to_words, lambda path: path.write_text("[1]")])
def test_a_config_that_means_nothing(refused: Refused, damaged: Any, part: str, change: Change) -> None:
    assert part in refused("--model", damaged(part, change))


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        (
            "unet/config.json",
            set_json(block_out_channels=[64, 64]),
            "it looks like: Stable Diffusion UNet, diffusers layout",
        ),
        ("unet/config.json", set_json(class_embed_type="timestep"), "class_embed_type"),
        ("vae/config.json", set_json(block_out_channels=[8, 8, 16, 32]), "it looks like: KL autoencoder"),
        ("text_encoder/config.json", set_json(hidden_size=64), "it looks like: CLIP"),
        ("vae/config.json", set_json(_class_name="AutoencoderTiny"), "AutoencoderTiny"),
        ("scheduler/scheduler_config.json", set_json(beta_schedule="wavy"), "wavy"),
        ("scheduler/scheduler_config.json", set_json(prediction_type="guess"), "guess"),
    ],
)
def test_a_config_of_something_else(refused: Refused, damaged: Any, part: str, change: Change, says: str) -> None:
    assert says in refused("--model", damaged(part, change))


@pytest.mark.parametrize(
    ("part", "other", "says"),
    [
        ("unet", lambda: folders.unet(in_channels=9), "inpainting"),
        ("text_encoder", lambda: folders.text_encoder(64), "width"),
    ],
)
def test_parts_that_do_not_belong_together(
    refused: Refused, damaged: Any, part: str, other: Callable[[], Any], says: str
) -> None:
    def exchange(path: Path) -> None:
        remove(path)
        other().save_pretrained(path)

    assert says in refused("--model", damaged(part, exchange))


@pytest.fixture(scope="module")
def narrow_motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motion modules for a UNet of half the width."""
    from diffusers import MotionAdapter

    folder = tmp_path_factory.mktemp("motion") / "narrow"
    sizes = {"block_out_channels": (16, 32), "motion_layers_per_block": 1, "motion_num_attention_heads": 4}
    MotionAdapter(**sizes, motion_norm_num_groups=8, motion_max_seq_length=16).save_pretrained(folder)
    return folder


def test_motion_modules_of_another_width(refused: Refused, narrow_motion: Path) -> None:
    line = refused("--motion", narrow_motion)
    assert "(16, 32)" in line
    assert "(32, 64)" in line


@pytest.mark.parametrize("option", ["--motion", "--lora"])
def test_nan_is_told_with_its_tensor(refused: Refused, animated: Path, lora: Path, tmp_path: Path, option: str) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(animated / "motion_adapter" if option == "--motion" else lora.parent, folder)
    (weights,) = folder.glob("*.safetensors")
    name = spoil(weights)
    line = refused(option, folder if option == "--motion" else weights)
    assert f"{name} holds NaN" in line


@pytest.mark.parametrize("name", list(KINDS))
def test_python_refuses_the_same_files(files: Path, name: str) -> None:
    with pytest.raises(InputError, match=KINDS[name]):
        Pipeline.from_pretrained(files / name)
