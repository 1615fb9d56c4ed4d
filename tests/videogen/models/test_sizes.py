"""SDXL's micro-conditions are those of diffusers' pipelines, for the base model and the refiner."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline

from videogen.errors import InputError
from videogen.models.presets import PRESETS
from videogen.models.sizes import Sizes, count, size_condition

MADE = (512, 768)
TOLD = Sizes(original_size=(1024, 1536), crops_coords_top_left=(8, 16), target_size=(500, 700), aesthetic_score=7.0)


def theirs(numbers: int, **told: object) -> tuple[list[list[float]], list[list[float]]]:
    """What diffusers' pipeline of the refiner (which can be the base's too) tells the network by itself."""
    standing = {
        "original_size": MADE, "crops_coords_top_left": (0, 0), "target_size": MADE, "aesthetic_score": 6.0,
        "negative_aesthetic_score": 2.5, "negative_crops_coords_top_left": (0, 0),
    } | told  # fmt: skip
    for name in ("original_size", "target_size"):
        standing.setdefault(f"negative_{name}", standing[name])
    layer = SimpleNamespace(linear_1=SimpleNamespace(in_features=10 + 8 * numbers))
    pipe = SimpleNamespace(
        config=SimpleNamespace(requires_aesthetics_score=numbers == 5),
        unet=SimpleNamespace(config=SimpleNamespace(addition_time_embed_dim=8), add_embedding=layer),
    )
    make = StableDiffusionXLImg2ImgPipeline._get_add_time_ids
    given, null = make(pipe, **standing, dtype=torch.float32, text_encoder_projection_dim=10)
    return given.tolist(), null.tolist()


@pytest.mark.parametrize("numbers", [6, 5])
@pytest.mark.parametrize("told", [None, TOLD])
def test_what_is_told_equals_diffusers(numbers: int, told: Sizes | None) -> None:
    given, null = size_condition(2, MADE, numbers, told)
    named = {} if told is None else vars(told)
    expected = theirs(numbers, **named)
    assert (given.vector["size"].tolist(), null.vector["size"].tolist()) == tuple(side * 2 for side in expected)


def test_the_negative_side_may_be_told_otherwise() -> None:
    _, null = size_condition(1, MADE, 6, TOLD, Sizes(original_size=(64, 32)))
    assert null.vector["size"].tolist() == [[64, 32, 0, 0, 512, 768]]
    _, null = size_condition(1, MADE, 5, TOLD, Sizes(crops_coords_top_left=(1, 2), aesthetic_score=1.5))
    assert null.vector["size"].tolist() == [[512, 768, 1, 2, 1.5]]


def test_how_many_numbers_a_network_reads() -> None:
    for name, numbers in (("sdxl", 6), ("sdxl-refiner", 5)):
        preset = PRESETS[name]
        pooled = preset.text["text_encoder_2"]["projection_dim"]
        assert count(preset.unet.added_width, preset.unet.size_width, pooled) == numbers
    with pytest.raises(InputError, match="different models"):
        count(2816, 256, 768)
