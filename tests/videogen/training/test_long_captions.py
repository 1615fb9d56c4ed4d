"""A clip's loss does not depend on its neighbours' captions: not in another process, another micro-batch, or out of the cache."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import training_world
from videogen.data.cache import fill
from videogen.data.clips import Clips
from videogen.data.encoders import ModelEncoders
from videogen.data.settings import Data
from videogen.errors import InputError
from videogen.training import recipes
from videogen.training.config import RunConfig
from videogen.training.recipe import Draw

Worlds = tuple[Path, Path]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """A model folder and two films, one of them with a caption of two chunks."""
    folder = tmp_path_factory.mktemp("world")
    films = training_world.films(folder / "films", 2)
    (films / "0.txt").write_text("a film of " + "very " * 80 + "long roads")
    return training_world.model(folder / "model"), films


def section(worlds: Worlds, **values: Any) -> dict[str, Any]:
    return training_world.data(worlds[1], **({"drop": 0.0, "chunks": 2} | values))


def recipe_of(worlds: Worlds, out: Path, recipe: str = "lora", data: dict[str, Any] | None = None, **more: Any) -> Any:
    """A recipe that is prepared, without a loop."""
    offer = recipes()[recipe]()
    values = training_world.run(recipe, worlds[0], data or section(worlds), out, **more)
    made: Any = offer.build(RunConfig[offer.settings].model_validate(values))  # type: ignore[name-defined]
    made.prepare(torch.device("cpu"))
    return made


@torch.no_grad()
def loss(recipe: Any, *draws: Draw) -> float:
    """The mean over the parts of one step."""
    return sum(float(recipe.error(next(recipe.batches(iter([draw]))))) for draw in draws) / len(draws)


def told(recipe: Any) -> Tensor:
    """The tokens of a step."""
    found: Tensor = next(recipe.batches(iter([Draw(0, 0)]))).told.tokens["text"]
    return found


PARTS = {
    "processes": (Draw(0, 0, 0.0, 0, 2), Draw(0, 0, 0.0, 1, 2)),
    "micro-batches": (Draw(0, 0, 0.0, 0, 1, 0, 2), Draw(0, 0, 0.0, 0, 1, 1, 2)),
}


def test_a_step_is_the_same_however_it_is_cut_and_wherever_it_comes_from(worlds: Worlds, tmp_path: Path) -> None:
    files = recipe_of(worlds, tmp_path)
    whole = loss(files, Draw(0, 0))
    stored = section(worlds, cache={"folder": str(tmp_path / "cache")})
    fill(Clips(Data.model_validate(stored), 0), ModelEncoders(worlds[0]))
    cache = recipe_of(worlds, tmp_path, data=stored)
    cache.root.load_state_dict(files.root.state_dict())
    assert loss(cache, Draw(0, 0)) == pytest.approx(whole, abs=1e-5)
    for parts in PARTS.values():
        assert loss(files, *parts) == pytest.approx(whole, abs=1e-5)
        assert loss(cache, *parts) == pytest.approx(whole, abs=1e-5)


def test_a_long_caption_is_cut_and_that_is_said(worlds: Worlds, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="captions are cut that take more than chunks: 1"):
        one = told(recipe_of(worlds, tmp_path, data=section(worlds, chunks=1)))
    assert 2 * one.shape[1] == told(recipe_of(worlds, tmp_path)).shape[1]


def test_stills_take_as_many_chunks_as_the_clips(worlds: Worlds, tmp_path: Path) -> None:
    pictures = training_world.pictures(tmp_path / "pictures")
    stills = training_world.data(pictures, frames=1, batch_size=4)
    with pytest.raises(InputError, match=r"settings\.stills\.chunks"):
        recipe_of(worlds, tmp_path, "joint", modules={"heads": 2}, stills=stills)
    recipe = recipe_of(worlds, tmp_path, "joint", modules={"heads": 2}, stills=stills | {"chunks": 2})
    assert told(recipe).shape[1] == 4 + 2
