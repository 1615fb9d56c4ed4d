"""Motion modules from files and folders: what is broken is named, and the network stays as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from motion_modules.animatediff import motion_parameters
from motion_modules.loading import install
from tests import folders
from videogen.errors import InputError
from videogen.models.unet import UNet, UNetConfig

CONFIG = "config.json"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    folders.motion_adapter().save_pretrained(folder)
    return folder


@pytest.fixture
def unet() -> UNet:
    return UNet(UNetConfig.from_diffusers(dict(folders.unet().config)))


@pytest.fixture
def damaged(adapter: Path, tmp_path: Path) -> Path:
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def changed(folder: Path, **entries: Any) -> str:
    return json.dumps({**json.loads((folder / CONFIG).read_text()), **entries})


def refusal(unet: UNet, folder: Path) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(InputError) as caught:
        install(unet, folder)
    (line,) = str(caught.value).splitlines()
    return line


def test_the_folders_tensors_are_installed(adapter: Path, unet: UNet) -> None:
    motion = install(unet, adapter)
    theirs = folders.motion_adapter().state_dict()
    ours = {name: value for name, value in unet.state_dict().items() if "motion_modules." in name}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert (motion.longest, motion.trained) == (16, 16)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", b"\xff\xfe\x00", '{"_class_name": "MotionAdapter"}'],
)  # fmt: skip
def test_a_truncated_config_is_named(damaged: Path, unet: UNet, content: str | bytes) -> None:
    (damaged / CONFIG).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(damaged / CONFIG) in refusal(unet, damaged)
    assert not motion_parameters(unet)


@pytest.mark.parametrize(
    "entry",
    [
        {"block_out_channels": 320}, {"block_out_channels": []}, {"block_out_channels": ["a", "b"]},
        {"motion_num_attention_heads": "eight"}, {"motion_num_attention_heads": 0}, {"motion_num_attention_heads": 5},
        {"motion_norm_num_groups": None}, {"motion_norm_num_groups": 7}, {"motion_max_seq_length": [16]},
        {"motion_max_seq_length": -1}, {"motion_layers_per_block": {}}, {"motion_transformer_layers_per_block": "two"},
        {"norm_scope": "video"}, {"conv_in_channels": 9},
    ],
)  # fmt: skip
def test_a_config_of_wrong_values_is_named(damaged: Path, unet: UNet, entry: dict[str, Any]) -> None:
    (damaged / CONFIG).write_text(changed(damaged, **entry))
    assert str(damaged / CONFIG) in refusal(unet, damaged)
    assert not motion_parameters(unet)


def test_a_config_that_does_not_fit_the_tensors_names_the_first(damaged: Path, unet: UNet) -> None:
    (damaged / CONFIG).write_text(changed(damaged, motion_max_seq_length=24))
    with pytest.raises(InputError, match=r"does not fit its config: it has .*pos_embed\.pe'"):
        install(unet, damaged)
    assert not motion_parameters(unet)


def test_a_config_of_something_else_beside_a_file_is_passed_over(damaged: Path, unet: UNet) -> None:
    """Where a motion file lies in a folder of other things, the family's own numbers hold (here eight heads)."""
    (damaged / CONFIG).write_text('{"_class_name": "Other", "motion_num_attention_heads": 0}')
    assert install(unet, damaged).config["motion_num_attention_heads"] == 8
