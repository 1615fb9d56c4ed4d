"""Prompt-to-Prompt by its identities, on a tiny model in float64, where an identity is one to rounding."""

import dataclasses
from typing import Any

import pytest
import torch

from editors.map_fusion import Exchange
from editors.prompt_to_prompt import Blend, prompt_to_prompt, side_by_side
from editors.workpiece import Workpiece, begin
from tests import nets
from tests.editors.precision import in_double
from videogen.errors import InputError
from videogen.inversion import Trajectory
from videogen.pipeline import Pipeline
from videogen.sampling import ddim

SOURCE, TARGET = "a red circle", "a blue circle"
STEPS = 4


@pytest.fixture(scope="module")
def double(moving: tuple[Pipeline, Any]) -> Pipeline:
    """The animated model with a UNet in float64."""
    return in_double(moving[0])


def work(pipe: Pipeline, size: tuple[int, int] = (32, 24)) -> Workpiece:
    clip = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3))
    bench = begin(pipe, clip, STEPS)
    return dataclasses.replace(bench, latents=bench.latents.double())


def noise(bench: Workpiece) -> torch.Tensor:
    return nets.clip(1, 2, bench.latents.shape[-2:], seed=8, dtype=torch.float64)


def alone(bench: Workpiece, prompt: str, scale: float) -> torch.Tensor:
    return ddim(bench.denoise(bench.conditions(prompt)[0], scale), noise(bench), bench.times)


def both(bench: Workpiece, source: str, target: str, exchange: Exchange, blend: Blend | None = None, **more: Any):
    return side_by_side(bench, noise(bench), bench.conditions(source, target), exchange, blend, 3.0, **more)


def test_nothing_exchanged_is_each_prompt_alone(double):
    bench = work(double)
    x, mask = both(bench, SOURCE, TARGET, Exchange("refine", 0.0, 0.0))
    assert mask is None
    for item, prompt in zip(x, (SOURCE, TARGET), strict=True):
        torch.testing.assert_close(item, alone(bench, prompt, 3.0)[0], rtol=1e-7, atol=1e-9)
    assert (x[0] - x[1]).abs().max() > 1e-3


@pytest.mark.parametrize("edit", ["replace", "refine", "reweight"])
def test_the_same_prompt_twice_is_the_same_clip(double, edit):
    x, _ = both(work(double), SOURCE, SOURCE, Exchange(edit, 0.8, 0.4, 0.4))
    torch.testing.assert_close(x[0], x[1], rtol=1e-7, atol=1e-9)


def test_the_source_never_feels_the_edit_and_every_kind_of_map_moves_the_target(double):
    bench = work(double)
    plain = alone(bench, SOURCE, 3.0)[0]
    free = alone(bench, TARGET, 3.0)[0]
    for exchange in (Exchange("replace", 1.0, 0.0), Exchange("replace", 0.0, 1.0), Exchange("replace", 0.0, 0.0, 1.0)):
        x, _ = both(bench, SOURCE, TARGET, exchange)
        torch.testing.assert_close(x[0], plain, rtol=1e-7, atol=1e-9)
        assert (x[1] - free).abs().max() > 1e-6


def test_a_weight_of_1_is_no_weight_and_another_is_one(double):
    bench = work(double)
    plain, one, three = (both(bench, SOURCE, SOURCE, Exchange(weights=w))[0] for w in ({}, {"red": 1.0}, {"red": 3.0}))
    assert torch.equal(plain, one)
    assert (plain[1] - three[1]).abs().max() > 1e-6


@pytest.mark.parametrize(("threshold", "kept"), [(2.0, 0), (0.0, 1)])
def test_an_empty_blend_is_the_source_and_a_full_one_no_blend(double, threshold, kept):
    bench, exchange = work(double), Exchange("replace", 0.5, 0.5)
    x, mask = both(bench, SOURCE, TARGET, exchange, Blend("circle", threshold, (0.0, 1.0)))
    free, _ = both(bench, SOURCE, TARGET, exchange)
    assert mask.shape == (2, 4, 3)
    torch.testing.assert_close(x[1], x[0] if kept == 0 else free[1], rtol=1e-7, atol=1e-9)


def test_outside_the_blend_the_latents_are_the_clips_own(double):
    bench = work(double)
    trajectory = torch.stack([noise(bench), *(bench.latents + i for i in range(STEPS - 1, -1, -1))])
    pinned = dataclasses.make_dataclass("States", ["latents"])(trajectory)
    x, mask = both(bench, SOURCE, TARGET, Exchange(), Blend("circle", 0.97, (0.0, 1.0)), pinned=pinned)
    assert torch.equal(x[0], bench.latents[0])
    outside = ~mask[:, None].expand_as(x[1])
    assert outside.any()
    assert torch.equal(x[1][outside], bench.latents[0][outside])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_pinned_to_the_states_it_would_go_through_the_target_is_the_same(double, scale):
    bench, exchange, blend = work(double), Exchange("replace", 0.8, 0.4, 0.4), Blend("circle", 0.5)
    pairs, states = bench.conditions(SOURCE, TARGET), [noise(bench)]
    ddim(bench.denoise(pairs[0], scale), states[0], bench.times, after=lambda x, s, pred: states.append(x) or x)
    pinned = Trajectory(bench.times, torch.stack(states), torch.device("cpu"))
    sampled, again = (
        side_by_side(bench, noise(bench), pairs, exchange, blend, scale, pinned=source) for source in (None, pinned)
    )
    torch.testing.assert_close(again[0], sampled[0], rtol=1e-7, atol=1e-9)
    assert torch.equal(again[1], sampled[1])


def test_null_texts_take_the_negative_prompts_place(double):
    bench = work(double)
    pairs = bench.conditions(SOURCE, TARGET, negative_prompt="green")
    null = bench.conditions("")[0][1]
    given = bench.conditions(SOURCE, TARGET)
    x, _ = side_by_side(bench, noise(bench), pairs, Exchange(), None, 3.0, nulls=lambda t: null)
    y, _ = side_by_side(bench, noise(bench), given, Exchange(), None, 3.0)
    assert torch.equal(x, y)


def test_clips_pictures_and_odd_sizes_are_edited(moving, still):
    for pipe, frames in ((moving[0], 3), (still[0], 1)):
        clip = torch.rand(frames, 3, 40, 24, generator=torch.Generator().manual_seed(3))
        edited = prompt_to_prompt(
            pipe, clip, SOURCE, "a big red circle", blend=Blend("circle"), steps=2, progress=False
        )
        assert edited.frames.shape == clip.shape
        assert edited.mask.shape == (frames, 1, 40, 24)
        assert edited.measured == {"source_rms": 0.0}


def test_words_that_do_not_fit_are_refused_before_anything_runs(still, picture):
    for options, message in (
        ({"edit": "replace"}, "equally many words"),
        ({"blend": Blend("square")}, "'square' is in neither prompt"),
        ({"weights": {"green": 2.0}}, "'green' does not occur"),
    ):
        with pytest.raises(InputError, match=message):
            prompt_to_prompt(still[0], picture, SOURCE, "a big blue circle", steps=2, progress=False, **options)
