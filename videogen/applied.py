"""What is applied to a network from outside: the blocks where gradient checkpointing, `torch.compile` and sharding take hold.

A block is an element of one of the root's outermost module lists: a level of a UNet, a layer of a text encoder. A root without lists has
none and is one piece.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from videogen.errors import InputError


def blocks(root: nn.Module) -> Iterator[nn.Module]:
    """The blocks of `root`, in the order they are registered."""
    for child in root.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from blocks(child)


def recompute_blocks(root: nn.Module) -> None:
    """Turn on gradient checkpointing, always non-reentrant, in every network under `root` that has it: ours, diffusers' and transformers'.

    Raises InputError where no network has it.
    """
    if not _recomputed(root):
        raise InputError("gradient_checkpointing: no network of this recipe offers it; leave it out")


def _recomputed(module: Any) -> int:
    if callable(ours := getattr(module, "set_checkpointing", None)):
        ours(True)
    elif callable(diffusers := getattr(module, "enable_gradient_checkpointing", None)):
        diffusers()  # non-reentrant by itself
    elif callable(transformers := getattr(module, "gradient_checkpointing_enable", None)):
        transformers({"use_reentrant": False})
    else:
        return sum(_recomputed(child) for child in module.children())
    return 1


def compile_blocks(root: nn.Module) -> None:
    """Compile each block in place (`nn.Module.compile`), or `root` whole where it has none; parameters keep their names.

    Each shape that comes is compiled by itself: a call has one, a recipe's batches have few, and Inductor (2.13) fails on strides of attention with
    symbolic sizes. Blocks of one class count their shapes apart, or all together would soon be at the limit above which nothing is compiled any more.
    """
    for block in list(blocks(root)) or [root]:
        block.compile(dynamic=False, isolate_recompiles=True)


def as_written() -> contextlib.AbstractContextManager[Any]:
    """Within, what was compiled runs as it is written."""
    # Nothing is compiled before the compiler is imported, which takes seconds.
    imported = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if imported else contextlib.nullcontext()
