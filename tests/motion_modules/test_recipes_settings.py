"""What settings cannot be had is said before a step is made, and what a recipe is judged on."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import training_world
from tests.training_world import MODULES, Worlds, recipe_of, sample
from videogen.errors import InputError
from videogen.training import recipes
from videogen.training.config import RunConfig, validate
from videogen.training.loop import Loop


def test_what_cannot_be_trained_is_said(worlds: Worlds, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="motion modules, and this model has none"):
        recipe_of("motion_lora", worlds, tmp_path)
    with pytest.raises(InputError, match="positions for 2"):
        recipe_of("motion", worlds, tmp_path, modules={"heads": 2, "positions": 2})
    with pytest.raises(InputError, match="not multiples of 16"):
        recipe_of("lora", worlds, tmp_path, {"size": "40x40"})
    with pytest.raises(InputError, match="no layer in this model"):
        recipe_of("lora", worlds, tmp_path, layers="attn7")
    with pytest.raises(InputError, match=r"settings\.stills"):
        recipe_of("joint", worlds, tmp_path, **MODULES, stills=training_world.data(worlds[1], batch_size=4))


def test_a_run_that_shows_nothing_is_refused(worlds: Worlds, tmp_path: Path) -> None:
    values = training_world.run("motion", worlds[0], training_world.data(worlds[1]), tmp_path) | {
        "every": {"validate": 2}
    }
    offer = recipes()["motion"]()
    with pytest.raises(InputError, match=r"settings\.validation names no prompts"):
        offer.build(RunConfig[offer.settings].model_validate(values))  # type: ignore[name-defined]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"width": 20}, r"settings\.validation: width 20 is not a multiple of 8"),
        ({"guidance": float("inf")}, r"settings\.validation: guidance scale inf: give a finite number"),
    ],
)
def test_what_the_model_cannot_show_is_said_before_a_step_is_made(
    worlds: Worlds, tmp_path: Path, wanted: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        recipe_of("motion", worlds, tmp_path, **MODULES, validation={"prompts": ["a"]} | wanted)


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("image", {"alpha": 3.0}, "alpha and layers are of a low-rank change; give its rank"),
        ("image", {"layers": "attn1"}, "alpha and layers are of a low-rank change; give its rank"),
        ("motion", {"motion": "some.ckpt", **MODULES}, "modules says how new ones are built, and motion names some"),
        (
            "motion",
            {"scheduler": {"beta_shedule": "linear"}},
            r"settings\.scheduler: nothing reads beta_shedule; .*beta_schedule",
        ),
    ],
)
def test_settings_that_nothing_would_read_are_refused(
    worlds: Worlds, tmp_path: Path, recipe: str, settings: dict[str, Any], message: str
) -> None:
    values = training_world.run(recipe, worlds[0], training_world.data(worlds[1]), tmp_path, **settings)
    offer = recipes()[recipe]()
    with pytest.raises(InputError, match=message):
        offer.build(validate(RunConfig[offer.settings], values)).prepare(torch.device("cpu"))  # type: ignore[name-defined]


def test_shares_of_rates_are_of_groups_that_there_are(worlds: Worlds, tmp_path: Path) -> None:
    values = training_world.run("joint", worlds[0], training_world.data(worlds[1]), tmp_path, **MODULES)
    offer = recipes()["joint"]()

    def loop(shares: dict[str, float]) -> Loop:
        run = validate(RunConfig[offer.settings], values | {"optimization": {"shares": shares}})  # type: ignore[name-defined]
        return Loop(run, offer.build(run))

    rates = {title: one.param_groups[0]["full"] for title, one in loop({"image": 0.1}).optimizers.items()}
    assert rates["image.adamw"] == pytest.approx(0.1 * rates["motion.adamw"])
    with pytest.raises(
        InputError, match=r"optimization\.shares: there is no group imgae; what trains are motion, image"
    ):
        loop({"imgae": 0.1})
    with pytest.raises(InputError, match=r"optimization\.shares\.image: Input should be greater than or equal to 0"):
        loop({"image": -1})


def test_a_batch_is_judged_clip_by_clip(worlds: Worlds, tmp_path: Path) -> None:
    """What is judged at once must not need more memory than a micro-batch, of which nothing is known here but that it has a clip."""
    recipe = recipe_of("motion", worlds, tmp_path, {"batch_size": 3, "drop": 0.0}, **MODULES)
    seen: list[int] = []
    watching = recipe.root.register_forward_pre_hook(lambda _net, given: seen.append(len(given[0])))
    with torch.no_grad():
        judged = recipe.judge()
        recipe.export(tmp_path)
    assert set(seen) == {1}
    watching.remove()
    whole = sample(recipe)
    for name, found in judged.items():
        times = torch.full_like(whole.times, int(name.removeprefix("error_")))
        with torch.no_grad():
            error = recipe.error(dataclasses.replace(whole, times=times))
        assert found == pytest.approx(float(error), rel=1e-4)


def test_what_cannot_be_read_is_not_judged(worlds: Worlds, tmp_path: Path) -> None:
    recipe = recipe_of("lora", worlds, tmp_path, rank=2)
    whole = recipe.sample
    found = []
    for counts in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
        recipe.sample = [
            dataclasses.replace(batch, counts=torch.tensor([count])) for batch, count in zip(whole, counts, strict=True)
        ]
        with torch.no_grad():
            found.append(recipe.judge())
    for name, error in found[0].items():
        assert found[1][name] != found[2][name]
        assert (found[1][name] + found[2][name]) / 2 == pytest.approx(error, rel=1e-5)

    folder = tmp_path / "broken"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.mp4").write_bytes((worlds[1] / f"{i}.mp4").read_bytes()[:200])
        (folder / f"{i}.txt").write_text("a film")
    broken = recipe_of("lora", (worlds[0], folder), tmp_path, {"broken": 1.0}, rank=2)
    with torch.no_grad(), pytest.warns(UserWarning, match=r"nothing is judged: of .*\.mp4.* none can be read"):
        assert broken.judge() == {}
