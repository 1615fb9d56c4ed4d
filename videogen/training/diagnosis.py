"""Which tensor went bad first, when a loss or a gradient is not finite: a parameter, a module's output, or a gradient, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from videogen.training.shards import full


def first_bad(root: nn.Module, trained: Mapping[str, nn.Parameter], forward: Callable[[], Any]) -> str:
    """The first tensor under `root` with a NaN or an infinity, named as in "the output of up_blocks.1"; "" where all are finite.

    Parameters are looked at first, then what modules return while `forward` runs once more, then the gradients of `trained` as they are.
    """
    for name, parameter in root.named_parameters():
        if _bad(parameter):
            return f"the parameter {name}"
    if name := _first_bad_output(root, forward):
        return f"the output of {name}"
    # A backward pass runs from the last layer to the first, and what is bad spreads along: the last bad one was the first.
    for name, parameter in reversed(list(trained.items())):
        if parameter.grad is not None and _bad(parameter.grad):
            return f"the gradient of {name}"
    return ""


def _first_bad_output(root: nn.Module, forward: Callable[[], Any]) -> str:
    """The run is at its end here, so hooks that only look can do no harm."""
    found: list[str] = []

    def watched(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(_module: nn.Module, _arguments: Any, output: Any) -> None:
            if not found and any(_bad(tensor) for tensor in tensors(output)):
                found.append(name)

        return look

    hooks = [module.register_forward_hook(watched(name or "the whole")) for name, module in root.named_modules()]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value: itself, or those in its items, values or fields, in their order."""
    if isinstance(value, Tensor):
        yield value
        return
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    elif hasattr(value, "__dataclass_fields__"):
        inner = vars(value).values()
    for one in inner:
        yield from tensors(one)


def _bad(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(full(tensor.detach())).all())


def keys_of(batch: Any) -> tuple[str, ...]:
    """The names of a batch's clips, where it has `keys`."""
    keys = getattr(batch, "keys", ())
    return () if callable(keys) else tuple(keys)


def size_of(batch: Any) -> int:
    """How many clips a batch has: its keys, or the first axis of its first tensor."""
    first = next(tensors(batch), None)
    return len(keys_of(batch)) or (len(first) if first is not None and first.ndim else 0)
