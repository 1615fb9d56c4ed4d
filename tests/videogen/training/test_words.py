"""The recipe of the text tower: what its heads ask for, and that parts which read the tower go on as before."""

from pathlib import Path

import pytest
import torch

from tests import tiny_world
from videogen.models.folder import load_unet
from videogen.training.config import RunConfig
from videogen.training.loop import Loop
from videogen.training.words import SLOTS, Settings, Words


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.write(tmp_path_factory.mktemp("world"))


def test_a_state_is_asked_for_the_words_up_to_it_and_the_end_for_what_is_said_of_each_object(world: Path) -> None:
    recipe = Words(Settings(model=world))
    recipe.prepare(torch.device("cpu"))
    batch = recipe.batch(["a red circle moving left and a blue square growing"])
    red, blue = (recipe.tokenizer.convert_tokens_to_ids(f"{word}</w>") for word in ("red", "blue"))
    at = batch.ids[0].tolist().index
    assert batch.said[0, : at(red), red].sum() == 0
    assert bool((batch.said[0, at(red) :, red] == 1).all())
    assert batch.said[0, : at(blue), blue].sum() == 0
    assert batch.behind[0].tolist() == [number >= at(recipe.tokenizer.eos_token_id) for number in range(77)]
    classes = dict(zip(SLOTS, batch.slots[0].tolist(), strict=True))
    named = {slot: SLOTS[slot][number - 1] for slot, number in classes.items() if number}
    assert named == {
        "shape 0": "circle", "colour 0": "red", "motion 0": "moving left",
        "shape 1": "square", "colour 1": "blue", "motion 1": "growing",
        "style": "flat", "camera": "none",
    }  # fmt: skip


def test_a_tower_told_apart_is_read_by_the_translated_unet_as_the_old_one(world: Path, tmp_path: Path) -> None:
    """A rotation of the states is translated without a loss: keys and values of text come out as they were."""
    recipe = Words(Settings(model=world, captions=8, judged=4))
    recipe.prepare(torch.device("cpu"))
    turn = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(0)))[0]
    states = recipe.root.states

    def turned(ids: torch.Tensor) -> torch.Tensor:
        return states(ids) @ turn

    recipe.root.states = turned  # type: ignore[method-assign]
    recipe.export(tmp_path)
    ids = recipe.tokens(["a red circle", "two things"])
    old, new = recipe.before(input_ids=ids).last_hidden_state, turned(ids)
    before, after = (dict(load_unet(folder / "unet", torch.float32).named_parameters()) for folder in (world, tmp_path))
    names = [name for name in before if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    assert names
    for name in names:
        torch.testing.assert_close(new @ after[name].T, old @ before[name].T, atol=2e-2, rtol=2e-2)
    assert all(torch.equal(before[name].half(), after[name].half()) for name in before if name not in names)


def test_training_shows_more_in_the_states(world: Path, tmp_path: Path) -> None:
    settings = Settings(model=world, captions=16, judged=8)
    values = {
        "recipe": "words", "out": tmp_path / "run", "budget": {"steps": 8}, "settings": settings,
        "optimization": {"muon": 0.02, "adamw": 0.01, "average": 0.5, "warmup": 0.1},
    }  # fmt: skip
    recipe = Words(settings)
    recipe.judge = dict  # type: ignore[method-assign]
    loop = Loop(RunConfig[Settings].model_validate(values), recipe)
    (_, losses), *_ = recipe.losses(recipe.batch(["a red circle moving left on a black background", "a blue square"]))
    before = {name: float(value.detach()) for name, value in losses().items()}
    loop.run()
    after = losses()
    assert all(float(after[name].detach()) < 0.9 * before[name] for name in ("said", "near", "slots"))
    assert before["kept"] == 0
