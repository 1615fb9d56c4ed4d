"""AnimateDiff's modules equal diffusers', start as the identity, and do what dials and groups say, and nothing else."""

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn

from motion_modules.animatediff import (
    MotionConfig,
    TemporalBlock,
    add_motion,
    motion_parameters,
    motion_state,
    near_in_time,
    remove_motion,
)
from tests import nets
from videogen.conditioning import Conditioning, Dial, stack
from videogen.control import Control
from videogen.errors import InputError
from videogen.models.unet import UNet, UNetConfig
from videogen.windows import Windows

DOUBLE = torch.float64


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


RELEASED = {  # tensors, position tables counted once a module
    "v1": ({"mid": False, "positions": 24}, 540),
    "v2": ({"mid": True, "positions": 32}, 567),
    "v3": ({"mid": False, "positions": 32}, 540),
    "sdxl": ({"mid": False, "positions": 32, "channels": (320, 640, 1280)}, 405),
}


@pytest.mark.parametrize("family", RELEASED)
def test_names_and_shapes_are_diffusers_motion_adapter(family):
    settings, tensors = RELEASED[family]
    config = MotionConfig(**settings)
    with torch.device("meta"):
        unet = UNet(
            UNetConfig(channels=config.channels, depths=(0,) * len(config.channels), heads=(8,) * len(config.channels))
        )
        add_motion(unet, config)
        theirs = MotionAdapter.from_config(config.to_diffusers())
    assert shapes(motion_state(unet)) == shapes(theirs.state_dict())
    assert len(motion_state(unet)) == tensors
    assert MotionConfig.from_diffusers(config.to_diffusers()) == config
    assert MotionConfig.from_diffusers(dict(theirs.config)).positions == config.positions


def oracle(kind: str, **changes) -> tuple[UNet, UNetMotionModel]:
    """Our network with motion modules and diffusers', of the same weights, in float64."""
    ours = nets.tiny_video_unet(kind, DOUBLE, **changes)
    adapter = MotionAdapter.from_config(nets.motion_config(ours, **changes).to_diffusers())
    theirs = UNetMotionModel.from_unet2d(UNet2DConditionModel(**nets.diffusers_config(kind)), adapter).to(DOUBLE).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def ask(net: UNetMotionModel, x, cond: Conditioning):
    added = {"text_embeds": cond.vector["text"], "time_ids": cond.vector["size"]} if cond.vector else None
    text = cond.tokens["text"].repeat_interleave(x.shape[1], 0)  # diffusers leaves it to the caller
    out = net(x.transpose(1, 2), 500.0, text, added_cond_kwargs=added).sample
    return out.transpose(1, 2)


@pytest.mark.parametrize(
    ("kind", "mid", "b", "f"), [("sd1", True, 2, 3), ("sd2", False, 2, 4), ("sd1", False, 1, 1), ("sdxl", False, 2, 3)]
)
def test_output_and_every_gradient_equal_diffusers_with_norms_over_the_clip(kind, mid, b, f):
    results, weight = [], nets.clip(b, f, (8, 6), seed=7, dtype=DOUBLE)
    ours, theirs = oracle(kind, mid=mid, norm_scope="clip")
    for net in (ours, theirs):
        x, cond = nets.clip(b, f, (8, 6), dtype=DOUBLE).requires_grad_(), nets.condition(kind, b, dtype=DOUBLE)
        text = cond.tokens["text"].requires_grad_()
        out = nets.predict(net, x, cond)[0] if net is ours else ask(net, x, cond)
        (out * weight).sum().backward()
        grads = {"x": x.grad, "text": text.grad} | {name: value.grad for name, value in net.named_parameters()}
        results.append((out.detach(), grads))
    (out, grads), (their_out, their_grads) = results
    torch.testing.assert_close(out, their_out)
    assert grads.keys() == their_grads.keys()
    for name, value in their_grads.items():
        torch.testing.assert_close(grads[name], value, msg=lambda text, name=name: f"{name}: {text}")


class FrameNorm(nn.GroupNorm):
    """GroupNorm of `b c f h w` for each frame by itself."""

    def forward(self, h):
        return torch.stack([super(FrameNorm, self).forward(frame) for frame in h.unbind(2)], 2)


def test_norms_by_frame_are_those_of_the_authors_stable_diffusion_15_code():
    ours, theirs = oracle("sd1", mid=True, norm_scope="frame")
    for name, norm in theirs.named_modules():
        if isinstance(norm, nn.GroupNorm) and "motion_modules." in name:
            norm.__class__ = FrameNorm
    x, cond = nets.clip(2, 3, dtype=DOUBLE), nets.condition(b=2, dtype=DOUBLE)
    torch.testing.assert_close(nets.predict(ours, x, cond)[0], ask(theirs, x, cond))


@pytest.mark.parametrize("f", [1, 4])
@pytest.mark.parametrize("norm_scope", ["frame", "clip"])
@pytest.mark.parametrize("kind", nets.KINDS)
def test_installing_is_the_identity_and_removing_brings_back_the_network(kind, norm_scope, f):
    unet, x, cond = nets.tiny_unet(kind), nets.clip(2, f), nets.condition(kind, 2)
    base, before = nets.predict(unet, x, cond)[0], {name: value.clone() for name, value in unet.state_dict().items()}
    add_motion(unet, nets.motion_config(unet, norm_scope=norm_scope, mid=True))
    assert len(motion_parameters(unet)) > 0
    assert torch.equal(nets.predict(unet, x, cond)[0], base)
    nets.awaken(unet)
    assert not torch.equal(nets.predict(unet, x, cond)[0], base)
    remove_motion(unet)
    after = unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(nets.predict(unet, x, cond)[0], base)


def test_at_install_a_clip_is_its_pictures():
    """And, norms over the clip, it is not: AnimateDiff v1's residual blocks see the whole clip."""
    unet, x, cond = nets.tiny_unet(dtype=DOUBLE), nets.clip(1, 4, dtype=DOUBLE), nets.condition(dtype=DOUBLE)
    pictures = torch.cat([nets.predict(unet, x[:, i : i + 1], cond)[0] for i in range(4)], 1)
    add_motion(unet, nets.motion_config(unet, norm_scope="frame"))
    torch.testing.assert_close(nets.predict(unet, x, cond)[0], pictures)
    remove_motion(unet)
    add_motion(unet, nets.motion_config(unet, norm_scope="frame", resnet_norm_scope="clip"))
    assert (nets.predict(unet, x, cond)[0] - pictures).abs().max() > 1e-3
    torch.testing.assert_close(nets.predict(unet, x[:, :1], cond)[0], pictures[:, :1])
    remove_motion(unet)
    torch.testing.assert_close(nets.predict(unet, x, cond)[0], pictures)


def test_one_frame_with_motion_off_is_the_image_model():
    unet, cond = nets.tiny_unet(), nets.condition(b=2)
    x = nets.clip(2, 1)
    base, _ = nets.predict(unet, x, cond)
    nets.awaken(add_motion(unet, nets.motion_config(unet, mid=True)))
    assert torch.equal(nets.predict(unet, x, cond.replace(dials={"motion": Dial(0.0)}))[0], base)


def test_only_positions_tell_equal_frames_apart():
    unet = nets.tiny_video_unet(mid=True, dtype=DOUBLE)
    still, cond = nets.clip(1, 1, dtype=DOUBLE).repeat(1, 4, 1, 1, 1), nets.condition(dtype=DOUBLE)
    out, _ = nets.predict(unet, still, cond)
    assert ((out[:, 1:] - out[:, :1]).abs().amax((2, 3, 4)) > 1e-3).all()
    for name, table in unet.named_buffers():
        assert name.endswith("pos_embed.pe")
        table.zero_()
    out, _ = nets.predict(unet, still, cond)
    torch.testing.assert_close(out, out[:, :1].expand_as(out), rtol=0, atol=1e-12)


# Dials


def prediction(dial, *, f=4, control=None, x=None, **net):
    unet = nets.tiny_video_unet(mid=True, **net)
    x = nets.clip(2, f) if x is None else x
    return nets.predict(unet, x, nets.condition(b=2, dials={} if dial is None else {"motion": dial}), control)[0]


def base(f=4):
    return nets.predict(nets.tiny_unet(), nets.clip(2, f), nets.condition(b=2))[0]


def test_dial_0_is_the_base_and_1_is_no_dial():
    assert torch.equal(prediction(Dial(0.0)), base())
    assert torch.equal(prediction(Dial(1.0)), prediction(None))
    assert torch.equal(prediction(Dial(frames=[1.0])), prediction(None))
    assert torch.equal(prediction(Dial(mask=torch.ones(16, 16))), prediction(None))
    assert torch.equal(prediction(Dial(sites=lambda site: True)), prediction(None))


OFF = {
    "everywhere": Dial(0.0),
    "on every frame": Dial(frames=[0.0]),
    "in the whole picture": Dial(mask=torch.zeros(64, 64)),
    "at every site": Dial(sites=lambda site: False),
}


@pytest.mark.parametrize("dial", OFF.values(), ids=OFF)
def test_a_part_that_is_off_leaves_the_base_even_where_it_says_nan(dial):
    unet, x = nets.tiny_video_unet(mid=True), nets.clip(2, 4)
    for value in motion_parameters(unet).values():
        nn.init.constant_(value, float("nan"))
    assert torch.equal(nets.predict(unet, x, nets.condition(b=2, dials={"motion": dial}))[0], base())


def test_rows_have_their_own_dials():
    out = prediction((Dial(0.0), None))
    assert torch.equal(out[0], base()[0])
    assert torch.equal(out[1], prediction(None)[1])
    unet, x, cond = nets.tiny_video_unet(mid=True), nets.clip(1, 4), nets.condition()
    image, video = cond.replace(dials={"motion": Dial(0.0)}), cond
    out, _ = nets.predict(unet, x.repeat(2, 1, 1, 1, 1), stack(image=image, video=video))
    alone = [nets.predict(unet, x, side)[0] for side in (image, video)]
    torch.testing.assert_close(out, torch.cat(alone))


class Recorder(Control):
    """What the motion modules added, by place: the activations after them beside those before."""

    def __init__(self):
        self.after, self.last = {}, None

    def features(self, site, h, p):
        if site.kind == "temporal" and ".transformer_blocks" not in site.place:
            self.after[site.place] = (self.last, h)
        if site.kind in ("residual", "transformer"):
            self.last = h
        return h


FIRST = "down_blocks.0.motion_modules.0"


def added(dial, place=FIRST, f=4):
    """h before and after one motion module, `b f c h w`."""
    recorder = Recorder()
    prediction(dial, f=f, control=recorder)
    return recorder.after[place]


def test_scale_multiplies_what_a_module_adds():
    before, whole = added(None)
    same, half = added(Dial(0.5))
    assert torch.equal(before, same)
    torch.testing.assert_close(half - before, 0.5 * (whole - before))
    assert torch.equal(added(Dial(lambda t: 0.001 * t))[1], half)  # asked at t = 500


@pytest.mark.parametrize("frames", [[1.0, 0.0, 0.5, 0.0], {0: 1.0, 1: 0.0, 2: 0.5, 3: 0.0}], ids=["list", "keys"])
def test_frames_weigh_frames_and_no_others(frames):
    before, whole = added(None)
    _, after = added(Dial(frames=frames))
    assert torch.equal(after[:, 0], whole[:, 0])
    assert torch.equal(after[:, [1, 3]], before[:, [1, 3]])
    torch.testing.assert_close(after[:, 2] - before[:, 2], 0.5 * (whole - before)[:, 2])


def test_a_mask_weighs_places_and_no_others():
    left = torch.zeros(16, 16)
    left[:, :8] = 1
    before, whole = added(None)
    _, after = added(Dial(mask=left))
    assert torch.equal(after[..., :4], whole[..., :4])
    assert torch.equal(after[..., 4:], before[..., 4:])
    moving = torch.stack([left, 1 - left, torch.zeros(16, 16)])  # the last picture is held
    _, after = added(Dial(mask=moving))
    assert torch.equal(after[:, 1, ..., 4:], whole[:, 1, ..., 4:])
    assert torch.equal(after[:, 1, ..., :4], before[:, 1, ..., :4])
    assert torch.equal(after[:, 2:], before[:, 2:])


def test_sites_choose_modules():
    recorder = Recorder()
    prediction(Dial(sites=lambda site: site.part == "up"), control=recorder)
    changed = {place for place, (before, after) in recorder.after.items() if not torch.equal(before, after)}
    assert changed == {place for place in recorder.after if place.startswith("up_blocks")}
    assert len(changed) == 9


def test_steps_choose_the_part_of_the_grid():
    unet, x, grid = nets.tiny_video_unet(mid=True), nets.clip(2, 4), [900.0, 600.0, 300.0, 0.0]
    dialled = nets.given(unet, nets.condition(b=2, dials={"motion": Dial(steps=(0.25, 0.75))}), times=grid)
    on, off = nets.given(unet, nets.condition(b=2)), nets.given(nets.tiny_unet(), nets.condition(b=2))
    for t, same in zip(grid, (off, on, on, off)):
        assert torch.equal(dialled(x, t).out, same(x, t).out)


def test_weights_follow_the_ids_of_frames():
    unet, x = nets.tiny_video_unet(mid=True), nets.clip(1, 3)
    ask = nets.given(unet, nets.condition(dials={"motion": Dial(frames=[0, 0, 0, 0, 1.0, 0.5, 0.25])}))
    direct = nets.given(unet, nets.condition(dials={"motion": Dial(frames=[1.0, 0.5, 0.25])}))
    assert torch.equal(ask(x, 500, frames=(4, 5, 6)).out, direct(x, 500).out)


# Groups and windows


@pytest.mark.parametrize("norm_scope", ["frame", "clip"])
def test_pictures_packed_beside_a_clip_know_nothing_of_it(norm_scope):
    """Three frames of a clip and two pictures; residual blocks, modules and positions all stay inside a group."""
    unet = nets.tiny_video_unet(mid=True, dtype=DOUBLE, norm_scope=norm_scope, resnet_norm_scope="clip")
    x, groups = nets.clip(2, 5, dtype=DOUBLE), torch.tensor([[0, 0, 1, 0, 2], [5, 7, 7, 7, 6]])
    cond = nets.condition(b=2, dtype=DOUBLE, groups=groups)
    out, _ = nets.predict(unet, x, cond)
    for row in range(2):
        text = Conditioning(tokens={"text": cond.tokens["text"][row : row + 1]})
        for group in groups[row].unique():
            frames = (groups[row] == group).nonzero()[:, 0]
            alone, _ = nets.predict(unet, x[row : row + 1, frames], text)
            torch.testing.assert_close(out[row : row + 1, frames], alone)
    changed = x.clone()
    changed[0, 4] += 1
    again, _ = nets.predict(unet, changed, cond)
    assert torch.equal(again[0, :4], out[0, :4])
    assert not torch.equal(again[0, 4], out[0, 4])
    one_group = cond.replace(groups=torch.full((2, 5), 3))
    torch.testing.assert_close(nets.predict(unet, x, one_group)[0], nets.predict(unet, x, cond.replace(groups=None))[0])


def test_a_frame_alone_runs_through_the_modules_or_skips_them():
    """Which of the two is the family's; skipped, it is the image model's, and the others do not notice."""
    run, skip = (nets.tiny_video_unet(mid=True, dtype=DOUBLE, alone=alone) for alone in ("run", "skip"))
    image = nets.tiny_unet(dtype=DOUBLE)
    x, cond = nets.clip(2, 4, dtype=DOUBLE), nets.condition(b=2, dtype=DOUBLE)
    packed = cond.replace(groups=torch.tensor([[0, 1, 0, 2], [0, 0, 0, 0]]))
    (ran, _), (skipped, _), (pictures, _) = (nets.predict(unet, x, packed) for unet in (run, skip, image))
    torch.testing.assert_close(skipped[0, [1, 3]], pictures[0, [1, 3]])
    torch.testing.assert_close(skipped[0, [0, 2]], ran[0, [0, 2]])
    torch.testing.assert_close(skipped[1], ran[1])
    assert ((skipped - ran)[0, [1, 3]].abs().amax((1, 2, 3)) > 1e-3).all()
    still = x[:, :1]
    assert torch.equal(nets.predict(skip, still, cond)[0], nets.predict(image, still, cond)[0])
    assert torch.equal(nets.predict(skip, x, cond)[0], nets.predict(run, x, cond)[0])
    assert MotionConfig.from_diffusers(nets.motion_config(image, alone="skip").to_diffusers()).alone == "skip"


def test_groups_have_gradients():
    unet = nets.tiny_video_unet(dtype=DOUBLE, resnet_norm_scope="clip")
    x, w = nets.clip(1, 3, dtype=DOUBLE).requires_grad_(), nets.clip(1, 3, seed=9, dtype=DOUBLE)
    cond = nets.condition(dtype=DOUBLE, groups=torch.tensor([[0, 1, 0]]))
    (packed,) = torch.autograd.grad((nets.predict(unet, x, cond)[0] * w).sum(), x)
    for frames in ([0, 2], [1]):
        part = x.detach()[:, frames].requires_grad_()
        (alone,) = torch.autograd.grad(
            (nets.predict(unet, part, cond.replace(groups=None))[0] * w[:, frames]).sum(), part
        )
        torch.testing.assert_close(packed[:, frames], alone)


def test_a_control_sees_the_same_groups():
    unet, x = nets.tiny_video_unet(dtype=DOUBLE), nets.clip(2, 4, dtype=DOUBLE)
    cond = nets.condition(b=2, dtype=DOUBLE, groups=torch.tensor([[0, 0, 1, 1], [0, 1, 2, 0]]))
    plain, _ = nets.predict(unet, x, cond)
    for control in (Control(), nets.Maps()):
        torch.testing.assert_close(nets.predict(unet, x, cond, control)[0], plain, rtol=1e-9, atol=1e-9)


def test_pieces_inside_one_call_are_the_weighted_mean_of_their_own_calls():
    """FreeNoise: at the temporal block, each frame gets the mean of what the windows that hold it say."""
    block = nets.tiny_video_unet(dtype=DOUBLE).down_blocks[0].motion_modules[0].transformer_blocks[0]
    h, windows = torch.randn(5, 6, 8, dtype=DOUBLE), Windows(length=3, overlap=1, weights="pyramid")
    out = block._attended(h[:3], nets.one_pass(f=3)), block._attended(h[2:], nets.one_pass(f=3))
    # Two windows, weights 1 2 1, that share the middle frame.
    mean = torch.cat([out[0][:2], (out[0][2:] + out[1][:1]) / 2, out[1][1:]])
    expected = mean + block.ff(block.norm3(mean), nets.one_pass(f=5))
    spans = tuple(windows.cut(range(5)))
    torch.testing.assert_close(block(h, nets.one_pass(f=5, spans=spans)), expected)
    one = tuple(Windows(length=5, overlap=1).cut(range(5)))
    assert torch.equal(block(h, nets.one_pass(f=5, spans=one)), block(h, nets.one_pass(f=5)))


# Errors


def test_wrong_modules_are_refused_and_leave_the_network_as_it_was():
    unet = nets.tiny_unet()
    for changes, named in (({"channels": (8, 16)}, "widths"), ({"layers": 1}, "layers")):
        with pytest.raises(InputError, match=named):
            add_motion(unet, nets.motion_config(unet, **changes))
        assert not motion_parameters(unet)
    add_motion(unet, nets.motion_config(unet))
    with pytest.raises(InputError, match="already"):
        add_motion(unet, nets.motion_config(unet))


def test_more_frames_than_positions_are_refused():
    unet = nets.tiny_video_unet(positions=4)
    assert nets.predict(unet, nets.clip(1, 4), nets.condition())[0].isfinite().all()
    with pytest.raises(InputError, match=r"positions for 4 frames, the call has 5.*windows"):
        nets.predict(unet, nets.clip(1, 5), nets.condition())


@pytest.mark.parametrize(
    "change",
    [
        {"motion_transformer_layers_per_block": 2},
        {"motion_transformer_layers_per_block": [1, 1, 2]},
        {"conv_in_channels": 9},
    ],
)
def test_adapters_of_other_topologies_are_refused_by_name(change):
    with pytest.raises(InputError, match="motion adapter"):
        MotionConfig.from_diffusers({**MotionConfig().to_diffusers(), **change})


def test_fresh_modules_attend_most_to_their_own_frame_and_less_the_farther_one_is() -> None:
    unet = UNet(UNetConfig(channels=(64, 64), depths=(1, 0), heads=(2, 2), context=8, layers=1, groups=4))
    add_motion(unet, MotionConfig(channels=(64, 64), layers=1, heads=2, groups=4))
    near_in_time(unet, 1.4)
    block = next(module for module in unet.modules() if isinstance(module, TemporalBlock))
    for layer in (block.attn1, block.attn2):
        places = block.pos_embed.pe[0, :16]
        queries, keys = layer.to_q.weight @ places.T, layer.to_k.weight @ places.T
        first_head = (queries[:32].T @ keys[:32] / 32**0.5).softmax(-1).detach()
        assert first_head.argmax(-1).tolist() == list(range(16))
        near, far = first_head.diagonal(1).mean(), first_head.diagonal(8).mean()
        assert first_head.diagonal().mean() > near > 4 * far
        # The last head knows little of places: it sees all frames.
        last_head = (queries[32:].T @ keys[32:] / 32**0.5).softmax(-1)
        assert last_head.min() > 0.2 / 16
