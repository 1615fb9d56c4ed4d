"""What is written is read back as the same changes, here and by diffusers."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests import training_world
from videogen.adapters.lora_dialects import read_lora
from videogen.adapters.lora_writing import Dialect, write_lora
from videogen.adapters.low_rank import LowRank
from videogen.conditioning import Conditioning
from videogen.errors import InputError
from videogen.pipeline import Pipeline
from videogen.training.trainable import IMAGE_ATTENTION, add_changes, changed_layers, changes

IMAGE_LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
MOTION_LAYER = "up_blocks.1.motion_modules.2.transformer_blocks.0.attn1.to_q"


def change(target: str, module: str, scale: float) -> LowRank:
    generator = torch.Generator().manual_seed(len(module))
    down, up = torch.randn(2, 6, generator=generator), torch.randn(8, 2, generator=generator)
    return LowRank(target, module, down, up, scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", ["kohya", "diffusers", "authors"])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_what_is_written_is_read_back(dialect: Dialect, scale: float) -> None:
    written = [
        change("unet", IMAGE_LAYER.replace("to_out.0", "to_q"), scale),
        change("unet", IMAGE_LAYER, scale),
        change("motion", MOTION_LAYER, scale),
        change("motion", MOTION_LAYER.replace("to_q", "to_out.0"), scale),
    ]
    found = read_lora(write_lora(written, dialect))
    assert [(one.target, one.module) for one in found] == [(one.target, one.module) for one in written]
    for ours, theirs in zip(written, found):
        torch.testing.assert_close(theirs.delta((8, 6)), ours.delta((8, 6)))


def test_the_authors_names_are_of_attention_layers() -> None:
    with pytest.raises(InputError, match="name attention layers only; conv_in is none"):
        write_lora([change("unet", "conv_in", 1.0)], "authors")


def test_a_change_of_a_convolution_is_its_own_shape() -> None:
    net = nn.Module()
    net.conv = nn.Conv2d(4, 6, 3)
    base = net.conv.weight.detach().clone()
    down, up = add_changes(net, "conv", 2, alpha=1.0)
    assert (down.shape, up.shape) == ((2, 4, 3, 3), (6, 2, 1, 1))
    assert torch.equal(net.conv.weight, base)
    nn.init.normal_(up)
    (one,) = changes(net)
    torch.testing.assert_close(net.conv.weight, base + one.delta(base.shape))
    assert one.scale == 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_world.model(tmp_path_factory.mktemp("world") / "model")


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_diffusers_runs_the_trained_net(model: Path, dialect: Dialect) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    torch.manual_seed(0)
    unet = Pipeline.from_pretrained(model).parts.unet
    x, text = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 128)
    theirs = UNet2DConditionModel.from_pretrained(model / "unet").eval()
    with torch.no_grad():
        base = theirs(x, 500, text)[0]
        add_changes(unet, IMAGE_ATTENTION, 2, alpha=1.0)
        for one in changed_layers(unet).values():
            nn.init.normal_(one.up)
        told = Conditioning(tokens={"text": text}).at(500.0, (0,))
        ours = unet(x[:, None], torch.full((2,), 500.0), told)[0][:, 0]
        state, alphas, *_ = StableDiffusionLoraLoaderMixin.lora_state_dict(
            write_lora(changes(unet), dialect), unet_config=theirs.config
        )
        StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, alphas, theirs)
        torch.testing.assert_close(theirs(x, 500, text)[0], ours, atol=1e-5, rtol=0)
    assert not torch.allclose(base, ours, atol=1e-3)
