"""Muon: momentum, orthogonalised, for matrices and convolution kernels (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

The update is the nearest semi-orthogonal matrix U V^T of the momentum U S V^T, found with a quintic Newton-Schulz iteration. A kernel
`out in kh kw` is the matrix `out (in kh kw)`. As the iteration only multiplies by polynomials of the Gram matrix X X^T, it is run on
that small symmetric matrix and applied to X once: for a 3x3 kernel less than half the work of iterating on X.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from videogen.training.shards import full, like

QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalise(matrix: Tensor) -> Tensor:
    """The float32 `rows cols` matrix with its singular values moved near 1 (about 0.7 to 1.2; its singular vectors stay).

    Directions far below the largest singular value (a factor of some thousands) are only partly lifted.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-12)
    gram = x @ x.T
    product = None
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial if product is None else polynomial @ product
        gram = polynomial @ gram @ polynomial
    x = product @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the step is `lr * 0.2 * sqrt(longer side)`, so that its entries' size is AdamW's at rate lr.

    Takes parameters of two or more axes. The 0.2 is from Liu et al. 2025, arXiv 2502.16982, section 2.2.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient. `closure` is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(state["momentum"], group["momentum"])
                whole = full(ahead)  # a spread gradient is orthogonalised whole, by every process alike
                matrix = whole.reshape(whole.shape[0], -1).float()
                step = group["lr"] * 0.2 * max(matrix.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = orthogonalise(matrix).reshape(parameter.shape).to(parameter.dtype)
                parameter.add_(like(update, parameter), alpha=-step)


def suits_muon(root: nn.Module) -> set[nn.Parameter]:
    """The parameters of `root` that Muon is for: matrices and kernels with more than four channels on both sides, no look-up tables."""
    tables = {p for module in root.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return {p for p in root.parameters() if p.ndim >= 2 and min(p.shape[:2]) > 4 and p not in tables}
