"""The loss equals what diffusers' training scripts compute, in every parametrisation, and each option does what it says."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from videogen.conditioning import Conditioning
from videogen.denoiser import Denoiser
from videogen.path import Path, RectifiedFlow
from videogen.prediction import Kind
from videogen.training.denoising import Batch, Loss, drawn, error, min_snr_weight, predicted, target
from videogen.training.recipe import Draw

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
TIMES = torch.tensor([0, 300, 700, 999])


class Half(nn.Module):
    """Says half of what it sees."""

    def forward(self, x: Tensor, labels: Tensor, cond: Conditioning, control: None = None) -> tuple[Tensor, dict]:
        return x / 2, {}


def batch(counts: Tensor | None = None) -> Batch:
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 4, 5, 5)
    told = Conditioning(tokens={"text": torch.zeros(4, 1, 1)})
    return Batch((), x0, noise, TIMES, told, torch.ones(4) if counts is None else counts)


@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize(("kind", "theirs"), [("eps", "epsilon"), ("v", "v_prediction")])
def test_the_loss_is_that_of_diffusers_scripts(kind: Kind, theirs: str, gamma: float | None) -> None:
    scheduler, b = DDPMScheduler(**CONFIG, prediction_type=theirs), batch()
    noisy = scheduler.add_noise(b.x0, b.noise, TIMES)
    wanted = b.noise if kind == "eps" else scheduler.get_velocity(b.x0, b.noise, TIMES)
    whole = F.mse_loss(noisy / 2, wanted, reduction="none").mean((1, 2, 3, 4))
    if gamma:
        snr = compute_snr(scheduler, TIMES)
        least = torch.stack([snr, gamma * torch.ones_like(snr)], 1).min(1)[0]
        whole = whole * least / (snr if kind == "eps" else snr + 1)
    ours = error(Denoiser(Half(), Path.from_config(CONFIG), kind), b, b.told, Loss(min_snr=gamma))
    torch.testing.assert_close(ours, whole.mean(), rtol=2e-5, atol=0)


@pytest.mark.parametrize("kind", ["eps", "v", "flow", "x0"])
def test_min_snr_weighs_the_error_of_x0_alike_in_every_parametrisation(kind: Kind) -> None:
    path = RectifiedFlow() if kind == "flow" else Path.from_config(CONFIG)
    b, denoiser = batch(), Denoiser(Half(), path, kind)
    alpha, sigma = path.alpha(TIMES), path.sigma(TIMES)
    pred = denoiser.given(b.told)(
        alpha.view(-1, 1, 1, 1, 1).float() * b.x0 + sigma.view(-1, 1, 1, 1, 1).float() * b.noise, TIMES
    )
    of_x0 = (pred.x0 - b.x0).square().mean((1, 2, 3, 4)) * (alpha / sigma).square().clamp(max=5)
    said = (predicted(denoiser, b, b.told) - target(kind, b.x0, b.noise, alpha, sigma)).square().mean((1, 2, 3, 4))
    torch.testing.assert_close(min_snr_weight(kind, alpha, sigma, 5) * said, of_x0, rtol=1e-3, atol=1e-6)


def test_pure_noise_has_a_finite_weight() -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    assert [float(min_snr_weight(kind, zero, one, 5)) for kind in ("eps", "v")] == [1, 0]


def test_what_could_not_be_read_does_not_count() -> None:
    denoiser = Denoiser(Half(), Path.from_config(CONFIG))
    each = [float(error(denoiser, batch(F.one_hot(torch.tensor(i), 4)), batch().told, Loss())) for i in range(4)]
    assert float(error(denoiser, batch(), batch().told, Loss())) == pytest.approx(sum(each))
    by_frame = torch.ones(4, 3)
    by_frame[:, 1] = 0
    without = batch()
    middle = (predicted(denoiser, without, without.told) - without.noise).square()[:, 1].mean() / 3
    whole, left = (float(error(denoiser, batch(c), batch().told, Loss())) for c in (torch.ones(4, 3), by_frame))
    assert whole - left == pytest.approx(float(middle), rel=1e-4)


def test_offset_noise_is_one_number_a_clip_and_channel() -> None:
    plain, offset = (drawn(Draw(0, 3), 4, 1000, (3, 4, 5, 5), share)[1] for share in (0.0, 0.1))
    added = offset - plain
    torch.testing.assert_close(added, added[:, :1, :, :1, :1].expand_as(added))
    assert added.std() == pytest.approx(0.1, rel=0.5)


def test_processes_draw_the_parts_of_one_batch() -> None:
    times, noise = drawn(Draw(0, 1), 4, 1000, (2, 1, 2, 2), 0.1)
    parts = [drawn(Draw(0, 1, 0.0, rank, 2), 4, 1000, (2, 1, 2, 2), 0.1) for rank in (0, 1)]
    assert torch.equal(torch.cat([part[0] for part in parts]), times)
    assert torch.equal(torch.cat([part[1] for part in parts]), noise)
