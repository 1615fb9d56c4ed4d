"""Inversion undoes sampling: exactly where the net says the same everywhere or a fixed point is found, else the better the
more steps; and it equals diffusers' inverse scheduler, step by step."""

from dataclasses import dataclass

import diffusers
import pytest
import torch
from torch import Tensor

from tests import nets
from videogen.conditioning import stack
from videogen.denoiser import Denoiser
from videogen.errors import InputError
from videogen.guidance import cfg
from videogen.inversion import Trajectory, invert, reconstruct
from videogen.path import Path
from videogen.prediction import Kind, Prediction, kind_from_config
from videogen.sampling import SAMPLERS, ddim
from videogen.times import Times
from videogen.windows import Windows, windowed

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers and numpy 2

SD = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False,
}  # fmt: skip
ZERO_TERMINAL = {
    **SD, "steps_offset": 0, "set_alpha_to_one": True, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
}  # fmt: skip


def grid(config: dict, n: int) -> Times:
    return SAMPLERS["ddim"].from_config(config).times(Path.from_config(config), n)


def data(spread: float = 0.5, mean: float = 0.7) -> Tensor:
    """A clip of the analytic world, in float64."""
    return mean + spread * nets.clip(2, 3, dtype=torch.float64)


@dataclass
class Gaussian:
    """The perfect denoiser of data N(mean, spread^2), told the level by its label."""

    path: Path
    kind: Kind = "eps"
    spread: float = 0.5
    mean: float = 0.7

    def __call__(self, x, t, frames=None):
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        noise = sigma * (x - alpha * self.mean) / ((alpha * self.spread) ** 2 + sigma**2)
        clean = self.mean + alpha * self.spread**2 * (x - alpha * self.mean) / ((alpha * self.spread) ** 2 + sigma**2)
        out = {"eps": noise, "x0": clean, "v": alpha * noise - sigma * clean, "flow": noise - clean}[self.kind]
        return Prediction(x, out, alpha, sigma, self.kind)


@pytest.mark.parametrize("asked", ["target", "source"])
def test_a_net_that_says_the_same_everywhere_is_undone_exactly(asked):
    times, x = grid(SD, 10), data()
    fixed = torch.randn_like(x)

    def constant(x, t, frames=None):
        return Prediction(x, fixed, times.path.alpha(t), times.path.sigma(t), "eps")

    torch.testing.assert_close(ddim(constant, invert(constant, x, times, asked=asked).noise, times), x)


@pytest.mark.parametrize(("asked", "config"), [("target", SD), ("source", SD), ("target", ZERO_TERMINAL)])
def test_the_error_falls_with_the_number_of_steps(asked, config):
    """Of first order: twice the steps, half the error."""
    errors = []
    for n in (25, 50, 100):
        times = grid(config, n)
        denoise = Gaussian(times.path, "v")
        trajectory = invert(denoise, data(), times, asked=asked)
        errors.append(float(trajectory.distance(reconstruct(denoise, trajectory))[-1]))
    assert errors[0] / errors[1] > 2**0.7
    assert errors[1] / errors[2] > 2**0.7


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
def test_the_fixed_point_is_the_exact_inverse(kind):
    times = grid(SD, 20)
    denoise = Gaussian(times.path, kind)
    before = [float(_error(denoise, times, rounds)) for rounds in (0, 2, 10, 40)]
    assert before == sorted(before, reverse=True)
    assert before[2] < 1e-4
    assert before[3] < 1e-10


def test_the_fixed_point_reaches_through_zero_terminal_noise():
    times = grid(ZERO_TERMINAL, 20)
    assert float(times.path.alpha(times.t[0])) == 0
    assert float(_error(Gaussian(times.path, "v"), times, 40)) < 1e-10


def _error(denoise, times, rounds):
    trajectory = invert(denoise, data(), times, rounds=rounds)
    return trajectory.distance(reconstruct(denoise, trajectory))[-1]


def test_a_round_that_leads_away_is_taken_back():
    """A net too steep for the fixed point: with rounds the result is the guess without them, not worse."""
    times, x = grid(SD, 5), data()

    def steep(x, t, frames=None):
        return Prediction(x, 1000 * x, times.path.alpha(t), times.path.sigma(t), "eps")

    assert torch.equal(invert(steep, x, times, rounds=20).noise, invert(steep, x, times).noise)


def test_clips_of_the_world_become_noise_of_unit_variance():
    times = grid(SD, 100)
    x = 0.7 + 0.5 * torch.randn(1, 4, 4, 64, 64, dtype=torch.float64)
    end = invert(Gaussian(times.path), x, times).noise
    assert float(end.mean()) == pytest.approx(0.7 * float(times.path.alpha(times.t[0])), abs=0.03)
    assert float(end.var()) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", [("leading", 0), ("leading", 1), ("trailing", 0)])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("n", [10, 30])
def test_equals_diffusers_inverse_scheduler_at_every_step(kind, spacing, to_one, n):
    """30 does not divide 1000: there a step does not begin where the one before it ended."""
    config = {
        **SD, "prediction_type": kind, "timestep_spacing": spacing[0], "steps_offset": spacing[1], "set_alpha_to_one": to_one,
    }  # fmt: skip
    theirs = diffusers.DDIMInverseScheduler.from_config({**config, "clip_sample": False})
    theirs.set_timesteps(n)
    times, start = grid(config, n), nets.clip()
    named = kind_from_config(config)

    def net(x, label):
        return 0.5 * torch.sin(1.3 * x + 0.02 * label) + 0.2 * x

    def denoise(x, t, frames=None):
        out = net(x, float(times.path.label(t)))
        return Prediction(x, out, times.path.alpha(t), times.path.sigma(t), named)

    ours, x = invert(denoise, start, times), start
    for i, t in enumerate(theirs.timesteps):
        x = theirs.step(net(x, float(t)), int(t), x).prev_sample
        torch.testing.assert_close(ours.latents[n - 1 - i], x, atol=1e-5, rtol=1e-5)


def test_a_trajectory_hands_out_its_states_by_their_time():
    times, x, seen = grid(SD, 5), data(), {}

    def after(x, t, pred):
        seen[t] = x
        return x

    trajectory = invert(Gaussian(times.path), x, times, after=after)
    assert trajectory.latents.shape == (6, *x.shape)
    assert torch.equal(trajectory.clean, x)
    assert torch.equal(trajectory.at(float(times.to[-1])), x)
    assert torch.equal(trajectory.at(times.t[0]), trajectory.noise)
    assert sorted(seen, reverse=True) == times.t.tolist()
    assert all(torch.equal(trajectory.at(t), state) for t, state in seen.items())
    with pytest.raises(InputError, match="not on the grid"):
        trajectory.at(500.0)


def test_a_part_of_the_grid_inverts_to_where_that_part_begins():
    times, x = grid(SD, 10), data()
    denoise = Gaussian(times.path)
    whole, part = invert(denoise, x, times), invert(denoise, x, times.final(4))
    assert torch.equal(part.latents, whole.latents[-5:])
    assert torch.equal(invert(denoise, x, times.final(0)).noise, x)
    with pytest.raises(InputError, match="11 steps of 10"):
        times.final(11)


def test_distance_is_the_root_mean_square_at_every_state():
    times = grid(SD, 2)
    a = Trajectory(times, torch.zeros(3, 1, 2, 4, 8, 8), torch.device("cpu"))
    b = Trajectory(times, torch.arange(3.0).reshape(3, 1, 1, 1, 1, 1).expand(3, 1, 2, 4, 8, 8), torch.device("cpu"))
    assert a.distance(b).tolist() == [0, 1, 2]


@pytest.mark.parametrize("predicts", ["eps", "v"])
def test_a_guided_network_in_windows_is_undone_by_the_fixed_point(predicts):
    """A video network with random weights, frame ids that do not begin at 0, a text for each frame."""
    unet = nets.tiny_video_unet(dtype=torch.float64)
    times, frames = grid(SD, 10).final(3), tuple(range(20, 25))
    texts = [nets.condition(f=5, seed=seed, dtype=torch.float64, frames=frames) for seed in (2, 3)]
    denoise = cfg(Denoiser(unet, times.path, predicts).given(stack(uncond=texts[0], cond=texts[1])), 2.0)
    denoise = windowed(denoise, Windows(3, 1))
    x = nets.clip(f=5, dtype=torch.float64)
    errors = []
    for rounds in (0, 2, 10):
        trajectory = invert(denoise, x, times, rounds=rounds, frames=frames)
        errors.append(float(trajectory.distance(reconstruct(denoise, trajectory, frames=frames))[-1]))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9


def test_what_cannot_be_inverted_says_so():
    times = grid(SD, 5)
    with pytest.raises(InputError, match="asked"):
        invert(Gaussian(times.path), data(), times, asked="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rounds"):
        invert(Gaussian(times.path), data(), times, rounds=-1)
