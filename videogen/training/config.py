"""Configurations: a YAML file, `a.b=value` overrides, validated whole before anything runs."""

import contextlib
import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from videogen.errors import InputError
from videogen.training.flags import meanings
from videogen.training.keys import address, advice
from videogen.training.schedules import Schedule


class Strict(BaseModel):
    """A part of a configuration: unknown keys are errors, values do not change.

    may_differ  of a recipe's settings: keys in which, and below which, a resumed run may differ, since no step depends on them
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    may_differ: ClassVar[frozenset[str]] = frozenset()


class Budget(Strict):
    """When a run ends: after so many minutes of training in all its parts together, or after so many steps."""

    minutes: float | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> "Budget":
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give minutes or steps, and not both")
        return self


Share = Annotated[float, Field(ge=0, lt=1)]


class Optimization(Strict):
    """The optimizer, its rates over the budget, clipping by the norm of all gradients, the moving average.

    optimizer     muon: Muon for matrices and kernels, AdamW for the rest; adamw: AdamW for all; adamw8bit: the same with 8-bit state (bitsandbytes)
    muon, adamw   their rates; see muon.Muon for the scale of the first
    schedule      what the rate does after the warm-up, down to 0 but for constant
    warmup        how long it rises: a share of the budget below 1, a number of steps from 1 on
    average       decay of the moving average, which is what is judged and exported
    shares        of the rates, for groups that are to learn more slowly
    """

    optimizer: Literal["muon", "adamw", "adamw8bit"] = "muon"
    muon: float = Field(0.01, gt=0)
    adamw: float = Field(1e-3, gt=0)
    betas: tuple[Share, Share] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Schedule = "cosine"
    warmup: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0)
    average: float = Field(0.999, ge=0, lt=1)
    shares: dict[str, Annotated[float, Field(ge=0)]] = {}

    @property
    def open_ended(self) -> bool:
        """Whether no rate depends on how long the run will be."""
        return self.schedule == "constant" and (self.warmup == 0 or self.warmup >= 1)


class Every(Strict):
    """How often, in steps: a line in the log, a checkpoint (0: only at the end), a judgement on held-out data (0: only at the end),
    and what the recipe makes to be looked at (0: never; else at the end too). Before what is judged or shown there is a checkpoint.
    """

    log: int = Field(10, gt=0)
    checkpoint: int = Field(200, ge=0)
    judge: int = Field(0, ge=0)
    validate_: int = Field(0, ge=0, alias="validate")


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


CARD = "README.md"
"""Lies beside what the recipes on users' data export."""

Settings = TypeVar("Settings", bound=Strict)


class RunConfig(Strict, Generic[Settings]):
    """One training run. `settings` are the recipe's own.

    out                     checkpoints, log.jsonl, validation-N
    export                  where the averaged weights go, in diffusers' layout
    precision               of the forward pass; float16 comes with a loss scale, weights stay float32
    accumulate              micro-batches of a step: the recipe's batch is cut into so many, one after another, for memory's sake
    gradient_checkpointing  activations are computed once more in the backward pass, not kept
    compile                 torch.compile, block by block
    shards                  parameters, gradients and optimizer state are spread over the processes (FSDP2); nothing with one process
    threads                 of each process; left alone where not given
    report_to               beside log.jsonl and stderr
    accept                  keys in which, and below which, a resumed run may differ from its checkpoint
    """

    recipe: str
    out: Path
    export: Path | None = None
    seed: int = 0
    budget: Budget
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: int = Field(1, gt=0)
    gradient_checkpointing: bool = False
    compile: bool = False
    shards: bool = False
    threads: int | None = Field(None, gt=0)
    checkpoints_total_limit: int = Field(2, gt=0)
    report_to: Annotated[tuple[Literal["tensorboard"], ...], BeforeValidator(_several)] = ()
    optimization: Optimization = Optimization()
    every: Every = Every()
    accept: tuple[str, ...] = ()
    settings: Settings

    @model_validator(mode="after")
    def _agree(self) -> "RunConfig[Settings]":
        warmup, steps = self.optimization.warmup, self.budget.steps
        if warmup >= 1 and (warmup != int(warmup) or steps is None or warmup >= steps):
            raise ValueError(
                f"optimization.warmup is {warmup:g}: give a share of the budget below 1, or fewer whole steps than budget.steps"
            )
        if self.shards and self.precision == "float16":
            raise ValueError("shards go with precision float32 or bfloat16")
        return self

    @property
    def warmup(self) -> float:
        """How long the rate rises, as a share of the budget."""
        warmup = self.optimization.warmup
        return warmup if warmup < 1 else warmup / (self.budget.steps or 1)


MAY_DIFFER = frozenset(
    {
        "accept", "out", "export", "threads", "checkpoints_total_limit", "every", "report_to", "shards",
        "gradient_checkpointing",
    }
)  # fmt: skip
"""Keys in which a resumed run may differ from the run it goes on from. They steer how long, how often and where, not what is learnt from a step.

The recipes have more of them, `Strict.may_differ`; where no rate depends on it (`Optimization.open_ended`), the budget is one too.
"""


def load(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The YAML mapping of a configuration with the overrides put in; nothing is validated yet."""
    return override(read(path), overrides)


def read(path: str | Path) -> dict[str, Any]:
    """The YAML mapping in a file."""
    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"no configuration {file}: {problem.strerror}") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise InputError(f"{file} is not YAML: {' '.join(str(problem).split())}") from problem
    if not isinstance(values, dict):
        raise InputError(f"{file} must hold a mapping of keys to values")
    return values


def override(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The values with `a.b=value` put in, in place; in a list that is there, a number names an entry: `a.0.b=value`."""
    for one in overrides:
        _put(values, one)
    return values


def _put(values: dict[str, Any], override: str) -> None:
    address, equals, text = override.partition("=")
    if not equals or not address:
        raise InputError(f"the override {override!r} must look like a.b=value")
    keys = address.split(".")
    place: Any = values
    for i, key in enumerate(keys[:-1]):
        if isinstance(place, dict) and key not in place:
            if keys[i + 1].isdecimal():
                whole = ".".join(keys[: i + 1])
                raise InputError(
                    f"the override {override!r} names an entry of {whole}, which is no list in the file; give it whole: {whole}=[...]"
                )
            place[key] = {}
        place = place[_key(place, keys[: i + 1], override)]
        if not isinstance(place, dict | list):
            raise InputError(f"the override {override!r} goes through {key}, which is a single value")
    try:
        place[_key(place, keys, override)] = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise InputError(f"the override {override!r} has a value that is not YAML") from problem


def _key(place: dict[str, Any] | list[Any], keys: Sequence[str], override: str) -> Any:
    """The last of `keys` as `place` takes it: a number where that is a list. Raises InputError where the list has no such entry."""
    if isinstance(place, dict):
        return keys[-1]
    if not keys[-1].isdecimal() or int(keys[-1]) >= len(place):
        whole = ".".join(keys[:-1])
        raise InputError(
            f"the override {override!r}: {whole} is a list of {len(place)}, counted from 0; name an entry, or give it whole: {whole}=[...]"
        )
    return int(keys[-1])


def validate(model: type[BaseModel], values: Mapping[str, Any]) -> Any:
    """An instance of `model`. Raises InputError with the path of the first wrong key, and the nearest right one."""
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        errors = problem.errors()  # a misspelt key that is needed is missing too, and the spelling is what to say
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        if first["type"] == "extra_forbidden":
            foreign = meanings() if issubclass(model, RunConfig) else {}
            raise InputError(f"configuration: there is no key {advice(model, first['loc'], foreign)}") from problem
        path = address(model, first["loc"]) or "the whole"
        raise InputError(f"configuration: {path}: {first['msg'].removeprefix('Value error, ')}") from problem


def difference(before: Mapping[str, Any], now: Mapping[str, Any], free: Set[str]) -> list[str]:
    """What two configurations (as JSON values) differ in, outside the keys in `free` and all below them: `a.b: old -> new`."""
    old, new = _flat(before), _flat(now)
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    counted = [key for key in changed if free.isdisjoint(_and_above(key))]
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in counted]


def _and_above(key: str) -> list[str]:
    """`a.b.c`, `a.b` and `a`."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def accepted(config: RunConfig[Any], before: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError where a checkpoint of the configuration `before`, in `folder`, is of another recipe or another run than `config`.

    Keys that have come since it was written count as what they are when nobody gives them.
    """
    if before.get("recipe") != config.recipe and "recipe" not in config.accept:
        raise InputError(f"{folder} is a checkpoint of the recipe {before.get('recipe')}, and this is {config.recipe}")
    with contextlib.suppress(ValidationError):
        before = type(config).model_validate(before).model_dump(mode="json", by_alias=True)
    free = MAY_DIFFER.union(config.accept, (f"settings.{key}" for key in config.settings.may_differ))
    if config.optimization.open_ended:
        free = free | {"budget"}
    if changed := difference(before, config.model_dump(mode="json", by_alias=True), free):
        raise InputError(
            f"{folder} was made with another configuration: {'; '.join(changed)}; accept=[KEY, ...] allows it"
        )


def same_origin(before: Mapping[str, str], now: Mapping[str, str], accept: Set[str], folder: Path) -> None:
    """Raise InputError where what a checkpoint in `folder` was made from (`recipe.Founded`) is not there any more as it was."""
    known = now.keys() & before.keys()
    then, here = ({"origin": {name: one[name] for name in known}} for one in (before, now))
    if changed := difference(then, here, accept):
        raise InputError(
            f"{folder} was made from other clips or weights under the same names: {'; '.join(changed)}; accept=[KEY, ...] allows it"
        )


def check_folders(config: RunConfig[Any]) -> None:
    """Raise InputError where `out` or `export` cannot be a folder, because it, or what it would lie in, is a file."""
    for key, folder in (("out", config.out), ("export", config.export)):
        there = next((path for path in (folder, *folder.parents) if path.exists()), None) if folder else None
        if there is not None and not there.is_dir():
            raise InputError(f"{key}: {there} is a file; give a folder")


def check_export(config: RunConfig[Any]) -> None:
    """Raise InputError where a new run would put what it makes in the place of what another has made, which its card tells."""
    if config.export and (config.export / CARD).exists():
        raise InputError(
            f"export: {config.export} holds what an earlier training made; give another export=FOLDER, or move it away"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": json.dumps(value)}
        )
    return flat
