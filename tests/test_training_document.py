"""docs/training.md and docs/data.md name every key of a training's configuration, and its example is one."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from motion_modules.recipes import JointSettings, Modules, MotionLoraSettings, MotionSettings, TrainedMotion
from videogen.data.settings import Cache, Data
from videogen.training.config import Every, Optimization, RunConfig, override, validate
from videogen.training.denoising import Loss
from videogen.training.diffusion import LowRankSettings
from videogen.training.flags import FLAGS, spelt
from videogen.training.image_layers import ImageSettings
from videogen.training.keys import fields
from videogen.training.validation import Validation

DOCS = Path(__file__).parents[1] / "docs"
TRAINING, DATA = ((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("training", "data"))
ON_TRAINING = (
    RunConfig, Optimization, Every, Loss, Validation, Modules, MotionSettings, JointSettings, TrainedMotion, MotionLoraSettings,
    LowRankSettings, ImageSettings,
)  # fmt: skip


@pytest.mark.parametrize("model", [*ON_TRAINING, Data, Cache], ids=lambda model: model.__name__)
def test_every_key_is_named(model: type[BaseModel]) -> None:
    keys = [key for key in fields(model) if key != "settings"]
    text = DATA if model in (Data, Cache) else TRAINING
    code = re.findall(r"```yaml\n.*?```|`[^`\n]+`", text, re.DOTALL)
    named = {word for one in code for word in re.findall(r"\w+", one)}
    assert not set(keys) - named


def test_the_default_that_stands_beside_a_key_is_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|`]+) \|", TRAINING, re.MULTILINE))
    for model in (RunConfig, Optimization, Every):
        for key, field in model.model_fields.items():
            told = yaml.safe_load(rows[field.alias or key]) if (field.alias or key) in rows else None
            default = field.get_default(call_default_factory=True) if not field.is_required() else None
            if told is not None and not isinstance(default, BaseModel):
                assert told == (list(default) if isinstance(default, tuple) else default), key


def test_the_example_is_a_configuration() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TRAINING, re.DOTALL)
    assert validate(RunConfig[MotionSettings], yaml.safe_load(block)).settings.model == "shapes"


def test_the_flags_it_shows_are_understood() -> None:
    shown = [word for word in re.findall(r"`(\w+=[^`\s]+)`", TRAINING) if word.partition("=")[0] in FLAGS]
    assert {word.partition("=")[0] for word in shown} == set(FLAGS)
    (block,) = re.findall(r"```yaml\n(.*?)```", TRAINING, re.DOTALL)
    values = override(yaml.safe_load(block), spelt(shown))
    assert validate(RunConfig[MotionSettings], values).budget.steps == 500
