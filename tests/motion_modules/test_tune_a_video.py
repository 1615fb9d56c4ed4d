"""Tune-A-Video's layers: the sheet's identities, the trainable set, the authors' names."""

import pytest
import torch

from motion_modules.tune_a_video import (
    add_temporal,
    authors_name,
    our_name,
    remove_temporal,
    temporal_parameters,
    trainable,
    tuned_state,
)
from tests import nets
from videogen.conditioning import Dial
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL
from videogen.models.presets import PRESETS
from videogen.models.unet import UNet

DOUBLE = torch.float64
F = 4


def tuned(kind="sd1", awake=True, **options):
    """A tiny UNet with temporal layers; awake, they do something (the bias stays zero)."""
    unet = add_temporal(nets.tiny_unet(kind, dtype=DOUBLE), **options)
    if awake:
        for name, value in temporal_parameters(unet).items():
            if name.endswith("to_out.0.weight"):
                torch.nn.init.normal_(value, std=0.5)
    return unet


def predict(unet, x, kind="sd1", control=SPARSE_CAUSAL, **cond):
    return nets.predict(unet, x, nets.condition(kind, dtype=DOUBLE, **cond), control)[0]


@pytest.mark.parametrize("kind", nets.KINDS)
def test_identity_at_install_and_taken_out_again(kind):
    x, image = nets.clip(1, F, dtype=DOUBLE), nets.tiny_unet(kind, dtype=DOUBLE)
    plain = predict(image, x, kind)
    unet = tuned(kind, awake=False, norm_scope="frame")
    assert torch.equal(predict(unet, x, kind), plain)
    one = x[:, :1]
    torch.testing.assert_close(predict(tuned(kind, awake=False), one, kind), predict(image, one, kind))
    assert torch.equal(predict(remove_temporal(tuned(kind)), x, kind), plain)
    assert remove_temporal(tuned(kind)).state_dict().keys() == image.state_dict().keys()


def test_a_random_bias_is_all_that_a_new_layer_adds():
    """The released code's start: the projection back is zero, and its bias is not."""
    x, plain = nets.clip(1, F, dtype=DOUBLE), nets.tiny_unet(dtype=DOUBLE)
    unet = tuned(awake=False, norm_scope="frame", bias="random")
    ends = {name: value for name, value in temporal_parameters(unet).items() if ".to_out.0." in name}
    assert all(bool((value == 0).all()) == name.endswith("weight") for name, value in ends.items())
    assert (predict(unet, x) - predict(plain, x)).abs().max() > 1e-3
    for value in ends.values():
        torch.nn.init.zeros_(value)
    torch.testing.assert_close(predict(unet, x), predict(plain, x))


def test_a_clip_that_stands_still_stays_still():
    x = nets.clip(1, 1, dtype=DOUBLE).expand(-1, F, -1, -1, -1)
    out = predict(tuned(), x)
    torch.testing.assert_close(out, out[:, :1].expand_as(out), rtol=1e-9, atol=1e-10)


def test_temporal_layers_act_and_their_dial_turns_them():
    unet, x = tuned(norm_scope="frame"), nets.clip(1, F, dtype=DOUBLE)
    plain = predict(nets.tiny_unet(dtype=DOUBLE), x)
    assert (predict(unet, x) - plain).abs().max() > 1e-3
    assert torch.equal(predict(unet, x, dials={"motion": Dial(0.0)}), plain)


@pytest.mark.parametrize(("frame", "reached"), [(0, [0, 1, 2, 3]), (2, [2, 3])])
def test_without_temporal_attention_nothing_looks_ahead(frame, reached):
    unet, x = tuned(awake=False, norm_scope="frame"), nets.clip(1, F, dtype=DOUBLE)
    y = x.clone()
    y[:, frame] += 1
    a, b = predict(unet, x), predict(unet, y)
    assert [i for i in range(F) if not torch.equal(a[:, i], b[:, i])] == reached


def test_every_frame_reaches_every_other_through_temporal_attention():
    unet, x = tuned(norm_scope="frame"), nets.clip(1, F, dtype=DOUBLE)
    y = x.clone()
    y[:, 3] += 1
    assert not torch.equal(predict(unet, x)[:, 0], predict(unet, y)[:, 0])


def test_checkpointing_changes_no_gradient():
    def gradients(checkpointing):
        unet = tuned()
        unet.set_checkpointing(checkpointing)
        predict(unet, nets.clip(1, F, dtype=DOUBLE)).square().sum().backward()
        return {name: value.grad for name, value in trainable(unet).items()}

    plain, less = gradients(False), gradients(True)
    assert plain.keys() == less.keys()
    for name, value in plain.items():
        torch.testing.assert_close(less[name], value)


def test_a_second_set_of_temporal_layers_is_refused():
    with pytest.raises(InputError, match="already"):
        add_temporal(tuned())
    with pytest.raises(InputError, match="already"):
        add_temporal(nets.tiny_video_unet())


def test_names_and_shapes_are_the_authors_at_full_size(manifests):
    with torch.device("meta"):
        unet = add_temporal(UNet(PRESETS["sd15"].unet))
    listed = manifests["tuneavideo_unet3d_sd14"]
    assert {name: list(value.shape) for name, value in tuned_state(unet).items()} == listed
    assert len(listed) == 798
    assert all(authors_name(our_name(name)) == name for name in listed)


def test_112_tensors_train_at_full_size():
    with torch.device("meta"):
        unet = add_temporal(UNet(PRESETS["sd15"].unet))
    chosen = [authors_name(name) for name in trainable(unet)]
    assert len(chosen) == 112
    ends = ("attn1.to_q.weight", "attn2.to_q.weight")
    temporal = [
        f"attn_temp.{end}" for end in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    ]
    for end in (*ends, *temporal):
        assert sum(name.endswith(end) for name in chosen) == 16
    assert round(sum(value.numel() for value in trainable(unet).values()) / 1e5) == 744  # 74.4 million
    with pytest.raises(InputError, match="to_x"):
        trainable(unet, ["attn1.to_x"])
