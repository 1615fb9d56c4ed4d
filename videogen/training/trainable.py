"""Trainable sets, declared as data: which tensors of a UNet train, or which of its layers get a low-rank change that does.

A change is a parametrisation of the layer's weight, W0 + (alpha / rank) up down (Hu et al. 2021, eq. 3), so whatever reads the weight
sees the changed one: the net that trains is the net into which the file will be merged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

from videogen.adapters.low_rank import LowRank
from videogen.errors import InputError
from videogen.models.weights import motion_keys

PROJECTIONS = r"attn[12]\.to_(q|k|v|out\.0)$"
IMAGE = r"^(?!.*motion_modules\.)"
"""The image layers, all of them."""
MOTION = r"motion_modules\."
"""The motion modules. Their tables of positions are buffers and never train."""
IMAGE_ATTENTION = rf"^(?!.*motion_modules\.).*{PROJECTIONS}"
"""Self-attention and attention to text of the image layers: AnimateDiff's domain adapter, and most LoRA files."""
MOTION_ATTENTION = rf"motion_modules\..*{PROJECTIONS}"
"""Both attentions of every motion module: MotionLoRA."""


class Change(nn.Module):
    """A low-rank change of one weight: `down` `r i [kh kw]`, `up` `o r [1 1]`, zero at first."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.down = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank, *(1 for _ in weight.shape[2:])))
        self.scale = alpha / rank
        nn.init.normal_(self.down, std=1 / rank)  # as diffusers and the domain adapter's authors begin

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + (self.scale * self.up.flatten(1) @ self.down.flatten(1)).view_as(weight)


def parameters(net: nn.Module, sets: Mapping[str, str]) -> dict[str, list[nn.Parameter]]:
    """The parameters by group, of those whose names match the group's pattern. Groups without any are left out.

    Raises InputError where no group has any.
    """
    named = list(net.named_parameters())
    found = {group: [p for name, p in named if re.search(pattern, name)] for group, pattern in sets.items()}
    if not any(found.values()):
        raise InputError(f"nothing in this model would train: no tensor's name matches {' or '.join(sets.values())}")
    return {group: members for group, members in found.items() if members}


def add_changes(net: nn.Module, pattern: str, rank: int, alpha: float | None = None) -> list[nn.Parameter]:
    """Give every layer whose name matches a change of its weight, nothing at first; the new parameters.

    alpha  what the change is scaled by, divided by the rank; None is the rank itself

    Raises InputError where no layer's name matches, or the pattern is none.
    """
    try:
        layers = [module for name, module in net.named_modules() if re.search(pattern, name) and _has_weight(module)]
    except re.error as problem:
        raise InputError(f"layers: {pattern!r} is no regular expression ({problem})") from None
    if not layers:
        raise InputError(f"there is no layer in this model whose name matches {pattern}")
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Change(layer.weight, rank, alpha or rank))
    return [p for change in changed_layers(net).values() for p in change.parameters()]


def changed_layers(net: nn.Module) -> dict[str, Change]:
    """The changes that were added, by the layer's name."""
    return {
        name: module.parametrizations.weight[0]
        for name, module in net.named_modules()
        if parametrize.is_parametrized(module, "weight")
    }


def changes(net: nn.Module) -> list[LowRank]:
    """The same as values, ready to be written; they are copies."""
    return [
        LowRank(
            "motion" if motion_keys.is_motion(f"{name}.weight") else "unet",
            name,
            change.down.detach().clone(),
            change.up.detach().clone(),
            change.scale,
        )
        for name, change in changed_layers(net).items()
    ]


def _has_weight(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(module, (nn.Linear, nn.Conv2d)) and isinstance(weight, nn.Parameter)
