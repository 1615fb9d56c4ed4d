"""The flags of the common example scripts as keys of a configuration, so that what people know by heart works.

A flag is another spelling of keys that exist. Those that belong to a recipe differ from recipe to recipe: for them the error says where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from videogen.errors import InputError

Values = Mapping[str, Any]


def _at(*addresses: str) -> Callable[[Any], Values]:
    return lambda value: dict.fromkeys(addresses, value)


def _renamed(name: str, names: Mapping[Any, str]) -> Callable[[Any], Values]:
    return lambda value: {name: names.get(value, value)}


FLAGS: Mapping[str, Callable[[Any], Values]] = {
    "output_dir": _at("out"),
    "max_train_steps": lambda steps: {"budget": {"steps": steps}},
    "gradient_accumulation_steps": _at("accumulate"),
    # YAML reads a bare `no` as false
    "mixed_precision": _renamed("precision", {"no": "float32", False: "float32", "fp16": "float16", "bf16": "bfloat16"}),
    "learning_rate": _at("optimization.muon", "optimization.adamw"),
    "lr_scheduler": _renamed("optimization.schedule", {"constant_with_warmup": "constant"}),
    "lr_warmup_steps": _at("optimization.warmup"),
    "max_grad_norm": _at("optimization.clip"),
    "use_8bit_adam": lambda on: {"optimization.optimizer": "adamw8bit"} if on else {},
    "checkpointing_steps": _at("every.checkpoint"),
    "validation_steps": _at("every.validate"),
}  # fmt: skip
"""What each flag stands for: values at addresses."""

ELSEWHERE = {
    "resume_from_checkpoint": "give --resume latest, or resume=",
    "train_batch_size": "the batch of a step is the recipe's, settings.data.batch_size where it reads clips",
    "resolution": "sizes are the recipe's, settings.data.size where it reads clips",
    "validation_prompt": "what is made to be looked at is the recipe's, under settings",
}
"""Flags that are no keys of a run, and what is."""


def meanings() -> Mapping[str, str]:
    """Every flag, and half a sentence that says which keys are meant here."""
    here = {flag: f"here that is {' and '.join(_addresses(meant(True)))}" for flag, meant in FLAGS.items()}
    return here | ELSEWHERE


def _addresses(values: Values) -> list[str]:
    """`a.b` for every value, at an address or in mappings of mappings."""
    found: list[str] = []
    for name, value in values.items():
        found += [f"{name}.{inner}" for inner in _addresses(value)] if isinstance(value, Mapping) else [name]
    return found


def translated(values: Values) -> dict[str, Any]:
    """A configuration's values with flags at the addresses they stand for. Raises InputError where a value is there under both names."""
    made = {name: value for name, value in values.items() if name not in FLAGS}
    for name, advice in ELSEWHERE.items():
        if name in values:
            raise InputError(f"configuration: there is no key {name}; {advice}")
    for flag in values.keys() & FLAGS.keys():
        for address, value in FLAGS[flag](values[flag]).items():
            *parents, last = address.split(".")
            place = made
            for parent in parents:
                inner = place.get(parent, {})
                if not isinstance(inner, Mapping):
                    raise InputError(f"configuration: {parent} must hold keys, and is a single value")
                place[parent] = place = dict(inner)
            if last in place:
                raise InputError(f"configuration: {flag} and {address} are the same; give one of them")
            place[last] = value
    return made


def spelt(overrides: Sequence[str]) -> list[str]:
    """Overrides `a.b=value` with flags as the overrides they stand for."""
    result: list[str] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        if name in ELSEWHERE:
            raise InputError(f"configuration: there is no key {name}; {ELSEWHERE[name]}")
        if name not in FLAGS or not equals:
            result.append(override)
            continue
        try:
            values = FLAGS[name](yaml.safe_load(text))
        except yaml.YAMLError as problem:
            raise InputError(f"the override {override!r} has a value that is not YAML") from problem
        result += [
            f"{address}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"
            for address, value in values.items()
        ]
    return result
