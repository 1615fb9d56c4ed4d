"""The UNet equals diffusers' in names, shapes, values and gradients; frames are independent of each other in it."""

import dataclasses

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from motion_modules.animatediff import add_motion, set_resnet_norm_scope
from tests import nets
from videogen.conditioning import Conditioning, Dial, stack
from videogen.control import Keep
from videogen.errors import InputError
from videogen.models.unet import UNet, UNetConfig

DOUBLE = torch.float64
CROSS_DOWN, CROSS_UP = ["CrossAttnDownBlock2D"], ["CrossAttnUpBlock2D"]
FOUR_LEVELS = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
    "down_block_types": [*CROSS_DOWN * 3, "DownBlock2D"], "up_block_types": ["UpBlock2D", *CROSS_UP * 3],
}  # fmt: skip
SIZES_BESIDE_TIME = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True}
# The released models' `unet/config.json`, as far as it says something about the network.
RELEASED = {
    "sd15": {**FOUR_LEVELS, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd21": {**FOUR_LEVELS, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
    "sdxl": {
        **FOUR_LEVELS, **SIZES_BESIDE_TIME, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "sample_size": 128,
        "down_block_types": ["DownBlock2D", *CROSS_DOWN * 2], "up_block_types": [*CROSS_UP * 2, "UpBlock2D"],
        "attention_head_dim": [5, 10, 20], "transformer_layers_per_block": [1, 2, 10], "projection_class_embeddings_input_dim": 2816,
    },
    "sdxl_refiner": {
        **FOUR_LEVELS, **SIZES_BESIDE_TIME, "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280, "sample_size": 128,
        "down_block_types": ["DownBlock2D", *CROSS_DOWN * 2, "DownBlock2D"], "up_block_types": ["UpBlock2D", *CROSS_UP * 2, "UpBlock2D"],
        "attention_head_dim": [6, 12, 24, 24], "transformer_layers_per_block": 4, "projection_class_embeddings_input_dim": 2560,
    },
}  # fmt: skip
TENSORS = {"sd15": 686, "sd21": 686, "sdxl": 1680}


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


@pytest.mark.parametrize("name", RELEASED)
def test_names_and_shapes_are_diffusers_for_every_released_model(name):
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**RELEASED[name])
        ours = UNet(UNetConfig.from_diffusers(RELEASED[name]))
    assert shapes(ours) == shapes(theirs)
    assert len(shapes(ours)) == TENSORS.get(name, len(shapes(theirs)))


@pytest.mark.parametrize("config", [*RELEASED.values(), *map(nets.diffusers_config, nets.KINDS)])
def test_a_config_survives_the_way_to_diffusers_and_back(config):
    ours = UNetConfig.from_diffusers(config)
    written = ours.to_diffusers()
    assert UNetConfig.from_diffusers(written) == ours
    with torch.device("meta"):
        assert shapes(UNet2DConditionModel.from_config(written)) == shapes(UNet2DConditionModel(**config))


def oracle(kind: str) -> tuple[UNet, UNet2DConditionModel]:
    """Our network and diffusers', of the same weights, in float64."""
    ours = nets.tiny_unet(kind, dtype=DOUBLE)
    theirs = UNet2DConditionModel(**nets.diffusers_config(kind)).to(DOUBLE).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def ask_frame_by_frame(net: UNet2DConditionModel, x, cond: Conditioning, t):
    """diffusers' network over a clip, its frames as a batch of pictures. t: b."""
    b, f = x.shape[:2]
    text = cond.tokens["text"]
    text = text.flatten(0, 1) if text.ndim == 4 else text.repeat_interleave(f, 0)
    added = None
    if cond.vector:
        added = {
            "text_embeds": cond.vector["text"].repeat_interleave(f, 0),
            "time_ids": cond.vector["size"].repeat_interleave(f, 0),
        }
    out = net(x.flatten(0, 1), t.repeat_interleave(f, 0), text, added_cond_kwargs=added).sample
    return out.unflatten(0, (b, f))


@pytest.mark.parametrize(("b", "f", "size"), [(1, 1, (8, 8)), (2, 3, (8, 12)), (2, 2, (5, 7))], ids=str)
@pytest.mark.parametrize("kind", nets.KINDS)
def test_output_and_every_gradient_equal_diffusers(kind, b, f, size):
    ours, theirs = oracle(kind)
    t, weight = torch.tensor([500.0, 37.0])[:b], nets.clip(b, f, size, seed=7, dtype=DOUBLE)
    results = []
    for net in (ours, theirs):
        x, cond = nets.clip(b, f, size, dtype=DOUBLE).requires_grad_(), nets.condition(kind, b, dtype=DOUBLE)
        given = [x, *(value.requires_grad_() for value in (*cond.tokens.values(), *cond.vector.values()))]
        out = net(x, t, cond.at(500.0, range(f)))[0] if net is ours else ask_frame_by_frame(net, x, cond, t)
        (out * weight).sum().backward()
        grads = {f"input {i}": value.grad for i, value in enumerate(given)}
        results.append((out.detach(), grads | {name: value.grad for name, value in net.named_parameters()}))
    (out, grads), (their_out, their_grads) = results
    torch.testing.assert_close(out, their_out)
    assert grads.keys() == their_grads.keys()
    for name, value in their_grads.items():
        torch.testing.assert_close(grads[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_float32_equals_diffusers_too():
    ours, theirs = oracle("sd1")
    ours, theirs = ours.float(), theirs.float()
    x, cond = nets.clip(2, 3), nets.condition(b=2)
    out = ours(x, torch.tensor([999.0, 1.0]), cond.at(0.0, range(3)))[0]
    torch.testing.assert_close(out, ask_frame_by_frame(theirs, x, cond, torch.tensor([999.0, 1.0])))


class ClipNorm(nn.GroupNorm):
    """GroupNorm over `b c f h w`, for a network that sees `(b f) c h w`."""

    frames = 1

    def forward(self, h):
        clip = h.unflatten(0, (-1, self.frames)).transpose(1, 2)
        return super().forward(clip).transpose(1, 2).flatten(0, 1)


def test_norms_over_the_clip_are_those_of_animatediff_v1():
    """Residual blocks and the last norm see the clip, spatial transformers a frame."""
    ours, theirs = oracle("sd1")
    set_resnet_norm_scope(ours, "clip")
    for name, norm in theirs.named_modules():
        if isinstance(norm, nn.GroupNorm) and ("resnets." in name or name == "conv_norm_out"):
            norm.__class__, norm.frames = ClipNorm, 3
    x, cond, t = nets.clip(2, 3, dtype=DOUBLE), nets.condition(b=2, dtype=DOUBLE), torch.tensor([500.0, 37.0])
    out = ours(x, t, cond.at(500.0, range(3)))[0]
    torch.testing.assert_close(out, ask_frame_by_frame(theirs, x, cond, t))
    configured = UNet(dataclasses.replace(ours.config, norm_scope="clip")).to(DOUBLE)
    configured.load_state_dict(ours.state_dict())
    assert torch.equal(configured(x, t, cond.at(500.0, range(3)))[0], out)


@pytest.mark.parametrize("kind", nets.KINDS)
def test_frames_are_independent_without_temporal_layers(kind):
    unet, order = nets.tiny_unet(kind, dtype=DOUBLE), [3, 0, 2, 1]
    x, cond = nets.clip(2, 4, dtype=DOUBLE), nets.condition(kind, 2, f=4, dtype=DOUBLE)
    out, _ = nets.predict(unet, x, cond)
    tokens = {"text": cond.tokens["text"][:, order]}
    permuted, _ = nets.predict(unet, x[:, order], cond.replace(tokens=tokens))
    torch.testing.assert_close(permuted, out[:, order])
    alone, _ = nets.predict(unet, x[:, 2:3], cond.replace(tokens={"text": cond.tokens["text"][:, 2:3]}))
    torch.testing.assert_close(alone, out[:, 2:3])


def test_text_by_frame_equals_one_call_per_frame_and_shared_text_is_the_same_text_for_all():
    unet, x = nets.tiny_unet(dtype=DOUBLE), nets.clip(2, 3, dtype=DOUBLE)
    travelling = nets.condition(b=2, f=3, dtype=DOUBLE)
    out, _ = nets.predict(unet, x, travelling)
    for i in range(3):
        alone, _ = nets.predict(unet, x[:, i : i + 1], Conditioning(tokens={"text": travelling.tokens["text"][:, i]}))
        torch.testing.assert_close(out[:, i : i + 1], alone)
    shared = nets.condition(b=2, dtype=DOUBLE)
    repeated = shared.replace(tokens={"text": shared.tokens["text"][:, None].repeat(1, 3, 1, 1)})
    for_all = shared.replace(tokens={"text": shared.tokens["text"][:, None]})
    plain = nets.predict(unet, x, shared)[0]
    torch.testing.assert_close(nets.predict(unet, x, repeated)[0], plain)
    assert torch.equal(nets.predict(unet, x, for_all)[0], plain)


def test_texts_of_one_head_are_joined_in_the_order_given():
    unet, x = nets.tiny_unet(dtype=DOUBLE), nets.clip(dtype=DOUBLE)
    a, b = (nets.condition(seed=seed, dtype=DOUBLE).tokens["text"] for seed in (3, 4))
    joined, _ = nets.predict(unet, x, Conditioning(tokens={"text": torch.cat([a, b], 1)}))
    assert torch.equal(nets.predict(unet, x, Conditioning(tokens={"text": a, "text.style": b}))[0], joined)
    mixed = [
        {"text": a, "text.style": b[:, None].repeat(1, 3, 1, 1)},
        {"text": a[:, None].repeat(1, 3, 1, 1), "text.style": b},
        {"text": a[:, None].repeat(1, 3, 1, 1), "text.style": b[:, None]},
    ]
    for tokens in mixed:
        torch.testing.assert_close(nets.predict(unet, x, Conditioning(tokens=tokens))[0], joined)


def dialled(unet, *dials, f=3, times=None, t=500.0, **fields):
    """What the network says with text and style, whose dial is given; without one, there is no style."""
    tokens = {"text": nets.condition(dtype=DOUBLE).tokens["text"]}
    if dials:
        tokens["text.style"] = nets.condition(seed=4, dtype=DOUBLE).tokens["text"][:, :3]
    cond = Conditioning(tokens=tokens, dials={"text.style": dials[0]} if dials and dials[0] else {}, **fields)
    return nets.given(unet, cond, times=times)(nets.clip(1, f, dtype=DOUBLE), t).out


def test_dials_on_an_entry_of_tokens_act_where_they_say_and_nowhere_else():
    """0 in the whole call is no entry and 1 is no dial, bit for bit; of rows, frames and steps each gets its own."""
    unet = nets.tiny_video_unet(dtype=DOUBLE)
    without, plain = dialled(unet), dialled(unet, None)
    assert (plain - without).abs().max() > 1e-3
    for dial in (Dial(0.0), Dial(frames=[0.0]), Dial(lambda t: t - 500)):
        assert torch.equal(dialled(unet, dial), without)
    for dial in (Dial(), Dial(frames=[1.0]), Dial(lambda t: t / 500)):
        assert torch.equal(dialled(unet, dial), plain)
    grid = [900.0, 500.0, 100.0]
    for t, same in zip(grid, (True, False, False)):
        out = dialled(unet, Dial(steps=(0.0, 0.3)), times=grid, t=t)
        assert torch.equal(out, dialled(unet, None, t=t)) == same
        assert torch.equal(out, dialled(unet, t=t)) != same
    masks = {0.0: without, 1.0: plain, 0.5: dialled(unet, Dial(0.5))}
    for value, same in masks.items():
        torch.testing.assert_close(dialled(unet, Dial(mask=torch.full((16, 16), value))), same)
        torch.testing.assert_close(dialled(unet, Dial(value, sites=lambda site: True)), same)
    torch.testing.assert_close(dialled(unet, Dial(sites=lambda site: False)), without)


def test_weights_by_frame_of_an_entry_are_those_of_the_frames_alone():
    unet = nets.tiny_unet(dtype=DOUBLE)
    by_frame = dialled(unet, Dial(frames=[0.0, 0.5, 1.0]))
    for i, weight in enumerate((0.0, 0.5, 1.0)):
        torch.testing.assert_close(by_frame[:, i], dialled(unet, Dial(weight))[:, i])


def test_a_row_that_lacks_an_entry_does_not_attend_to_its_zeros():
    unet, x = nets.tiny_video_unet(dtype=DOUBLE), nets.clip(1, 3, dtype=DOUBLE)
    base = nets.condition(dtype=DOUBLE)
    styled = base & Conditioning(tokens={"text.style": nets.condition(seed=4, dtype=DOUBLE).tokens["text"]})
    rows = {"uncond": base, "cond": styled, "half": styled.replace(dials={"text.style": Dial(0.5)})}
    for control in (None, nets.Maps()):
        pred = nets.given(unet, stack(**rows), control)(x, 500)
        for name, cond in rows.items():
            torch.testing.assert_close(pred[name].out, nets.given(unet, cond, control)(x, 500).out)


def test_text_without_weight_adds_nothing_at_all():
    """The text's own dial at 0 leaves out the layer, even beside a NaN; in between it fades."""
    unet, x, cond = nets.tiny_unet(dtype=DOUBLE), nets.clip(2, 3, dtype=DOUBLE), nets.condition(b=2, dtype=DOUBLE)
    silent = cond.replace(dials={"text": (Dial(0.0), Dial())})
    out, plain = nets.predict(unet, x, silent)[0], nets.predict(unet, x, cond)[0]
    torch.testing.assert_close(out[1], plain[1])
    spoilt = silent.replace(tokens={"text": cond.tokens["text"].clone()})
    spoilt.tokens["text"][0] = float("nan")
    assert torch.equal(nets.predict(unet, x, spoilt)[0], out)
    for name, value in unet.named_parameters():
        if ".attn2.to_out." in name:
            nn.init.zeros_(value)
    torch.testing.assert_close(nets.predict(unet, x, cond)[0][0], out[0])


def test_the_dial_of_an_entry_weighs_its_vector_too():
    unet, x, cond = nets.tiny_unet("sdxl", dtype=DOUBLE), nets.clip(dtype=DOUBLE), nets.condition("sdxl", dtype=DOUBLE)
    styled = cond & Conditioning(vector={"text.style": torch.ones(1, nets.POOLED, dtype=DOUBLE)})
    faded = styled.replace(dials={"text.style": Dial(frames=[0.0, 0.5, 1.0])})
    out = nets.predict(unet, x, faded)[0]
    for i, weight in enumerate((0.0, 0.5, 1.0)):
        vector = {**cond.vector, "text": cond.vector["text"] + weight}
        alone = nets.predict(unet, x[:, i : i + 1], cond.replace(vector=vector))[0]
        torch.testing.assert_close(out[:, i : i + 1], alone)


def test_vectors_of_one_head_are_added_and_may_differ_by_frame():
    unet, x, cond = nets.tiny_unet("sdxl", dtype=DOUBLE), nets.clip(dtype=DOUBLE), nets.condition("sdxl", dtype=DOUBLE)
    pooled, size = cond.vector["text"], cond.vector["size"]
    plain, _ = nets.predict(unet, x, cond)
    halves = {"text": 0.25 * pooled, "text.style": 0.75 * pooled, "size": size}
    torch.testing.assert_close(nets.predict(unet, x, cond.replace(vector=halves))[0], plain)
    framed = torch.stack([pooled, 2 * pooled, 3 * pooled], 1)
    by_frame, _ = nets.predict(unet, x, cond.replace(vector={"text": framed, "size": size}))
    for i in range(3):
        alone, _ = nets.predict(unet, x[:, i : i + 1], cond.replace(vector={"text": framed[:, i], "size": size}))
        torch.testing.assert_close(by_frame[:, i : i + 1], alone)


@pytest.mark.parametrize("motion", [False, True])
def test_checkpointing_changes_no_gradient_and_keeps_what_was_kept(motion):
    unet = nets.tiny_video_unet() if motion else nets.tiny_unet()
    keep = Keep(lambda site: site.kind in ("cross", "temporal"), lambda probs: probs.square().mean((1, 2, 3)))
    results = []
    for checkpointing in (False, True):
        unet.set_checkpointing(checkpointing)
        unet.zero_grad()
        x = nets.clip(2).requires_grad_()
        out, kept = nets.predict(unet, x, nets.condition(b=2), keep)
        before = dict(kept)
        (out.square().mean() + sum(value.sum() for value in kept.values())).backward()
        assert kept.keys() == before.keys()
        assert all(kept[name] is before[name] for name in before)
        results.append((x.grad, out, {name: value.grad for name, value in unet.named_parameters()}, kept))
    (x_grad, out, grads, kept), (x_grad2, out2, grads2, kept2) = results
    assert torch.equal(x_grad, x_grad2)
    assert torch.equal(out, out2)
    assert all(torch.equal(grads[name], grads2[name]) for name in grads)
    assert {"temporal" in name or "motion" in name for name in kept} == ({True, False} if motion else {False})
    assert all(torch.equal(kept[name], kept2[name]) for name in kept)


def test_half_precision_runs_and_gives_the_clip_its_own_dtype():
    unet, x, cond = nets.tiny_video_unet(), nets.clip(2), nets.condition(b=2)
    exact, _ = nets.predict(unet, x, cond)
    out, kept = nets.predict(unet.to(torch.bfloat16), x, cond, Keep(lambda site: True))
    assert out.dtype == torch.float32
    assert nets.predict(unet, x.bfloat16(), cond)[0].dtype == torch.bfloat16
    assert (out - exact).norm() < 0.05 * exact.norm()  # eight bits of mantissa through some fifty layers
    assert all(value.isfinite().all() for value in kept.values())


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_network_compiles_without_a_graph_break(backend):
    torch._dynamo.reset()
    levels = {"channels": (8, 8), "depths": (1, 0), "heads": (2, 2), "layers": 1, "groups": 4, "context": nets.CONTEXT}
    unet, x = UNet(UNetConfig(**levels)).eval(), nets.clip(2)
    nets.awaken(add_motion(unet, nets.motion_config(unet)))
    given = nets.condition(seed=4, dials={"motion": Dial(0.5, frames=[1.0, 0.0, 1.0])})
    style = Conditioning(tokens={"text.style": nets.condition(seed=5).tokens["text"]}, groups=torch.tensor([[0, 0, 1]]))
    cond = stack(uncond=nets.condition(), cond=given & style)
    compiled = torch.compile(unet, fullgraph=True, backend=backend)
    with torch.no_grad():
        out, plain = nets.predict(compiled, x, cond)[0], nets.predict(unet, x, cond)[0]
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


REFUSED = [
    ({"mid_block_type": None}, "mid_block_type"),
    ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift"),
    ({"resnet_out_scale_factor": 1.4}, "resnet_out_scale_factor"),
    ({"addition_embed_type": "image"}, "addition_embed_type"),
    ({"encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type"),
    ({"down_block_types": ["SimpleCrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"]}, "SimpleCrossAttnDownBlock2D"),
    ({"up_block_types": ["CrossAttnUpBlock2D"] * 3}, "encoder and decoder"),
    ({"transformer_layers_per_block": [[1, 2], 1, 1]}, "transformer_layers_per_block"),
    ({"layers_per_block": [1, 2, 2]}, "layers_per_block"),
]


@pytest.mark.parametrize(("change", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_another_network_is_refused_by_name(change, named):
    with pytest.raises(InputError, match=named):
        UNetConfig.from_diffusers({**nets.diffusers_config("sd1"), **change})


UNFIT = [
    ("sd1", {"tokens": {"text": torch.zeros(1, 5, 12), "image": torch.zeros(1, 4, 12)}}, r"tokens 'image'.*takes text$"),
    ("sd1", {"tokens": {"text": torch.zeros(1, 5, 12)}, "vector": {"size": torch.zeros(1, 6)}}, "vector 'size'.*none"),
    ("sd1", {"tokens": {"text": torch.zeros(1, 5, 12)}, "concat": {"mask": torch.zeros(1, 3, 1, 8, 8)}}, "concat 'mask'"),
    ("sd1", {"tokens": {"text": torch.zeros(1, 5, 12)}, "hints": {"canny": torch.zeros(1, 3, 3, 64, 64)}}, "hints 'canny'"),
    ("sd1", {}, "needs text"),
    ("sd1", {"tokens": {"text": torch.zeros(1, 5, 12)}, "dials": {"txet": Dial()}}, "nothing called 'txet'.*there is text$"),
    ("sd1", {"tokens": {"text": torch.zeros(1, 5, 12)}, "dials": {"motion": Dial()}}, "nothing called 'motion'"),
    ("sd1", {"tokens": {"text": torch.zeros(1, 5, 16)}}, "16 wide.*12"),
    ("sdxl", {"tokens": {"text": torch.zeros(1, 5, 12)}}, "needs the vector 'text'"),
    ("sdxl", {"tokens": {"text": torch.zeros(1, 5, 12)}, "vector": {"text": torch.zeros(1, 10)}}, "needs the vector 'size'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "ports", "named"), UNFIT, ids=[named for _, _, named in UNFIT])
def test_a_condition_that_does_not_fit_is_refused_before_anything_runs(kind, ports, named):
    with pytest.raises(InputError, match=named):
        nets.given(nets.tiny_unet(kind), Conditioning(**ports))


def test_every_site_has_one_address():
    unet = nets.tiny_video_unet(mid=True)
    seen: dict[str, list[str]] = {}

    class Recorder(nets.Maps):
        def maps(self, site, probs, p):
            seen.setdefault("maps", []).append(site.place)
            return probs

    nets.predict(unet, nets.clip(), nets.condition(), Recorder())
    assert len(set(seen["maps"])) == len(seen["maps"])
    assert set(seen["maps"]) <= {name for name, _ in unet.named_modules()}
