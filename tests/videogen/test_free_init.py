"""FreeInit against diffusers' mixin, and its identities."""

from collections.abc import Sequence

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.free_init_utils import FreeInitMixin

from videogen.errors import InputError
from videogen.free_init import FreeInit, exchange, free_init, low_pass
from videogen.path import Path
from videogen.plan import Plan
from videogen.prediction import Prediction
from videogen.run import sampled
from videogen.sampling import SAMPLERS

CONFIG = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012}


def noise(seed: int) -> torch.Tensor:
    return torch.randn(1, 6, 4, 5, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["butterworth", "gaussian", "ideal"])
@pytest.mark.parametrize("stops", [(0.25, 0.25), (0.5, 0.2), (0.25, 0.0)])
def test_filter_is_diffusers(kind: str, stops: tuple[float, float]) -> None:
    space, time = stops
    expected = FreeInitMixin()._get_free_init_freq_filter((1, 4, 6, 5, 8), "cpu", kind, 4, space, time)
    torch.testing.assert_close(low_pass((6, 5, 8), FreeInit(filter=kind, space=space, time=time)), expected[0, 0])


def test_loop_is_diffusers() -> None:
    """Two iterations around a stand-in for sampling, with the same fresh noise."""
    mixin = FreeInitMixin()
    mixin.scheduler = DDIMScheduler(**CONFIG)
    mixin.enable_free_init(num_iters=2)
    expected = noise(0).transpose(1, 2)
    for i in range(2):
        generator = torch.Generator().manual_seed(7)
        expected, _ = mixin._apply_free_init(expected, i, 10, "cpu", torch.float32, generator)
        expected = expected * 0.5 + 0.1
    fresh = torch.randn(1, 4, 6, 5, 8, generator=torch.Generator().manual_seed(7)).transpose(1, 2)
    made = free_init(lambda x: x * 0.5 + 0.1, noise(0), lambda _: fresh, Path.from_config(CONFIG), FreeInit(2))
    torch.testing.assert_close(made, expected.transpose(1, 2), atol=1e-5, rtol=0)


def test_one_iteration_is_plain_sampling() -> None:
    made = free_init(lambda x: x + 1, noise(0), noise, Path.from_config(CONFIG), FreeInit(1))
    assert torch.equal(made, noise(0) + 1)


def test_every_round_has_fresh_noise_of_its_own() -> None:
    """By address: what a step draws in the second round it did not draw in the first."""
    config, asked = {**CONFIG, "clip_sample": False}, []
    sampler = SAMPLERS["ddpm"].from_config(config)
    times = sampler.times(Path.from_config(config), 2)
    plan = Plan((0, 1), (8, 8), (4, 1, 1), 1.0, sampler, times, 0.0, None, False)

    def fresh(draw: tuple[float, int]) -> torch.Tensor:
        asked.append(draw)
        return torch.zeros(1, 2, 4, 1, 1)

    def denoise(x: torch.Tensor, t: float | torch.Tensor, frames: Sequence[int] | None = None) -> Prediction:
        return Prediction(x, 0.1 * x, times.path.alpha(t), times.path.sigma(t), "eps")

    sampled(plan, denoise, torch.ones(1, 2, 4, 1, 1), fresh, FreeInit(3), progress=False)
    assert len(asked) == len(set(asked)) > 3


def test_closed_and_open_filters() -> None:
    """A stop frequency of 0 gives fresh noise alone; a filter that lets all pass changes nothing."""
    closed = low_pass((6, 5, 8), FreeInit(space=0.0))
    torch.testing.assert_close(exchange(noise(0), noise(1), closed), noise(1))
    torch.testing.assert_close(exchange(noise(0), noise(1), torch.ones(6, 5, 8)), noise(0))


def test_values_of_the_filter_are_shares() -> None:
    for kind in ("butterworth", "gaussian", "ideal"):
        passes = low_pass((16, 8, 8), FreeInit(filter=kind))
        assert passes.min() >= 0
        assert passes.max() <= 1


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"space": 1.5}, {"filter": "box"}])
def test_impossible_settings_are_refused(wrong: dict[str, float | str]) -> None:
    with pytest.raises(InputError):
        FreeInit(**wrong)
