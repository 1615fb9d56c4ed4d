"""The optimizers of a run: Muon with AdamW beside it, AdamW alone, or AdamW with 8-bit state (Dettmers et al. 2022, arXiv 2110.02861)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import torch
from torch import nn

from videogen.errors import InputError
from videogen.training.config import Optimization
from videogen.training.muon import Muon, suits_muon


def optimizers_of(
    groups: Mapping[str, Sequence[nn.Parameter]], root: nn.Module, settings: Optimization
) -> dict[str, torch.optim.Optimizer]:
    """One or two optimizers a group, titled `GROUP.muon`, `GROUP.adamw` or `GROUP.adamw8bit`; `full` is the rate that a schedule takes a share of.

    Raises InputError where the 8-bit optimizer is asked for and not installed, and for a share of a group that there is not.
    """
    if unknown := sorted(settings.shares.keys() - groups.keys()):
        raise InputError(f"optimization.shares: there is no group {unknown[0]}; what trains are {', '.join(groups)}")
    suited = suits_muon(root) if settings.optimizer == "muon" else set()
    kind, name = _adamw(settings)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for group, parameters in groups.items():
        if matrices := [p for p in parameters if p in suited]:
            optimizers[f"{group}.muon"] = Muon(matrices, settings.muon, weight_decay=settings.weight_decay)
        if rest := [p for p in parameters if p not in suited]:
            optimizers[f"{group}.{name}"] = kind(
                rest, lr=settings.adamw, betas=settings.betas, weight_decay=settings.weight_decay
            )
    for title, optimizer in optimizers.items():
        for group_of_rates in optimizer.param_groups:
            group_of_rates["full"] = group_of_rates["lr"] * settings.shares.get(title.rpartition(".")[0], 1.0)
    return optimizers


def _adamw(settings: Optimization) -> tuple[Callable[..., torch.optim.Optimizer], str]:
    if settings.optimizer != "adamw8bit":
        return torch.optim.AdamW, "adamw"
    try:
        return import_module("bitsandbytes.optim").AdamW8bit, "adamw8bit"
    except ImportError as problem:
        raise InputError(
            "optimization.optimizer: adamw8bit needs bitsandbytes, which is not installed; pip install bitsandbytes, or give adamw"
        ) from problem


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """The optimizer at `share` of its full rates."""
    for group in optimizer.param_groups:
        group["lr"] = group["full"] * share
