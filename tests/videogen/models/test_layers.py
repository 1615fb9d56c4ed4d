"""Leaf layers: what they promise by themselves."""

import pytest
import torch

from tests import nets
from videogen.models import layers
from videogen.models.layers import FeedForward, GroupNorm, Linear, linear, plus, silu


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_first_norm_behind_frozen_layers_gets_its_gradient(compiled: bool) -> None:
    """The input wants no gradient, the weights do; on a small channels-last picture the plain kernel would end the process."""
    norm = GroupNorm(16, 64, 1e-6, "clip")
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    h = torch.randn(64, 64, 16, 16).contiguous(memory_format=torch.channels_last)
    call = torch.compile(norm, fullgraph=True, backend="eager") if compiled else norm
    out = call(h, nets.one_pass(b=16, f=4))
    with torch.no_grad():
        plain = norm(h, nets.one_pass(b=16, f=4))
    torch.testing.assert_close(out, plain)
    assert out.stride() == plain.stride()
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    clips = h.unflatten(0, (16, 4)).unflatten(2, (16, 4))
    normed = (clips - clips.mean((1, 3, 4, 5), keepdim=True)) / (
        clips.var((1, 3, 4, 5), keepdim=True, unbiased=False) + 1e-6
    ).sqrt()
    expected = (normed.flatten(2, 3).flatten(0, 1) * weights).sum((0, 2, 3))
    assert not h.requires_grad
    torch.testing.assert_close(norm.weight.grad, expected, atol=1e-2, rtol=1e-3)


GROUPS = torch.tensor([[0, 0, 1, 0, 2], [5, 7, 7, 7, 6]])


def grouped(dtype: torch.dtype) -> tuple[GroupNorm, torch.Tensor, torch.Tensor]:
    """A norm over the clip, a clip far from zero mean, and what its groups, each a clip of its own, become in float64."""
    torch.manual_seed(0)
    norm = GroupNorm(4, 8, 1e-5, "clip").double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    h = (torch.randn(2, 5, 8, 6, 4, dtype=torch.float64) + 3 * torch.arange(5)[:, None, None, None]).to(dtype)
    expected = torch.empty(2, 5, 8, 6, 4, dtype=torch.float64)
    for row in range(2):
        for group in set(GROUPS[row].tolist()):
            frames = (GROUPS[row] == group).nonzero()[:, 0]
            expected[row, frames] = norm(h[row, frames].double(), nets.one_pass(f=len(frames)))
    h = h.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return norm.to(dtype), h, expected.flatten(0, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_norms_over_the_clip_stay_inside_a_group_and_keep_the_layout(dtype: torch.dtype) -> None:
    """In half precision too: statistics are taken in float32, so only weights and result are rounded."""
    norm, h, expected = grouped(dtype)
    out = norm(h, nets.one_pass(2, 5, groups=GROUPS))
    assert out.dtype == dtype
    assert out.stride() == h.stride()
    rounding = 8 * torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=rounding)
    h.unflatten(0, (2, 5))[0, 2] = float("nan")
    again = norm(h, nets.one_pass(2, 5, groups=GROUPS)).unflatten(0, (2, 5))
    assert again[0, 2].isnan().all()
    assert torch.equal(again[0, [0, 1, 3, 4]], out.unflatten(0, (2, 5))[0, [0, 1, 3, 4]])


def test_groups_of_a_norm_compile_without_a_graph_break() -> None:
    norm, h, expected = grouped(torch.float64)
    p = nets.one_pass(2, 5, groups=GROUPS)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(norm, fullgraph=True, backend="eager")(h, p), expected)


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 5, 8)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_a_linear_layer_is_the_same_with_and_without_gradients(shape: tuple[int, ...], bias: bool) -> None:
    layer, h = Linear(8, 6, bias=bias), torch.randn(2, *shape).transpose(0, -2)
    with torch.no_grad():
        fast = layer(h)
    torch.testing.assert_close(fast, layer(h).detach())
    torch.testing.assert_close(
        fast.double(), torch.nn.functional.linear(h.double(), *map(as_double, (layer.weight, layer.bias)))
    )


def as_double(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else value.detach().double()


def test_without_gradients_a_linear_layer_follows_autocast() -> None:
    h, weight = torch.randn(3, 8), torch.randn(6, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear(h, weight, None).dtype == torch.bfloat16


def test_memory_is_used_again_only_where_no_gradient_is_asked_for() -> None:
    for act in (silu, lambda h: plus(h, torch.ones(4))):
        h = torch.randn(3, 4, requires_grad=True)
        held = h.detach().clone()
        expected = act(h).detach()
        assert torch.equal(h.detach(), held)
        with torch.no_grad():
            assert torch.equal(act(held), expected)
        assert torch.equal(held, expected)


def test_a_sum_has_the_wider_dtype() -> None:
    """Under autocast a layer's output is narrower than the stream it is added to."""
    narrow, wide = torch.ones(2, dtype=torch.bfloat16), torch.full((2,), 1e-3)
    with torch.no_grad():
        assert torch.equal(plus(narrow, wide), narrow + wide)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_feed_forward_in_pieces_is_the_whole_one(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of unequal numbers of tokens, across frames, of an input that is no block in memory."""
    layer, h = FeedForward(8).to(dtype), torch.randn(3, 8, 7).to(dtype).transpose(1, 2)
    whole = layer(h, nets.one_pass(f=3)).detach()
    monkeypatch.setattr(layers, "CACHED_PIECE", h.numel() * 8 // 4)
    used = []
    monkeypatch.setattr(layers, "_in_pieces", lambda *given, op=layers._in_pieces: used.append(1) or op(*given))
    with torch.no_grad():
        torch.testing.assert_close(layer(h, nets.one_pass(f=3)), whole)
        assert used, "the way that is tested was not taken"
        used.clear()
        layer.net[2].__class__ = type("Wrapped", (Linear,), {})
        torch.testing.assert_close(layer(h, nets.one_pass(f=3)), whole)
        assert not used, "a wrapped layer must be called"


def test_compilers_are_told_what_a_feed_forward_in_pieces_returns() -> None:
    layer, h = FeedForward(8), torch.randn(3, 8, 7).transpose(1, 2)
    weights = [w.detach() for half in (layer.net[0].proj, layer.net[2]) for w in (half.weight, half.bias)]
    torch.library.opcheck(layers._in_pieces, (h, *weights), test_utils=("test_schema", "test_faketensor"))
