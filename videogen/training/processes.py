"""One process or many: what accelerate says of the launch, how the root is wrapped for it, and what processes agree on."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence

import accelerate
import torch
from torch import Tensor, nn

from videogen.errors import InputError
from videogen.training.shards import shard

WAIT = datetime.timedelta(hours=2)
"""How long processes wait for each other: the first one judges, makes clips and writes while the others stand."""


def accelerator_of() -> accelerate.Accelerator:
    """The launch as it is. Raises InputError where accelerate was set up to spread parameters its own way."""
    for name, plugin in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        if os.environ.get(plugin, "false").lower() in ("1", "true", "yes", "on"):
            raise InputError(
                f"accelerate is configured for {name}, which this loop does not use; choose plain multi-process in `accelerate config`, "
                "and give shards=true to spread parameters"
            )
    patient = accelerate.InitProcessGroupKwargs(timeout=WAIT)
    # Without the word on the processor accelerate takes several launched processes there for as many runs by themselves. Precision and
    # compilation are said because it reads them from its own configuration otherwise, and wraps the forward of several processes in them.
    return accelerate.Accelerator(
        cpu=not torch.accelerator.is_available(), mixed_precision="no", dynamo_backend="no", kwargs_handlers=[patient]
    )


def wrap(root: nn.Module, accelerator: accelerate.Accelerator, *, sharded: bool, several: bool) -> nn.Module:
    """`root` for this launch: itself in one process, else under DDP, or with its parameters spread.

    several  a loss may reach only some of the parameters
    """
    if accelerator.num_processes == 1:
        return root
    if sharded:
        shard(root, accelerator.device)
        return root
    accelerator.ddp_handler = accelerate.DistributedDataParallelKwargs(find_unused_parameters=several)
    return accelerator.prepare_model(root)


def refuse_silent(wrapped: nn.Module, silent: Iterable[str]) -> None:
    """Raise InputError where DDP waits for gradients of parameters that never get one, and would fail in the next step."""
    if not (isinstance(wrapped, nn.parallel.DistributedDataParallel) and not wrapped.find_unused_parameters):
        return
    if names := sorted(silent):
        raise InputError(
            f"{len(names)} parameters that are to train never get a gradient, the first is {names[0]}; several processes cannot go on with them: "
            "leave them out of what trains, or train in one process"
        )


def all_of(accelerator: accelerate.Accelerator, mine: bool) -> bool:
    """Whether every process says yes. Every process must ask."""
    if accelerator.num_processes == 1:
        return mine
    yes = torch.tensor([float(mine)], device=accelerator.device)
    return bool(accelerator.reduce(yes, "sum") == accelerator.num_processes)


def all_keys(accelerator: accelerate.Accelerator, mine: Sequence[str]) -> list[str]:
    """The names of all processes, theirs in order. Every process must ask."""
    return list(mine) if accelerator.num_processes == 1 else accelerate.utils.gather_object(list(mine))


def mean_of(accelerator: accelerate.Accelerator, figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures over all processes. Every process must ask."""
    values = torch.stack([value.float() for value in figures.values()])
    if accelerator.num_processes > 1:
        values = accelerator.reduce(values, "mean")
    return dict(zip(figures, values.tolist(), strict=True))
