"""Folders of FateZero's tuned models: the authors' words and names, there and back, as edited with; what does not fit is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from editors.fatezero import ATTRIBUTE, fatezero
from motion_modules import fatezero_folder as tuned
from motion_modules.animatediff import remove_motion
from motion_modules.pseudo_3d import add_pseudo_3d, frame_table, lowered
from motion_modules.tune_a_video import temporal_parameters
from motion_modules.tune_a_video_folder import image_config
from tests import folders
from tests.videogen.test_video import shapes
from videogen import video
from videogen.cli import app
from videogen.errors import InputError
from videogen.frame_choice import Entry
from videogen.models.unet import UNetConfig
from videogen.pipeline import Pipeline

CALL: dict[str, Any] = {
    "num_frames": 3,
    "num_inference_steps": 2,
    "seed": 1,
    "output_type": "latent",
    "progress": False,
}
TABLE: tuple[tuple[Entry, ...], int] = (("middle",), 64)


def made(folder: Path, rank: int | None, **config: Any) -> Pipeline:
    """A tiny model whose temporal layers do something."""
    parts = Pipeline.from_pretrained(folder).parts
    add_pseudo_3d(remove_motion(parts.unet), rank)
    for name, value in temporal_parameters(parts.unet).items():
        if ".to_out." in name or not (".attn." in name or ".norm." in name):
            torch.nn.init.normal_(value, std=0.05)
    return tuned.pipeline(parts, tuned.ModelConfig(rank, **config))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image model under it."""
    folder = tmp_path_factory.mktemp("sd")
    folders.stable_diffusion(folder)
    return folder


@pytest.fixture
def saved(image: Path, tmp_path: Path) -> Path:
    """A low-rank model with the frames of the zero-shot settings, as a folder."""
    made(image, 6, entries=TABLE[0], least=TABLE[1]).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("rank", [6, None], ids=["low_rank", "full"])
def test_save_and_load_give_the_same_clip(image: Path, tmp_path: Path, rank: int | None) -> None:
    pipe = made(image, rank, entries=TABLE[0], least=TABLE[1])
    pipe.save_pretrained(tmp_path / "model")
    again = Pipeline.from_pretrained(tmp_path / "model")
    first = pipe("a", **CALL).frames
    assert torch.equal(again("a", **CALL).frames, first)
    assert again.parts.unet.conv_norm_out.scope == "clip"
    assert again.line.endswith("motion: FateZero")


def test_the_files_are_the_authors(saved: Path) -> None:
    config = json.loads((saved / "unet" / "config.json").read_text())
    assert config["_class_name"] == "UNetPseudo3DConditionModel"
    assert config["mid_block_type"] == "UNetMidBlockPseudo3DCrossAttn"
    assert config["down_block_types"] == ["CrossAttnDownBlockPseudo3D", "DownBlockPseudo3D"]
    assert (config["lora"], config["SparseCausalAttention_index"], config["least_sc_channel"]) == (6, ["mid"], 64)
    state = torch.load(saved / "unet" / "diffusion_pytorch_model.bin", weights_only=True)
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert state["conv_out.conv_temporal.up.weight"].shape == (4, 2, 3)
    assert {f"{block}.attn_temporal.to_out.0.bias", f"{block}.norm_temporal.weight"} <= state.keys()
    assert not [name for name in state if ".temporal." in name]


def rewrite(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = model / "unet" / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_a_config_without_the_authors_settings_is_enough(saved: Path) -> None:
    """Their code leaves them out: the rank shows in the tensors, and the frames are their class's own."""

    def bare(config: dict[str, Any]) -> None:
        for key in ("lora", "SparseCausalAttention_index", "least_sc_channel"):
            del config[key]

    whole = Pipeline.from_pretrained(saved)
    rewrite(saved, bare)
    again = Pipeline.from_pretrained(saved)
    table = frame_table(whole.parts.unet, *TABLE)
    assert again.motion is not None
    assert again.motion.control.entries == (-1, "first")  # type: ignore[union-attr]
    clip = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    edited, other = (
        fatezero(
            pipe, clip, "a red dot", "a blue dot", settings=ATTRIBUTE, frames=frames, steps=2, progress=False
        ).frames
        for pipe, frames in ((whole, None), (again, table))
    )
    assert torch.equal(edited, other)
    own = fatezero(again, clip, "a red dot", "a blue dot", settings=ATTRIBUTE, steps=2, progress=False).frames
    assert not torch.equal(own, edited)


@pytest.mark.parametrize("rank", [1, 6, 64, 160])
def test_the_rank_shows_in_the_tensors(rank: int) -> None:
    widths = (4, 32, 64)
    state = {f"{c}.conv_temporal.down.weight": torch.zeros(lowered(rank, c), c, 3) for c in widths}
    found = tuned.rank_of(state)
    assert found is not None
    assert [lowered(found, c) for c in widths] == [lowered(rank, c) for c in widths]
    assert tuned.rank_of({"conv_in.conv_temporal.weight": torch.zeros(4, 4, 3)}) is None


def without(name: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "unet" / "diffusion_pytorch_model.bin"
        state = torch.load(path, weights_only=True)
        del state[name]
        torch.save(state, path)

    return change


def said(**words: Any) -> Callable[[Path], None]:
    return lambda model: rewrite(model, lambda config: config.update(words))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("conv_in.conv_temporal.up.weight"), "lacks 'conv_in.conv_temporal.up.weight'"),
        (said(lora=7), r"has \(6, 32, 3\) where \(7, 32, 3\) is needed, at 'conv_in.conv_temporal.down.weight'"),
        (said(lora="many"), "lora is 'many'"),
        (said(SparseCausalAttention_index="mid"), "SparseCausalAttention_index is 'mid'"),
        (said(SparseCausalAttention_index=["centre"]), "a frame choice of 'centre'"),
        (said(mid_block_type="UNetMidBlock3DCrossAttn"), "with UNetMidBlockPseudo3DCrossAttn"),
        (said(temporal_downsample_time=4), "temporal_downsample_time=4"),
        (said(temporal_attention_position="after_cross"), "after_cross"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line(saved: Path, change: Callable[[Path], None], told: str) -> None:
    change(saved)
    with pytest.raises(InputError, match=told) as refusal:
        Pipeline.from_pretrained(saved)
    assert "\n" not in str(refusal.value)


def test_the_command_line_edits_with_it(saved: Path, tmp_path: Path) -> None:
    video.write(tmp_path / "clip.webp", shapes(3, 24, 24))
    words = ["edit", tmp_path / "clip.webp", "a blue dot", "--source-prompt", "a red dot", "--method", "fatezero"]
    words += ["--model", saved, "--steps", "2", "--size", "24x24", "--quiet", "-o", tmp_path / "out.webp"]
    assert app.main([str(word) for word in words]) == 0
    assert video.read(tmp_path / "out.webp").frames.shape == (3, 3, 24, 24)


def test_the_config_of_the_released_class_is_understood() -> None:
    """What a file saved by the authors' class says of the network under it."""
    assert UNetConfig.from_diffusers(image_config(folders.released_config("Pseudo3D"), tuned.FATEZERO)) == UNetConfig()
