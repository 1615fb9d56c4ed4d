"""FateZero's layers: an independent writing of the whole network, the authors' names, identity at the start, what a dial and groups do."""

import pytest
import torch

from motion_modules.pseudo_3d import NAMES, add_pseudo_3d, frame_table, lowered, remove_pseudo_3d
from motion_modules.tune_a_video import add_temporal, authors_name, our_name, temporal_parameters
from tests import nets
from tests.motion_modules.fatezero_reference import Reference
from videogen.conditioning import Dial
from videogen.errors import InputError
from videogen.frame_choice import FrameChoice
from videogen.models.presets import PRESETS
from videogen.models.unet import UNet

DOUBLE = torch.float64
F = 5
FORMS = pytest.mark.parametrize("rank", [3, None], ids=["low_rank", "full"])


def pseudo(rank, awake=True):
    """A tiny network; awake, every temporal layer does something."""
    unet = add_pseudo_3d(nets.tiny_unet(dtype=DOUBLE), rank)
    if awake:
        for name, value in temporal_parameters(unet).items():
            if ".to_out." in name or not (".attn." in name or ".norm." in name):
                torch.nn.init.normal_(value, std=0.3)
    return unet


def predict(unet, x, control=None, **cond):
    return nets.predict(unet, x, nets.condition(dtype=DOUBLE, **cond), control)[0]


@FORMS
@pytest.mark.parametrize(("entries", "least"), [((-1, "first"), 0), (("middle",), 16)])
@torch.no_grad()
def test_the_network_is_the_papers(rank, entries, least):
    unet, x, cond = pseudo(rank), nets.clip(2, F, dtype=DOUBLE), nets.condition(b=2, dtype=DOUBLE)

    def table(width, f):
        named = {"first": 0, "middle": (f - 1) // 2}
        if width < least:
            return [[i] for i in range(f)]
        return [[named[e] if isinstance(e, str) else min(max(i + e, 0), f - 1) for e in entries] for i in range(f)]

    state = {authors_name(name, NAMES): value for name, value in unet.state_dict().items()}
    reference = Reference(state, unet.config.channels, unet.config.layers, 2, 4, table)
    expected = reference(x.transpose(1, 2), 500.0, cond.tokens["text"]).transpose(1, 2)
    ours = nets.predict(unet, x, cond, frame_table(unet, entries, least))[0]
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


@FORMS
def test_identity_at_install_and_taken_out_again(rank):
    x, image = nets.clip(1, F, dtype=DOUBLE), nets.tiny_unet(dtype=DOUBLE)
    torch.testing.assert_close(
        predict(pseudo(rank, awake=False), x), predict(add_temporal(nets.tiny_unet(dtype=DOUBLE)), x)
    )
    assert torch.equal(predict(remove_pseudo_3d(pseudo(rank)), x), predict(image, x))
    assert remove_pseudo_3d(pseudo(rank)).state_dict().keys() == image.state_dict().keys()


@FORMS
def test_the_dial_turns_all_of_it(rank):
    unet, x = pseudo(rank), nets.clip(1, F, dtype=DOUBLE)
    off = predict(unet, x, dials={"motion": Dial(0.0)})
    bare = add_temporal(nets.tiny_unet(dtype=DOUBLE))
    assert torch.equal(off, predict(bare, x))
    full, half = (predict(unet, x, dials={"motion": Dial(scale)}) for scale in (1.0, 0.5))
    assert torch.equal(full, predict(unet, x))
    assert min((half - off).abs().max(), (half - full).abs().max()) > 1e-3


@FORMS
def test_groups_of_frames_are_clips_of_their_own(rank):
    unet, x = pseudo(rank), nets.clip(1, F, dtype=DOUBLE)
    groups = torch.tensor([[0, 1, 0, 1, 1]])
    whole = predict(unet, x, groups=groups)
    for group in (0, 1):
        chosen = groups[0] == group
        torch.testing.assert_close(whole[:, chosen], predict(unet, x[:, chosen]), rtol=1e-7, atol=1e-9)


@FORMS
def test_checkpointing_changes_no_gradient(rank):
    def gradients(checkpointing):
        unet = pseudo(rank)
        unet.set_checkpointing(checkpointing)
        predict(unet, nets.clip(1, F, dtype=DOUBLE)).square().sum().backward()
        return {name: value.grad for name, value in temporal_parameters(unet).items()}

    plain, less = gradients(False), gradients(True)
    for name, value in plain.items():
        torch.testing.assert_close(less[name], value)


def test_every_layer_knows_where_it_stands():
    """The level is that of the picture it sees: what halves or doubles it belongs to the size it makes."""
    unet = pseudo(2)
    sites = {name: module.site for name, module in unet.named_modules() if name.endswith(".temporal")}
    assert all(site.place == name and site.kind == "temporal" for name, site in sites.items())
    levels = {name.removesuffix(".temporal"): (site.part, site.level) for name, site in sites.items()}
    assert levels["conv_in"] == ("down", 0)
    assert levels["down_blocks.1.resnets.0.conv2"] == levels["down_blocks.0.downsamplers.0.conv"] == ("down", 1)
    assert levels["mid_block.resnets.1.conv1"] == ("mid", 2)
    assert levels["up_blocks.1.resnets.0.conv1"] == levels["up_blocks.0.upsamplers.0.conv"] == ("up", 1)
    assert levels["conv_out"] == ("up", 0)


def test_a_table_holds_from_a_width_on():
    unet, x = pseudo(2, awake=False), nets.clip(1, F, dtype=DOUBLE)
    widest = max(unet.config.channels)
    own, middle = FrameChoice((0,)), FrameChoice(("middle",))
    assert torch.equal(predict(unet, x, frame_table(unet, ("middle",), widest + 1)), predict(unet, x, own))
    assert torch.equal(predict(unet, x, frame_table(unet, ("middle",), 0)), predict(unet, x, middle))


def test_names_and_shapes_are_the_authors_at_full_size(manifests):
    with torch.device("meta"):
        unet = add_pseudo_3d(UNet(PRESETS["sd15"].unet), 160)
    listed = manifests["fatezero_unetpseudo3d_sd14_lora160"]
    assert {authors_name(name, NAMES): list(value.shape) for name, value in unet.state_dict().items()} == listed
    assert len(listed) == 902
    assert all(authors_name(our_name(name, NAMES), NAMES) == name for name in listed)


def test_a_rank_that_does_not_fit_becomes_half_the_width():
    assert [lowered(160, width) for width in (4, 159, 160, 320)] == [2, 79, 160, 160]
    with pytest.raises(InputError, match="rank of 0"):
        add_pseudo_3d(nets.tiny_unet(), 0)
    with pytest.raises(InputError, match="already"):
        add_pseudo_3d(pseudo(2), 2)
