"""Attention over folded views equals its definition, whatever way it takes."""

import dataclasses

import pytest
import torch

from tests.nets import PLACE, Maps, one_pass
from videogen import attention
from videogen.attention import attend, attend_controlled, spatial, temporal, weighed
from videogen.conditioning import Conditioning, Dial
from videogen.control import Control
from videogen.errors import InputError

HEADS, D = 2, 3


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def defined(q, k, v, allowed=None):
    """softmax(q k^T / sqrt(d)) v over the last two axes."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("g", [3, 1])
def test_attend_is_its_definition_with_keys_by_frame_or_of_the_clip(g):
    q, k, v = draw(2, 3, HEADS, 5, D), draw(2, g, HEADS, 4, D, seed=1), draw(2, g, HEADS, 4, D, seed=2)
    out = attend(q, k, v)
    assert out.shape == (2, 3, 5, HEADS, D)
    torch.testing.assert_close(out, defined(q, k, v).transpose(2, 3))


def test_keys_shared_by_the_clip_equal_keys_repeated_for_every_frame():
    p, q = one_pass(2, 3), draw(6, 5, HEADS * D)
    k, v = draw(2, 4, HEADS * D, seed=1), draw(2, 4, HEADS * D, seed=2)
    repeated = (x.repeat_interleave(3, 0) for x in (k, v))
    torch.testing.assert_close(spatial(q, k, v, HEADS, PLACE, p), spatial(q, *repeated, HEADS, PLACE, p))


def split(x, b, f):
    """`(b f) n (heads d)` -> `b n heads f d`."""
    return x.reshape(b, f, x.shape[1], HEADS, -1).permute(0, 2, 3, 1, 4)


GROUPS = torch.tensor([[0, 1, 0, 1], [2, 2, 2, 5]])


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "groups"])
@pytest.mark.parametrize("control", [None, Control(), Maps()], ids=["plain", "neutral", "maps"])
def test_temporal_attention_is_its_definition_along_the_frames_of_a_group(control, groups):
    q, k, v = (draw(8, 5, HEADS * D, seed=seed) for seed in range(3))
    p = one_pass(2, 4, groups=groups, control=control)
    allowed = None if groups is None else (groups[:, :, None] == groups[:, None])[:, None, None]
    expected = defined(*(split(x, 2, 4) for x in (q, k, v)), allowed)
    out = temporal(q, k, v, HEADS, PLACE, p)
    assert out.shape == q.shape
    torch.testing.assert_close(split(out, 2, 4), expected)


def test_a_frame_alone_attends_to_itself():
    q, k, v = (draw(4, 5, HEADS * D, seed=seed) for seed in range(3))
    torch.testing.assert_close(temporal(q, k, v, HEADS, PLACE, one_pass(4, 1)), v)
    alone = torch.arange(4)[None]
    torch.testing.assert_close(temporal(q, k, v, HEADS, PLACE, one_pass(1, 4, groups=alone)), v)


def test_temporal_attention_follows_a_permutation_of_the_frames():
    q, k, v = (draw(4, 5, HEADS * D, seed=seed) for seed in range(3))
    order, p = [2, 0, 3, 1], one_pass(1, 4)
    out = temporal(q, k, v, HEADS, PLACE, p)
    torch.testing.assert_close(temporal(q[order], k[order], v[order], HEADS, PLACE, p), out[order])


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["all", "groups"])
@pytest.mark.parametrize("control", [None, Control()], ids=["plain", "neutral"])
def test_pieces_for_the_gpu_change_nothing_and_none_is_too_long(monkeypatch, control, groups):
    """A control has places among the clips, plain attention has them among the heads: neither axis may exceed the grid."""
    q, k, v = (draw(8, 5, HEADS * D, seed=seed) for seed in range(3))
    p = one_pass(2, 4, groups=groups, control=control)
    whole = temporal(q, k, v, HEADS, PLACE, p)
    longest, kernel = [], attention.F.scaled_dot_product_attention

    def seen(q, k, v, mask=None):
        longest.append(max(q.shape[:2]))
        return kernel(q, k, v, mask)

    monkeypatch.setattr(attention, "MOST_HEADS", 3)
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", seen)
    torch.testing.assert_close(temporal(q, k, v, HEADS, PLACE, p), whole)
    assert len(longest) > 1
    assert max(longest) <= 3


@pytest.mark.parametrize("g", [3, 1])
def test_the_fused_way_equals_maps_made_and_applied_in_float32(g):
    q, k, v = (
        x.float() for x in (draw(6, 5, HEADS * D), draw(2 * g, 4, HEADS * D, seed=1), draw(2 * g, 4, HEADS * D, seed=2))
    )
    fused, made = (spatial(q, k, v, HEADS, PLACE, one_pass(2, 3, control=control)) for control in (Control(), Maps()))
    assert torch.equal(fused, spatial(q, k, v, HEADS, PLACE, one_pass(2, 3)))
    torch.testing.assert_close(made, fused, rtol=0, atol=1e-6)


class Uniform(Maps):
    """Every key gets the same share."""

    def maps(self, site, probs, p):
        torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs[..., 0]))
        return torch.full_like(probs, 1 / probs.shape[-1])


def test_maps_decide_how_much_is_attended():
    q, k, v = draw(6, 5, HEADS * D), draw(6, 4, HEADS * D, seed=1), draw(6, 4, HEADS * D, seed=2)
    out = spatial(q, k, v, HEADS, PLACE, one_pass(2, 3, control=Uniform()))
    torch.testing.assert_close(out, v.mean(1, keepdim=True).expand_as(out))


class FirstFrame(Control):
    """Every frame attends over the first frame's keys and values."""

    def qkv(self, site, q, k, v, p):
        return q, k[:, :1], v[:, :1]


@pytest.mark.parametrize("control", [FirstFrame(), FirstFrame() >> Maps()], ids=["fused", "maps"])
def test_qkv_decides_what_is_attended(control):
    q, k, v = (draw(6, 5, HEADS * D, seed=seed) for seed in range(3))
    p = one_pass(2, 3, control=control)
    out = spatial(q, k, v, HEADS, PLACE, p)
    first = (x.unflatten(0, (2, 3))[:, 0].repeat_interleave(3, 0) for x in (k, v))
    torch.testing.assert_close(out, spatial(q, *first, HEADS, PLACE, dataclasses.replace(p, control=None)))
    later = k.clone()
    later.unflatten(0, (2, 3))[:, 1:] += 1
    assert torch.equal(spatial(q, later, v, HEADS, PLACE, p), out)


def test_a_mask_reaches_keys_shared_by_all_places():
    """Temporal keys that a control made one for all places of the picture still stay in their group."""
    q, k, v = draw(1, 5, HEADS, 4, D), draw(1, 1, HEADS, 4, D, seed=1), draw(1, 1, HEADS, 4, D, seed=2)
    allowed = (GROUPS[:1, :, None] == GROUPS[:1, None])[:, None, None]
    expected = defined(q, k, v, allowed).transpose(2, 3)
    for control in (Control(), Maps()):
        torch.testing.assert_close(
            attend_controlled(q, k, v, PLACE, one_pass(1, 4, control=control), allowed), expected
        )


# Weights of entries

ENTRIES = (("text", 3), ("text.style", 2))
SIZE = (2, 4)


def told(*, b=2, control=None, **dials):
    """A pass of three frames with two entries of text, and its dials resolved."""
    strengths = Conditioning(dials=dials, rows=(frozenset(),) * b).at(500.0, range(3)).strengths
    named = {name.replace("_", "."): strength for name, strength in strengths.items()}
    return one_pass(b, 3, strengths=named, entries={"text": ENTRIES}, sizes={0: SIZE}, control=control)


def over_entries(p, g=1, seed=0):
    """Attention over the joined entries of text, and the queries, keys and values it was given."""
    q, k, v = draw(6, 8, HEADS * D, seed=seed), draw(2 * g, 5, HEADS * D, seed=1), draw(2 * g, 5, HEADS * D, seed=2)
    bias, amount = weighed("text", PLACE, q, p) or (None, None)
    out = spatial(q, k, v, HEADS, PLACE, p, bias)
    return (out if amount is None else amount * out), (q, k, v)


def by_definition(q, k, v, weights):
    """sum_j w_j e^(s_j) v_j / sum_j w_j e^(s_j) for weights `(b f) n m`, heads apart."""
    q, k, v = (x.unflatten(-1, (HEADS, D)).transpose(1, 2) for x in (q, k, v))
    scores = (q @ k.transpose(-1, -2) / D**0.5).exp() * weights[:, None]
    return (scores / scores.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2)


WEIGHED = {
    "scale": Dial(0.25),
    "more": Dial(3.0),
    "frames": Dial(frames=[1.0, 0.5, 0.0]),
    "rows": (Dial(0.0), Dial(0.5)),
    "a row without": (None, Dial(0.5)),
    "mask": Dial(mask=torch.tensor([[0.0, 1.0, 0.5, 1.0], [1.0, 0.25, 0.0, 0.0]])),
    "mask by frame": Dial(0.5, mask=torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(3))),
}


@pytest.mark.parametrize("g", [3, 1])
@pytest.mark.parametrize("control", [None, Control(), Maps()], ids=["plain", "neutral", "maps"])
@pytest.mark.parametrize("dial", WEIGHED.values(), ids=WEIGHED)
def test_a_weight_multiplies_the_share_of_an_entry(dial, control, g):
    p = told(text_style=dial, control=control)
    out, (q, k, v) = over_entries(p, g)
    style = p.weight("text.style", PLACE, q).expand(-1, 8, 2)
    weights = torch.cat([torch.ones(6, 8, 3, dtype=torch.float64), style], -1)
    k, v = (x.repeat_interleave(6 // len(x), 0) for x in (k, v))
    torch.testing.assert_close(out, by_definition(q, k, v, weights), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("control", [None, Maps()], ids=["plain", "maps"])
def test_0_is_an_entry_that_is_not_there_and_2_is_one_that_is_there_twice(control):
    out, (q, k, v) = over_entries(told(text_style=Dial(0.0), control=control))
    torch.testing.assert_close(out, spatial(q, k[:, :3], v[:, :3], HEADS, PLACE, one_pass(2, 3)))
    # Nothing leaks from it, whatever it says.
    k[:, 3:] = 1e6
    bias, _ = weighed("text", PLACE, q, told(text_style=Dial(0.0)))
    torch.testing.assert_close(spatial(q, k, v, HEADS, PLACE, told(control=control), bias), out)
    out, (q, k, v) = over_entries(told(text_style=Dial(2.0), control=control))
    twice = (torch.cat([x, x[:, 3:]], 1) for x in (k, v))
    torch.testing.assert_close(out, spatial(q, *twice, HEADS, PLACE, one_pass(2, 3)))


def test_plain_dials_ask_for_nothing():
    for dials in ({}, {"text_style": Dial()}, {"text": Dial(frames=[1.0]), "text_style": (None, Dial(1.0))}):
        assert weighed("text", PLACE, draw(6, 8, HEADS * D), told(**dials)) is None


def test_the_strongest_entry_says_how_much_is_added():
    plain, _ = over_entries(told())
    for weight in (0.0, 0.5, 1.0):
        both, _ = over_entries(told(text=Dial(weight), text_style=Dial(weight)))
        torch.testing.assert_close(both, weight * plain)
    torch.testing.assert_close(over_entries(told(text=Dial(3.0), text_style=Dial(3.0)))[0], plain)
    # One after the other fades to nothing without a jump, and gradients stay finite at its end.
    for weight in (1e-6, 0.0):
        q = draw(6, 8, HEADS * D).requires_grad_()
        bias, amount = weighed("text", PLACE, q, told(text=Dial(weight), text_style=Dial(0.0)))
        out = amount * spatial(q, *(draw(2, 5, HEADS * D, seed=i) for i in (1, 2)), HEADS, PLACE, told(), bias)
        assert out.abs().max() <= weight * 5
        assert torch.autograd.grad(out.sum(), q)[0].isfinite().all()


def test_weights_below_0_are_refused():
    with pytest.raises(InputError, match=r"dial of 'text.style' is below 0"):
        over_entries(told(text_style=(Dial(), Dial(frames=[1.0, -0.5]))))


def test_weights_follow_the_dtype_of_the_queries_under_autocast():
    q, k, v = (x.float() for x in (draw(6, 8, HEADS * D), draw(2, 5, HEADS * D, seed=1), draw(2, 5, HEADS * D, seed=2)))
    p = told(text_style=Dial(0.5))
    bias, _ = weighed("text", PLACE, q, p)
    exact = spatial(q, k, v, HEADS, PLACE, p, bias)
    with torch.autocast("cpu", torch.bfloat16):
        half = spatial(q.bfloat16(), k.bfloat16(), v.bfloat16(), HEADS, PLACE, p, bias)
    torch.testing.assert_close(
        half.float(), exact, rtol=0, atol=4 * torch.finfo(torch.bfloat16).eps * v.abs().max().item()
    )


@pytest.mark.parametrize("piece", [attention.PIECE, 40, 8], ids=["whole", "by heads", "by queries"])
@pytest.mark.parametrize(("n", "keys"), [(5, 8), (33, 40), (64, 7)])
def test_attention_in_pieces_is_its_definition(piece, n, keys, monkeypatch):
    """What inference in bfloat16 on processors takes, in a dtype where its rounding does not hide anything."""
    monkeypatch.setattr(attention, "PIECE", piece)
    q, k, v = (draw(2, length, 3, 4, seed=i).transpose(1, 2) for i, length in enumerate((n, keys, keys)))
    out = attention._in_pieces(q, k, v)
    torch.testing.assert_close(out, defined(q, k, v))
    assert out.transpose(1, 2).is_contiguous(), (
        "heads of a token lie beside each other, so that joining them copies nothing"
    )


@pytest.mark.parametrize(("n", "keys"), [(128, 128), (1024, 24), (4096, 8)])
def test_inference_in_bfloat16_on_processors_is_as_exact_in_pieces_as_fused(n, keys):
    lengths = (n, keys, keys)
    q, k, v = (draw(2, 3, HEADS, length, 16, seed=i).to(torch.bfloat16) for i, length in enumerate(lengths))
    exact = defined(*(x.double() for x in (q, k, v))).transpose(2, 3)
    pieces = attend(q, k, v)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(2, 3)
    assert not torch.equal(pieces, fused), "the way that is tested was not taken"
    assert (pieces - exact).square().mean().sqrt() < 3 * (fused - exact).square().mean().sqrt()


def test_compilers_are_told_what_attention_in_pieces_returns():
    q, k, v = (draw(2, length, 3, 4, seed=i).transpose(1, 2) for i, length in enumerate((6, 5, 5)))
    torch.library.opcheck(attention._in_pieces, (q, k, v), test_utils=("test_schema", "test_faketensor"))


def test_gradients_in_bfloat16_pass_through_maps_that_are_too_large_to_be_held(monkeypatch):
    monkeypatch.setattr(attention, "SMALL_MAP", 1)
    q, k, v = (draw(1, 2, HEADS, 128, 8, seed=seed).to(torch.bfloat16) for seed in range(3))
    assert attention._slow_when_fused(*(x.flatten(0, 1) for x in (q, k, v))), "without gradients it would be in pieces"
    v.requires_grad_()
    attend(q, k, v).sum().backward()
    assert v.grad is not None
    assert v.grad.abs().sum() > 0
