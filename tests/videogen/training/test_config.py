"""A wrong key names its path and the nearest right one; overrides go where they say; every shipped configuration is valid."""

from pathlib import Path
from typing import Any

import pytest

from motion_modules.training import offer
from videogen.data.settings import Data
from videogen.errors import InputError
from videogen.training import recipes
from videogen.training.config import RunConfig, accepted, load, override, validate
from videogen.training.flags import spelt, translated
from videogen.training.schedules import rate

OFFERS = {**recipes(), "shapes_motion": offer}
CONFIGS = [
    path
    for folder in ("miniature", "training")
    for path in sorted((Path(__file__).parents[3] / "configs" / folder).glob("*.yaml"))
]


@pytest.fixture
def vae() -> Path:
    return Path(__file__).parents[3] / "configs" / "miniature" / "vae.yaml"


def validated(path: Path, *overrides: str) -> RunConfig:
    values = load(path, overrides)
    return validate(RunConfig[OFFERS[values["recipe"]]().settings], values)  # type: ignore[misc]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid_and_says_its_command(path: Path) -> None:
    assert validated(path).recipe in OFFERS
    assert f"videogen train {path.parent.name}/{path.stem}" in path.read_text().replace("-m videogen", "videogen")


def test_overrides_are_yaml_at_an_address(vae: Path) -> None:
    config = validated(vae, "budget={steps: 5}", "optimization.muon=0.5", "settings.widths=[8, 16]", "export=null")
    assert config.budget.steps == 5
    assert config.budget.minutes is None
    assert config.optimization.muon == 0.5
    assert config.settings.widths == (8, 16)
    assert config.export is None


def test_numbers_are_entries_of_lists() -> None:
    values = {"a": [[1, 2], {"b": 3}], "c": {"0": 4}}
    override(values, ["a.0.1=5", "a.1.b=[6]", "a.1.d.e=7", "c.0=8"])
    assert values == {"a": [[1, 5], {"b": [6], "d": {"e": 7}}], "c": {"0": 8}}
    for wrong, message in (
        ("a.2=1", r"a is a list of 2, counted from 0; name an entry, or give it whole: a=\[\.\.\.\]"),
        ("a.0.x=1", r"a\.0 is a list of 2,"),
        ("a.-1=1", "a is a list"),
        (
            "c.phases.0.2=1",
            r"names an entry of c\.phases, which is no list in the file; give it whole: c\.phases=\[\.\.\.\]",
        ),
        ("a.1.b.0.x=1", r"goes through 0, which is a single value"),
    ):
        with pytest.raises(InputError, match=message):
            override(values, [wrong])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("settings.crops=3", r"no key settings\.crops; did you mean settings\.crop\?"),
        ("optimisation.muon=1", r"no key optimisation; did you mean optimization\?"),
        (
            "learing_rate=1",
            r"no key learing_rate; did you mean learning_rate\? here that is optimization\.muon and optimization\.adamw",
        ),
        (
            "optimization.learning_rate=1",
            r"did you mean learning_rate\? here that is optimization\.muon and optimization\.adamw",
        ),
        ("max_train_step=1", r"did you mean max_train_steps\? here that is budget\.steps"),
        ("use_8bit_adm=1", r"did you mean use_8bit_adam\? here that is optimization\.optimizer"),
        ("train_batchsize=1", r"did you mean train_batch_size\? the batch .* settings\.data\.batch_size"),
        ("settings.max_train_step=1", r"did you mean max_train_steps\?"),
        ("every.validation=1", r"did you mean every\.validate\?"),
        ("optimization.zzz=1", r"no key optimization\.zzz; known are optimizer, muon, adamw"),
        ("budget.steps=3", "give minutes or steps"),
        ("seed=many", "seed: Input should be a valid integer"),
        ("seed", "must look like a.b=value"),
        ("seed.x=1", "goes through seed"),
    ],
)
def test_mistakes_are_named(vae: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validated(vae, override)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no configuration"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="mapping"):
        load(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(InputError, match="not YAML"):
        load(tmp_path / "broken.yaml")


def test_flags_of_the_common_scripts_are_other_spellings(vae: Path) -> None:
    flags = ["max_train_steps=100", "mixed_precision=fp16", "learning_rate=1e-4", "lr_scheduler=constant_with_warmup",
             "lr_warmup_steps=10", "gradient_accumulation_steps=2", "use_8bit_adam=true", "validation_steps=50"]  # fmt: skip
    config = validated(vae, *spelt(flags), "report_to=tensorboard")
    assert (config.budget.steps, config.budget.minutes, config.precision, config.accumulate) == (
        100,
        None,
        "float16",
        2,
    )
    made = config.optimization
    assert (made.muon, made.adamw, made.schedule, made.optimizer) == (1e-4, 1e-4, "constant", "adamw8bit")
    assert (config.warmup, config.every.validate_, config.report_to) == (0.1, 50, ("tensorboard",))
    file = {"recipe": "x", "max_train_steps": 5, "max_grad_norm": 2.0, "optimization": {"muon": 0.1}}
    assert translated(file) == {"recipe": "x", "budget": {"steps": 5}, "optimization": {"muon": 0.1, "clip": 2.0}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_train_steps": 5, "budget": {"minutes": 1}}, "max_train_steps and budget are the same"),
        ({"train_batch_size": 5}, r"no key train_batch_size; .*settings\.data\.batch_size"),
        ({"resume_from_checkpoint": "latest"}, "--resume latest"),
        ({"optimization": 3, "max_grad_norm": 1}, "optimization must hold keys"),
    ],
)
def test_flags_that_say_a_thing_twice_or_belong_elsewhere(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        translated(values)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimization.warmup=1.5", "optimization.warmup is 1.5"),
        ("optimization.warmup=20", "fewer whole steps than budget.steps"),
        ("optimization.betas=[0.9,1.5]", r"optimization\.betas\.1: Input should be less than 1"),
        ("precision=fp8", "precision: Input should be 'float32', 'bfloat16' or 'float16'"),
        ("every.validat=2", r"did you mean every\.validate\?"),
    ],
)
def test_values_that_do_not_go_together(vae: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validated(vae, override)


def test_keys_are_found_through_lists_and_unions() -> None:
    source = {"layout": "webvid", "csv": "a.csv", "videos": "v"}
    for wrong, message in (
        ({"captoin": "name"}, r"no key sources\.0\.captoin; did you mean sources\.0\.caption\?"),
        ({"zzzz": 1}, r"no key sources\.0\.zzzz; known are weight, prompt, missing, layout, csv"),
        ({"weight": -1}, r"configuration: sources\.0\.weight: Input should be greater than 0"),
    ):
        with pytest.raises(InputError, match=message):
            validate(Data, {"sources": [source | wrong]})
    with pytest.raises(InputError, match=r"did you mean cache\.folder\?"):
        validate(Data, {"sources": [source], "cache": {"foldr": "x"}})


def test_keys_that_have_come_since_count_as_their_defaults(vae: Path) -> None:
    config = validated(vae)
    before = config.model_dump(mode="json", by_alias=True)
    del before["accumulate"], before["optimization"]["schedule"]
    accepted(config, before, Path("checkpoint-1"))
    with pytest.raises(InputError, match="accumulate: 1 -> 2"):
        accepted(validated(vae, "accumulate=2"), before, Path("checkpoint-1"))
    accepted(validated(vae, "accumulate=2", "accept=[accumulate]"), before, Path("checkpoint-1"))


@pytest.mark.parametrize(
    ("optimization", "free"),
    [
        ({"schedule": "constant", "warmup": 0}, True),
        ({"schedule": "constant", "warmup": 5}, True),
        ({"schedule": "constant", "warmup": 0.3}, False),
        ({"schedule": "linear", "warmup": 0}, False),
        ({"schedule": "cosine", "warmup": 5}, False),
    ],
)
def test_a_longer_run_is_another_one_where_rates_depend_on_its_length(
    vae: Path, optimization: dict[str, Any], free: bool
) -> None:
    words = ["budget={steps: 10}", *(f"optimization.{key}={value}" for key, value in optimization.items())]
    before, longer = validated(vae, *words), [*words, "budget={steps: 20}"]
    told = before.model_dump(mode="json", by_alias=True)

    def first_rates(*overrides: str) -> list[float]:
        config = validated(vae, *overrides)
        assert config.budget.steps
        spent = [step / config.budget.steps for step in range(10)]
        return [rate(share, config.warmup, config.optimization.schedule) for share in spent]

    assert (first_rates(*longer) == pytest.approx(first_rates(*words))) == free
    if not free:
        with pytest.raises(InputError, match=r"budget\.steps: 10 -> 20"):
            accepted(validated(vae, *longer), told, Path("checkpoint-1"))
    accepted(validated(vae, *longer, *(() if free else ("accept=[budget]",))), told, Path("checkpoint-1"))


def test_a_resumed_run_may_differ_in_what_no_step_depends_on() -> None:
    data: dict[str, Any] = {"sources": [{"layout": "pairs", "folder": "clips"}], "size": "32x32"}
    stills = data | {"frames": 1}
    values: dict[str, Any] = {"recipe": "joint", "out": "run", "budget": {"steps": 3}}

    def config(settings: dict[str, Any], accept: tuple[str, ...] = ()) -> RunConfig:
        section = {"settings": {"model": "shapes", "data": data, "stills": stills} | settings, "accept": accept}
        found: RunConfig = validate(RunConfig[OFFERS["joint"]().settings], values | section)  # type: ignore[misc]
        return found

    before = config({}).model_dump(mode="json", by_alias=True)
    reading = {"workers": 7, "store": "elsewhere", "broken": 0.5}
    free = {
        "validation": {"prompts": ["a"]},
        "export_dtype": "float16",
        "data": data | reading,
        "stills": stills | reading,
    }
    accepted(config(free), before, Path("checkpoint-1"))
    other = {"data": data | {"batch_size": 8, "flip": False}}
    with pytest.raises(InputError, match=r"settings\.data\.batch_size: 4 -> 8; settings\.data\.flip: true -> false;"):
        accepted(config(other, ("settings.data.batch", "settings.data.flip.x")), before, Path("checkpoint-1"))
    for accept in (("settings.data",), ("settings",), ("settings.data.batch_size", "settings.data.flip")):
        accepted(config(other, accept), before, Path("checkpoint-1"))
