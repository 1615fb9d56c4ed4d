"""Muon's update is a nearly orthogonal matrix with the momentum's singular vectors; matrices and kernels get it, tables and the rest do not."""

import pytest
import torch
from torch import nn

from videogen.training.muon import Muon, orthogonalise, suits_muon


@pytest.mark.parametrize("shape", [(32, 32), (16, 144), (90, 20)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    rows, columns = shape
    rank = min(shape)
    u = torch.linalg.qr(torch.randn(rows, rank))[0]
    v = torch.linalg.qr(torch.randn(columns, rank))[0]
    spread = torch.logspace(0, -1.5, rank)
    result = orthogonalise(u * spread @ v.T)
    inner = u.T @ result @ v
    values = inner.diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (inner - values.diag()).abs().max() < 1e-3
    assert torch.linalg.svdvals(result)[0] < 1.3


def test_the_gram_form_equals_the_iteration_on_the_matrix_itself() -> None:
    matrix = torch.randn(12, 40)
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    assert torch.allclose(orthogonalise(matrix), x, atol=1e-3)


def test_a_step_has_the_size_of_its_rate_and_goes_down() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(24, 6, 3, 3))
    before = weight.detach().clone()
    weight.square().sum().backward()
    Muon([weight], lr=0.01).step()
    moved = weight.detach() - before
    # Singular values near 1 mean entries of about 1/sqrt(longer side), so lr * 0.2 * sqrt(longer side) leaves 0.2 lr.
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.2 * 0.01 * (24 / 54 * 54 / 24) ** 0.5, rel=0.7)
    assert float((moved * before).sum()) < 0


def test_tables_biases_and_narrow_kernels_are_left_to_adamw() -> None:
    parts = {
        "table": nn.Embedding(50, 8),
        "narrow": nn.Conv2d(4, 16, 3),
        "kernel": nn.Conv2d(8, 16, 3),
        "matrix": nn.Linear(8, 8),
    }
    root = nn.ModuleDict(parts)
    names = {name for name, p in root.named_parameters() if p in suits_muon(root)}
    assert names == {"kernel.weight", "matrix.weight"}
