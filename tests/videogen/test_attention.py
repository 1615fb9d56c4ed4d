"""Attention over folded views equals its definition, whatever way it takes."""

import dataclasses

import pytest
import torch

from tests.nets import PLACE, Maps, one_pass
from videogen import attention
from videogen.attention import attend, attend_controlled, spatial, temporal
from videogen.control import Control

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
def test_pieces_for_the_gpu_change_nothing(monkeypatch, groups):
    q, k, v = (draw(8, 5, HEADS * D, seed=seed) for seed in range(3))
    p = one_pass(2, 4, groups=groups)
    whole = temporal(q, k, v, HEADS, PLACE, p)
    monkeypatch.setattr(attention, "MOST_HEADS", 3)
    torch.testing.assert_close(temporal(q, k, v, HEADS, PLACE, p), whole)


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
