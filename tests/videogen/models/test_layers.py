"""Leaf layers: what they promise by themselves."""

import torch

from tests import nets
from videogen.models.layers import GroupNorm


def test_the_first_norm_behind_frozen_layers_gets_its_gradient() -> None:
    """The input wants no gradient, the weights do; on a small channels-last picture the plain kernel would end the process."""
    norm = GroupNorm(16, 64, 1e-6, "clip")
    h = torch.randn(64, 64, 16, 16).contiguous(memory_format=torch.channels_last)
    out = norm(h, nets.one_pass(b=16, f=4))
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    clips = h.unflatten(0, (16, 4)).unflatten(2, (16, 4))
    normed = (clips - clips.mean((1, 3, 4, 5), keepdim=True)) / (
        clips.var((1, 3, 4, 5), keepdim=True, unbiased=False) + 1e-6
    ).sqrt()
    expected = (normed.flatten(2, 3).flatten(0, 1) * weights).sum((0, 2, 3))
    assert not h.requires_grad
    torch.testing.assert_close(norm.weight.grad, expected, atol=1e-2, rtol=1e-3)
