"""Changes of one weight, stored in few numbers: LoRA (Hu et al. 2021), its Tucker form for convolutions, LoHa and
LoKr (Yeh et al. 2023).

Each is a value that knows the layer it belongs to and gives its full `delta`; W + weight * delta is the changed weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import einsum
from torch import Tensor

Target = Literal["unet", "text_encoder", "text_encoder_2", "motion"]


@dataclass(frozen=True)
class LowRank:
    """delta = scale * up @ down, or with `middle` the Tucker form of a convolution.

    target  the part it belongs to; "motion" are the motion modules inside the UNet
    module  the layer's name in that part, in diffusers' and transformers' public spelling
    down    `r i` or `r i kh kw`; up `o r` or `o r 1 1`; middle `r r kh kw`
    scale   alpha / rank where the file names alpha
    """

    target: Target
    module: str
    down: Tensor
    up: Tensor
    scale: float = 1.0
    middle: Tensor | None = None

    @property
    def rank(self) -> int:
        """r."""
        return self.down.shape[0]

    def to(self, device: torch.device | str) -> LowRank:
        """The same on another device."""
        middle = None if self.middle is None else self.middle.to(device)
        return replace(self, down=self.down.to(device), up=self.up.to(device), middle=middle)

    def delta(self, shape: Sequence[int]) -> Tensor:
        """The change of a weight of this shape, float32. Raises ValueError where the factors do not give that shape."""
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        if self.middle is None:
            return _shaped(up @ down, shape) * self.scale
        whole = einsum(up, self.middle.float(), down, "o p, p q h w, q i -> o i h w")
        return _shaped(whole, shape) * self.scale


@dataclass(frozen=True)
class Hadamard:
    """LoHa: delta = scale * (a1 @ b1) * (a2 @ b2), elementwise; with cores t1, t2 `r r kh kw` each product is a
    Tucker form.
    """

    target: Target
    module: str
    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    scale: float = 1.0
    cores: tuple[Tensor, Tensor] | None = None

    @property
    def rank(self) -> int:
        """r."""
        return self.first[1].shape[0]

    def to(self, device: torch.device | str) -> Hadamard:
        """The same on another device."""
        (a1, b1), (a2, b2) = self.first, self.second
        cores = None if self.cores is None else (self.cores[0].to(device), self.cores[1].to(device))
        return replace(self, first=(a1.to(device), b1.to(device)), second=(a2.to(device), b2.to(device)), cores=cores)

    def delta(self, shape: Sequence[int]) -> Tensor:
        """As `LowRank.delta`."""
        products = []
        for i, (a, b) in enumerate((self.first, self.second)):
            if self.cores is None:
                products.append(_shaped(a.float() @ b.float(), shape))
            else:
                # here a is `r o`, b is `r i`
                whole = einsum(self.cores[i].float(), a.float(), b.float(), "p q h w, p o, q i -> o i h w")
                products.append(_shaped(whole, shape))
        return products[0] * products[1] * self.scale


@dataclass(frozen=True)
class Kronecker:
    """LoKr: delta = scale * kron(first, second), where second `c d [kh kw]` tiles the weight in blocks weighted by
    first `a b`.
    """

    target: Target
    module: str
    first: Tensor
    second: Tensor
    scale: float = 1.0
    rank: int = 0

    def to(self, device: torch.device | str) -> Kronecker:
        """The same on another device."""
        return replace(self, first=self.first.to(device), second=self.second.to(device))

    def delta(self, shape: Sequence[int]) -> Tensor:
        """As `LowRank.delta`."""
        rows, columns = self.first.shape
        if len(shape) < 2 or shape[0] % rows or shape[1] % columns:
            raise ValueError(f"blocks of {tuple(self.first.shape)} do not tile {tuple(shape)}")
        block = _shaped(self.second.float(), (shape[0] // rows, shape[1] // columns, *shape[2:]))
        first = self.first.float().reshape(rows, columns, *(1 for _ in shape[2:]))
        return torch.kron(first, block.contiguous()) * self.scale


Change = LowRank | Hadamard | Kronecker


def _shaped(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """A product as the weight stores it: a matrix, a 1x1 convolution or a flattened kernel."""
    if matrix.shape[0] != shape[0] or matrix.numel() != math.prod(shape):
        raise ValueError(f"it gives {tuple(matrix.shape)} where the weight is {tuple(shape)}")
    return matrix.reshape(tuple(shape))
