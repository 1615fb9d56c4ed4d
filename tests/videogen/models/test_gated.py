"""The gate of feed-forward layers: PyTorch's own gradients, from less that is kept."""

import torch
import torch.nn.functional as F

from videogen.models.layers import Gated, GatedLinear


def plain(projected: torch.Tensor) -> torch.Tensor:
    value, gate = projected.chunk(2, -1)
    return value * F.gelu(gate)


def test_values_and_gradients_are_pytorchs() -> None:
    ours = torch.randn(3, 5, 8, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    weight = torch.randn(3, 5, 4)
    for projected, gated in ((ours, Gated.apply(ours)), (theirs, plain(theirs))):
        (gated * weight).sum().backward()
        assert projected.grad is not None
    assert torch.equal(Gated.apply(ours), plain(theirs))
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)


def test_the_projection_alone_is_kept() -> None:
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    layer, h = GatedLinear(8, 32), torch.randn(2, 3, 8)
    layer.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(h.requires_grad_(), None).sum().backward()
    own = [tensor for tensor in kept if tensor.untyped_storage().data_ptr() != layer.proj.weight.data_ptr()]
    assert [tuple(tensor.shape) for tensor in own] == [(2, 3, 64)]
