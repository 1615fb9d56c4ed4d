"""The image recipe on a tiny world: the loss is the weighted v-error, and the export is a UNet that diffusers loads and runs alike."""

from pathlib import Path

import pytest
import torch

from tests import tiny_world
from videogen.shapes.world import SHAPES
from videogen.training.image import Batch, Image, Settings, draw_batch, evened, faded
from videogen.training.recipe import Draw


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Image:
    model = tiny_world.write(tmp_path_factory.mktemp("world"))
    sizes = {"channels": tiny_world.CHANNELS, "depths": tiny_world.DEPTHS, "heads": 2, "groups": 4}
    made = Image(
        Settings(model=model, store=model / "latents", stills=16, judged=2, batch_size=4, object_weight=3.0, **sizes)
    )
    made.prepare(torch.device("cpu"))
    return made


def test_the_loss_is_zero_for_the_true_v_and_weighs_cells(recipe: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, noise = torch.randn(2, 1, 4, 16, 16), torch.randn(2, 1, 4, 16, 16)
    weights = torch.rand(2, 1, 1, 16, 16) + 0.5
    batch = Batch(latents, weights, ["a red star", ""], torch.tensor([999, 400]), noise)
    alpha, sigma = (
        f(batch.times).float()[:, None, None, None, None]
        for f in (recipe.setting.path.alpha, recipe.setting.path.sigma)
    )
    v = alpha * noise - sigma * latents
    error = torch.randn(2, 1, 1, 16, 16)
    level = evened(alpha)
    for wrong, expected in ((0, torch.tensor(0.0)), (1, (level * weights * error**2).sum() / weights.sum())):
        monkeypatch.setattr(recipe.root, "forward", lambda x, *_, wrong=wrong: (v + wrong * error, {}))
        assert torch.allclose(recipe.setting.error(recipe.root, batch), expected, atol=1e-5)


def test_batches_are_shared_out_and_object_cells_weigh_up_to_the_setting(recipe: Image) -> None:
    whole = draw_batch(Draw(5, 1), recipe.data, 16, recipe.settings, torch.device("cpu"))
    halves = [
        draw_batch(Draw(5, 1, 0.0, rank, 2), recipe.data, 16, recipe.settings, torch.device("cpu")) for rank in (0, 1)
    ]
    assert whole.captions == halves[0].captions + halves[1].captions
    assert torch.equal(whole.latents, torch.cat([half.latents for half in halves]))
    assert torch.equal(whole.noise, torch.cat([half.noise for half in halves]))
    assert sorted((whole.times // 250).tolist()) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert whole.weights.min() == 1
    assert 2 < whole.weights.max() <= 3


def test_fours_differ_in_their_shape_only(recipe: Image) -> None:
    batch = draw_batch(Draw(7, 3), recipe.data, 16, recipe.settings, torch.device("cpu"))
    for first in range(0, 16, 4):
        four = slice(first, first + 4)
        assert torch.equal(batch.noise[four], batch.noise[first : first + 1].expand(4, -1, -1, -1, -1))
        assert len(set(batch.times[four].tolist())) == 1
        words = [[word for word in caption.split() if word not in SHAPES] for caption in batch.captions[four]]
        assert all(told == words[0] for told in words)


def test_a_run_can_go_on_from_an_exported_unet(recipe: Image, tmp_path: Path) -> None:
    recipe.export(tmp_path)
    again = Image(recipe.settings.model_copy(update={"start": tmp_path / "unet"}))
    again.prepare(torch.device("cpu"))
    before, after = recipe.root.state_dict(), again.root.state_dict()
    assert all(torch.equal(before[name].half().float(), after[name]) for name in before)


def test_what_tells_fours_apart_counts_more(recipe: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = draw_batch(Draw(7, 3), recipe.data, 4, recipe.settings, torch.device("cpu"))
    plain = batch._replace(weights=torch.ones_like(batch.weights), grounds=None)
    alpha, sigma = (
        f(batch.times).float()[:, None, None, None, None]
        for f in (recipe.setting.path.alpha, recipe.setting.path.sigma)
    )
    v = alpha * batch.noise - sigma * batch.latents
    same, differ = torch.ones(4, 1, 1, 1, 1), torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None, None, None]
    for wrong, expected in ((same, 1.0), (differ, 1.0 + batch.apart)):
        monkeypatch.setattr(recipe.root, "forward", lambda x, *_, wrong=wrong: (v + wrong, {}))
        found = float(recipe.setting.error(recipe.root, plain))
        assert found == pytest.approx(expected * float(evened(alpha).mean()), rel=1e-5)


def test_weights_fade_between_two_shares_of_the_budget() -> None:
    assert [faded((0.4, 0.8), progress) for progress in (0.0, 0.4, 0.6, 0.8, 1.0)] == [1, 1, pytest.approx(0.5), 0, 0]
