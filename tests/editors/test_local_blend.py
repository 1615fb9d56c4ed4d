"""Where words are, from maps made by hand; which maps those are at every size; and what a local blend leaves alone."""

import pytest
import torch

from editors.local_blend import LocalBlend, added, blend_words, word_mask
from editors.map_levels import attention_sites, grid, level_of, word_sites
from tests import folders, nets
from videogen.errors import InputError
from videogen.models.presets import SD1_UNET
from videogen.models.unet import UNet, UNetConfig
from videogen.models.words import tokenize
from videogen.prediction import Prediction


def spot(rows: slice, columns: slice) -> torch.Tensor:
    """Maps `1 1 heads n m` of two heads and three tokens on a grid of 6 x 4; token 1 looks at a rectangle."""
    maps = torch.full((1, 1, 2, 6, 4, 3), 0.01)
    maps[:, :, :, rows, columns, 1] = 1.0
    return maps.flatten(3, 4)


def test_a_mask_is_the_words_place_one_cell_wider_and_enlarged():
    mask = word_mask({"here": spot(slice(2, 3), slice(1, 2))}, {"here": 1}, torch.tensor([0.0, 1.0, 0.0]), (12, 8), 0.5)
    expected = torch.zeros(12, 8, dtype=torch.bool)
    expected[2:8, 0:6] = True
    assert torch.equal(mask[0, 0], expected)


@pytest.mark.parametrize(("threshold", "share"), [(-1.0, 1.0), (0.0, 1.0), (2.0, 0.0)])
def test_thresholds_below_0_and_above_1_are_everywhere_and_nowhere(threshold, share):
    mask = word_mask(
        {"here": spot(slice(0, 1), slice(0, 1))}, {"here": 1}, torch.tensor([0.0, 1.0, 0.0]), (12, 8), threshold
    )
    assert mask.float().mean() == share


def test_words_that_a_prompt_lacks_are_nowhere():
    assert not word_mask({"here": spot(slice(0, 1), slice(0, 1))}, {"here": 1}, torch.zeros(3), (12, 8), 0.3).any()


def test_windows_add_up_by_frame():
    first, second = torch.ones(2, 2, 1, 4, 3), torch.ones(2, 2, 1, 4, 3)
    total = added(added(None, first, (0, 1)), second, (1, 2))
    assert total.shape[1] == 3
    assert total[0, :, 0, 0, 0].tolist() == [1, 2, 1]


@pytest.mark.parametrize(("threshold", "expected"), [(2.0, "source"), (0.0, "target")])
def test_an_empty_mask_gives_the_source_and_a_full_one_the_target(threshold, expected):
    x, times = nets.clip(2, 3, (12, 8)), [900.0, 500.0]
    maps = {"here": spot(slice(0, 2), slice(0, 2)).mean(2, keepdim=True).expand(2, 3, -1, -1, -1)}
    pred = Prediction(x, x, 0.5, 0.5, "eps", kept=maps)
    blend = LocalBlend(torch.tensor([[0.0, 1.0, 0.0]] * 2), {"here": 1}, times, threshold, (0.5, 1.0))
    ask = blend.listening(lambda x, t, frames=None: pred)
    assert torch.equal(blend(x, 500.0, ask(x, 900.0)), x)  # before its window
    after = blend(x, -1.0, ask(x, 500.0))
    assert torch.equal(after[0], x[0])
    assert torch.equal(after[1], x[1] if expected == "target" else x[0])
    assert blend.mask.shape == (3, 12, 8)


def test_blend_words_may_stand_in_either_prompt():
    source, target = (tokenize(text, folders.tokenizer()) for text in ("a red circle", "a red dot"))
    marks = blend_words(source, target, ("circle", "dot"))
    assert [row.nonzero().flatten().tolist() for row in marks] == [
        list(source.where("circle")),
        list(target.where("dot")),
    ]
    with pytest.raises(InputError, match="'square' is in neither prompt"):
        blend_words(source, target, ["circle", "square"])


def test_in_stable_diffusion_these_are_the_papers_maps():
    with torch.device("meta"):
        unet = UNet(SD1_UNET)
    assert [level_of(unet, side) for side in (64, 32, 16, 8)] == [0, 1, 2, 3]
    assert sorted(place.split(".transformer")[0] for place in word_sites(unet)) == [
        *(f"down_blocks.2.attentions.{i}" for i in (0, 1)),
        *(f"up_blocks.1.attentions.{i}" for i in (0, 1, 2)),
    ]
    assert len(attention_sites(unet)) == 32


def test_a_model_without_such_small_maps_uses_the_deepest_it_has():
    config = nets.diffusers_config("sdxl") | {"sample_size": 128}
    with torch.device("meta"):
        unet = UNet(UNetConfig.from_diffusers(config))
    assert level_of(unet, 16) == 2
    assert set(word_sites(unet).values()) == {2}


@pytest.mark.parametrize("size", [(8, 8), (9, 6), (13, 7)])
def test_grids_are_those_that_the_network_has(size):
    unet, seen = nets.tiny_unet(), {}

    class Look(nets.Maps):
        def maps(self, site, probs, p):
            seen[site] = (p.grid(site), probs.shape[3])
            return probs

    nets.predict(unet, nets.clip(1, 1, size), nets.condition(), Look())
    assert set(seen) == set(attention_sites(unet))
    for site, (its, n) in seen.items():
        assert grid(size, site.level) == its
        assert n == its[0] * its[1]
