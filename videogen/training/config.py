"""Configurations: a YAML file, `a.b=value` overrides, validated whole before anything runs."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from videogen.errors import InputError


class Strict(BaseModel):
    """A part of a configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(Strict):
    """When a run ends: after so many minutes of training in all its parts together, or after so many steps."""

    minutes: float | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give minutes or steps, and not both")
        return self


class Optimization(Strict):
    """Muon for matrices and kernels, AdamW for the rest; warm-up and cosine over the budget; clipping by the norm of all gradients."""

    muon: float = Field(0.01, gt=0)  # Muon's rate; see muon.Muon for the scale
    adamw: float = Field(1e-3, gt=0)  # AdamW's rate
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)  # share of the budget
    clip: float = Field(1.0, gt=0)
    average: float = Field(0.999, ge=0, lt=1)  # decay of the moving average
    shares: dict[str, float] = {}  # of the rates, for groups that are to learn more slowly


class Every(Strict):
    """How often, in steps: a line in the log, a checkpoint, a judgement on held-out data (0: only at the end)."""

    log: int = Field(10, gt=0)
    checkpoint: int = Field(200, ge=0)
    judge: int = Field(0, ge=0)


Settings = TypeVar("Settings", bound=Strict)


class RunConfig(Strict, Generic[Settings]):
    """One training run. `settings` are the recipe's own."""

    recipe: str
    out: Path  # checkpoints and log.jsonl
    export: Path | None = None  # where the averaged weights go, in diffusers' layout
    seed: int = 0
    budget: Budget
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = Field(None, gt=0)  # of each process; left alone where not given
    checkpoints_total_limit: int = Field(2, gt=0)
    optimization: Optimization = Optimization()
    every: Every = Every()
    accept: tuple[str, ...] = ()  # keys in which a resumed run may differ from its checkpoint
    settings: Settings


MAY_DIFFER = frozenset({"accept", "budget", "out", "export", "threads", "checkpoints_total_limit", "every"})
"""Keys in which a resumed run may differ from the run it goes on from. They steer how long and how often, not what is learnt from a step."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The YAML mapping of a configuration with the overrides put in; nothing is validated yet."""
    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"no configuration {file}: {problem.strerror}") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise InputError(f"{file} is not YAML: {' '.join(str(problem).split())}") from problem
    if not isinstance(values, dict):
        raise InputError(f"{file} must hold a mapping of keys to values")
    for override in overrides:
        _put(values, override)
    return values


def _put(values: dict[str, Any], override: str) -> None:
    address, equals, text = override.partition("=")
    if not equals or not address:
        raise InputError(f"the override {override!r} must look like a.b=value")
    *parents, last = address.split(".")
    for key in parents:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise InputError(f"the override {override!r} goes through {key}, which is a single value")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise InputError(f"the override {override!r} has a value that is not YAML") from problem


def validate(model: type[BaseModel], values: Mapping[str, Any]) -> Any:
    """An instance of `model`. Raises InputError with the path of the first wrong key, and the nearest right one."""
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] != "extra_forbidden":
            raise InputError(f"configuration: {path or 'the whole'}: {first['msg']}") from problem
        known = _keys_at(model, [str(part) for part in first["loc"][:-1]])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.4)
        advice = (
            f"did you mean {'.'.join([*path.split('.')[:-1], near[0]])}?" if near else f"known are {', '.join(known)}"
        )
        raise InputError(f"configuration: there is no key {path}; {advice}") from problem


def _keys_at(model: type[BaseModel], parents: Sequence[str]) -> list[str]:
    for name in parents:
        inner = model.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two configurations (as JSON values) differ in, outside the keys that may differ and those that `now` accepts: `a.b: old -> new`."""
    old, new = _flat(before), _flat(now)
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    counted = [key for key in changed if key.split(".")[0] not in MAY_DIFFER and key not in now.get("accept", ())]
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in counted]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": json.dumps(value)}
        )
    return flat
