"""Parameters spread over processes: torch's `fully_shard` (FSDP2), applied block by block, and the ways between a shard and the whole.

Zhao et al. 2023, arXiv 2304.11277; the per-parameter form is PyTorch's `torch.distributed.fsdp.fully_shard`. A sharded parameter is a
DTensor: its optimizer state and its average are shards too, a checkpoint holds full tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from videogen.applied import blocks


def shard(wrapped: nn.Module, device: torch.device) -> None:
    """Spread the parameters of `wrapped` evenly over all processes, in place: a group for each of its blocks, one for the rest.

    Only what runs inside `wrapped`'s forward, or within `whole`, sees full parameters.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (get_world_size(),))
    for part in (*blocks(wrapped), wrapped):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


@contextlib.contextmanager
def whole(wrapped: nn.Module) -> Iterator[None]:
    """Within, all parameters under `wrapped` are full, plain tensors.

    Every process must enter, and all must run the same forwards: torch keeps their order, to fetch ahead in the next backward pass. Nothing happens
    where nothing is sharded. What is written to a parameter inside is lost.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in wrapped.modules() if isinstance(module, FSDPModule)]
    if parts:
        with torch.no_grad():
            wrapped(dict)  # a forward of nothing: who is the root of the sharding is settled at the first forward
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()

    def filled(_module: nn.Module, state: dict[str, Any], _prefix: str, _metadata: object) -> None:
        """A state dict asked for in here: torch takes the shards for it, and leaves the parameters in pieces."""
        state.update({name: full(value) for name, value in state.items() if isinstance(value, DTensor)})
        for part in parts:
            part.unshard()

    hooks = [module.register_state_dict_post_hook(filled) for module in wrapped.modules() if parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)


def full(tensor: Tensor) -> Tensor:
    """The full tensor of a shard (every process must ask); a plain tensor is itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A full tensor that every process has, spread as `parameter` is; where that is plain, on its device. Each process keeps its own part."""
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter.device)
    mesh = parameter.device_mesh
    copies = DTensor.from_local(tensor.to(parameter.device), mesh, [Replicate()], run_check=False)
    return copies.redistribute(mesh, parameter.placements)
