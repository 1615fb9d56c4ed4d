"""The moving average: constant weights are its fixed point, one moved weight follows the geometric law, and putting it in place is undone exactly."""

import torch
from torch import nn

from videogen.training.average import Average


def test_it_follows_the_geometric_law() -> None:
    weight = nn.Parameter(torch.zeros(3))
    average = Average({"weight": weight}, decay=0.5)
    with torch.no_grad():
        weight.fill_(1.0)
    for _ in range(4):
        average.update(step=1000)
    assert torch.allclose(average.shadow["weight"], torch.full((3,), 1 - 0.5**4))


def test_early_updates_forget_the_start_faster() -> None:
    weight = nn.Parameter(torch.ones(1))
    average = Average({"weight": weight}, decay=0.999)
    average.shadow["weight"].zero_()
    average.update(step=0)
    assert torch.allclose(average.shadow["weight"], torch.tensor([0.9]))


def test_without_decay_it_is_the_weights_and_nothing_is_kept() -> None:
    weight = nn.Parameter(torch.randn(100))
    average, before = Average({"weight": weight}, decay=0), weight.detach().clone()
    average.update(step=1000)
    with average.in_place():
        assert torch.equal(weight.detach(), before)
    assert average.shadow == {}


def test_in_place_is_undone_bit_for_bit() -> None:
    weight = nn.Parameter(torch.randn(100))
    average = Average({"weight": weight}, decay=0.9)
    with torch.no_grad():
        weight.add_(torch.randn(100))
    before = weight.detach().clone()
    average.update(step=1000)
    with average.in_place():
        assert torch.equal(weight.detach(), average.shadow["weight"])
        assert not torch.equal(weight.detach(), before)
    assert torch.equal(weight.detach(), before)
