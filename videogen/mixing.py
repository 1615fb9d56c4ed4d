"""Sums of clips with coefficients that are one number, or one a batch item."""

import torch
from torch import Tensor

from videogen.errors import InputError


def along(coefficient: float | Tensor, x: Tensor) -> Tensor:
    """A coefficient, one number or one a batch item, ready to multiply x: b ... (float32 at least, on x's device).

    One number stays a tensor without dimensions, which leaves x's dtype as it is.
    """
    coefficient = torch.as_tensor(coefficient, dtype=torch.float64)
    if coefficient.ndim == 0:
        return coefficient
    if coefficient.shape != x.shape[:1]:
        raise InputError(f"{tuple(coefficient.shape)} times for a batch of {x.shape[0]}: give one, or one an item")
    working = torch.promote_types(x.dtype, torch.float32)
    return coefficient.to(x.device, working).reshape(-1, *(1,) * (x.ndim - 1))


def mix(a: float | Tensor, x: Tensor, b: float | Tensor, y: Tensor) -> Tensor:
    """a x + b y in x's dtype; a and b are numbers or one an item. Half-precision tensors are summed in float32."""
    working = torch.promote_types(x.dtype, torch.float32)
    return (along(a, x) * x.to(working) + along(b, x) * y.to(working)).to(x.dtype)
