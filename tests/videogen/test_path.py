"""The path: its ends, its tables, what is between them, and the law of going on from one noise level to the next."""

import json

import diffusers
import pytest
import torch

from videogen.errors import InputError
from videogen.path import Path, RectifiedFlow, VariancePreserving

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers and numpy 2

CONFIGS = [
    {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "linear", "num_train_timesteps": 50},
    {"trained_betas": [0.1, 0.2, 0.4, 0.5]},
]


@pytest.mark.parametrize("config", CONFIGS, ids=json.dumps)
def test_a_path_read_from_a_config_has_the_table_of_diffusers(config):
    scheduler = diffusers.DDIMScheduler(**config)
    path = Path.from_config(dict(scheduler.config) | {"_class_name": "DDIMScheduler"})
    table = scheduler.alphas_cumprod.double()
    t = torch.arange(len(table))
    assert path.steps == len(table)
    torch.testing.assert_close(path.alpha(t), table.sqrt(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(path.sigma(t), (1 - table).sqrt(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "LCMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
def test_left_out_betas_are_those_of_the_class(name):
    scheduler = getattr(diffusers, name)()
    path = Path.from_config({"_class_name": name})
    assert torch.equal(path.alphas_cumprod, scheduler.alphas_cumprod.double())


@pytest.mark.parametrize("name", ["EDMDPMSolverMultistepScheduler", "CogVideoXDDIMScheduler", "ScoreSdeVeScheduler"])
def test_a_process_that_is_not_known_is_refused_by_its_class(name):
    with pytest.raises(InputError, match=name):
        Path.from_config({"_class_name": name, "num_train_timesteps": 1000})


@pytest.mark.parametrize("path", [Path.from_config(CONFIGS[1]), Path.from_config(CONFIGS[2]), RectifiedFlow(shift=3.0)])
def test_from_clean_data_to_noise(path):
    assert path.alpha(-1) == 1
    assert path.sigma(-1) == 0
    t = torch.linspace(-1, path.steps - 1, 3001, dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    whole = alpha**2 + sigma**2 if isinstance(path, VariancePreserving) else alpha + sigma
    torch.testing.assert_close(whole, torch.ones_like(whole))


def test_zero_terminal_noise_is_pure_noise_and_finite_leaves_a_trace():
    path = Path.from_config(CONFIGS[2])
    assert path.alpha(999) == 0
    assert path.sigma(999) == 1
    assert 0 < path.alpha(998.9) < path.alpha(998.1) < path.alpha(998)
    assert path.finite().alpha(999) == 2**-12
    assert torch.equal(path.finite().alpha(torch.arange(999)), path.alpha(torch.arange(999)))


def test_between_steps_the_ratio_is_interpolated():
    table = Path.from_config(CONFIGS[0])
    low, high = table.ratio(400), table.ratio(401)
    assert table.ratio(400.25) == pytest.approx(float(0.75 * low + 0.25 * high), rel=1e-12)
    log = VariancePreserving(table.alphas_cumprod, interpolation="log")
    assert log.ratio(400.25) == pytest.approx(float(low**0.75 * high**0.25), rel=1e-12)
    t = torch.linspace(0, 999, 777, dtype=torch.float64)
    torch.testing.assert_close(log.position(log.ratio(t)), t, rtol=0, atol=1e-6)
    assert log.position(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]


def test_labels():
    path = Path.from_config(CONFIGS[0])
    t = torch.tensor([0.0, 10.4, 998.6])
    assert torch.equal(path.label(t), t.double())
    assert VariancePreserving(path.alphas_cumprod, whole_labels=True).label(t).tolist() == [0, 10, 999]
    flow = RectifiedFlow(shift=3.0)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    torch.testing.assert_close(flow.label(torch.arange(999, -1, -1)).float(), scheduler.timesteps)


@pytest.mark.parametrize("path", [Path.from_config(CONFIGS[1]), Path.from_config(CONFIGS[2]), RectifiedFlow(shift=3.0)])
def test_renoising_in_two_steps_has_the_law_of_one(path):
    x = torch.ones(2, 1, 1, 1, 1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    r, s, t = -1, 300.5, 999
    # The mean is carried by x alone, and the two noises are independent: their squares add.
    mean = path.renoise(path.renoise(x, r, s, zero), s, t, zero)
    torch.testing.assert_close(mean, path.renoise(x, r, t, zero))
    first = path.renoise(path.renoise(zero, r, s, one), s, t, zero)
    second = path.renoise(zero, s, t, one)
    torch.testing.assert_close((first**2 + second**2).sqrt(), path.renoise(zero, r, t, one))


def test_renoise_from_clean_data_is_the_forward_process_of_each_item():
    scheduler = diffusers.DDPMScheduler(**CONFIGS[1])
    path = Path.from_config(CONFIGS[1])
    x, noise = torch.randn(3, 2, 4, 4, 4), torch.randn(3, 2, 4, 4, 4)
    t = torch.tensor([0, 500, 999])
    torch.testing.assert_close(path.renoise(x, -1, t, noise), scheduler.add_noise(x, noise, t))
    assert torch.equal(path.renoise(x, 17, 17, noise), x)


def test_renoise_refuses_to_denoise():
    path = Path.from_config(CONFIGS[1])
    x = torch.zeros(1, 1, 1, 1, 1)
    with pytest.raises(InputError, match="less to more noise"):
        path.renoise(x, 500, 400, x)
    with pytest.raises(InputError, match="batch of 1"):
        path.renoise(x, -1, torch.tensor([3, 4]), x)


@pytest.mark.parametrize("path", [Path.from_config(CONFIGS[0]), RectifiedFlow()])
@pytest.mark.parametrize("t", [-1.5, 1000, float("nan"), torch.tensor([3, 4000])])
def test_positions_off_the_path(path, t):
    with pytest.raises(InputError, match="off the path"):
        path.alpha(t)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"beta_schedule": "sigmoid"}, "beta_schedule"),
        ({"trained_betas": [0.1, -0.2]}, "betas"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}, "use_dynamic_shifting"),
    ],
)
def test_a_config_that_is_not_known_is_refused_by_its_key(config, key):
    with pytest.raises(InputError, match=key):
        Path.from_config(config)
