"""Guidance is one linear rule between two predictions, whoever made them."""

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from tests import nets
from videogen.conditioning import stack
from videogen.errors import InputError
from videogen.guidance import cfg, cfg_apart
from videogen.path import Path
from videogen.prediction import Prediction

PATH = Path.from_config({"beta_schedule": "linear"})


class Analytic:
    """What a perfect network says of Gaussian clips with this mean and deviation, under rows of several means."""

    def __init__(self, kind="eps", **means):
        self.kind, self.means, self.frames = kind, means, []

    def __call__(self, x, t, frames=None):
        self.frames.append(frames)
        alpha, sigma = PATH.alpha(t), PATH.sigma(t)
        mean = torch.cat([torch.full_like(x, value) for value in self.means.values()])
        x = x.repeat(len(self.means), 1, 1, 1, 1)
        x0 = mean + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - alpha * mean)
        out = Prediction(x, x0, alpha, sigma, "x0")
        rows = tuple(frozenset({name}) for name in self.means for _ in range(len(x) // len(self.means)))
        return Prediction(x, getattr(out, self.kind), alpha, sigma, self.kind, rows, {"maps": torch.ones(len(x))})


def x(b=2, f=3):
    return nets.clip(b, f, dtype=torch.float64)


BOTH, UNCOND, COND = {"uncond": 0.5, "cond": -1.0}, {"uncond": 0.5}, {"cond": -1.0}


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_1_is_unguided_and_0_unconditional_to_the_bit(rescale):
    for scale, alone in ((1.0, COND), (0.0, UNCOND), ([1.0, 1.0], COND), (lambda t: 0.0, UNCOND)):
        out = cfg(Analytic(**BOTH), scale)(x(), 500).out
        assert torch.equal(out, Analytic(**alone)(x(), 500).out)
    # Rescaling the conditional prediction to its own deviation leaves it where it is.
    guided = cfg(Analytic(**BOTH), 1.0, rescale=rescale)(x(), 500).out
    torch.testing.assert_close(guided, Analytic(**COND)(x(), 500).out)


def test_1_is_unguided_for_a_network_too():
    unet, given, null = nets.tiny_video_unet(), nets.condition(b=2), nets.condition(b=2, seed=8)
    both = nets.given(unet, stack(uncond=null, cond=given))
    batched = both(nets.clip(2), 500)
    assert torch.equal(cfg(both, 1.0)(nets.clip(2), 500).out, batched["cond"].out)
    assert torch.equal(cfg(both, 0.0)(nets.clip(2), 500).out, batched["uncond"].out)
    alone = nets.given(unet, given)(nets.clip(2), 500).out
    torch.testing.assert_close(cfg(both, 1.0)(nets.clip(2), 500).out, alone)


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_the_rule_is_the_same_in_every_parametrisation(kind):
    guided = cfg(Analytic(kind, **BOTH), 7.5)(x(), 500)
    without, given = (Analytic(kind, **means)(x(), 500) for means in (UNCOND, COND))
    for name in ("out", "x0", "eps", "v", "score"):
        a, b = getattr(without, name), getattr(given, name)
        torch.testing.assert_close(getattr(guided, name), a + 7.5 * (b - a))


@pytest.mark.parametrize("scale", [7.5, [1.0, 3.0, 5.0], lambda t: t / 100], ids=["number", "by frame", "by time"])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_one_branch_after_the_other_equals_both_at_once(scale, rescale):
    together = cfg(Analytic(**BOTH), scale, rescale=rescale)(x(), 500)
    apart = cfg_apart(Analytic(**UNCOND), Analytic(**COND), scale, rescale=rescale)(x(), 500)
    assert torch.equal(together.out, apart.out)
    assert together.rows == apart.rows == (frozenset(),) * 2
    assert torch.equal(together.x, apart.x)


def test_one_branch_after_the_other_equals_both_at_once_for_a_network():
    unet, given, null = nets.tiny_video_unet(), nets.condition(f=3), nets.condition(seed=8)
    together = cfg(nets.given(unet, stack(uncond=null, cond=given)), 7.5)(nets.clip(), 500).out
    apart = cfg_apart(nets.given(unet, null), nets.given(unet, given), 7.5)(nets.clip(), 500).out
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_rescaling_brings_the_deviation_of_each_item_back():
    """Lin et al. 2023, section 3.4: at share 1 the guided prediction deviates as the conditional one."""
    x_ = torch.stack([x(1)[0], 3 * x(1)[0]])
    given = Analytic(**COND)(x_, 500).out
    plain = cfg(Analytic(**BOTH), 7.5)(x_, 500).out
    for share in (0.3, 1.0):
        out = cfg(Analytic(**BOTH), 7.5, rescale=share)(x_, 500).out
        torch.testing.assert_close(out, rescale_noise_cfg(plain, given, guidance_rescale=share))
    torch.testing.assert_close(out.std((1, 2, 3, 4)), given.std((1, 2, 3, 4)))


def test_scales_by_frame_follow_the_ids():
    scales = [1.0, 2.0, 4.0, 8.0]
    guided = cfg(Analytic(**BOTH), scales)(x(f=4), 500).out
    for i, scale in enumerate(scales):
        assert torch.equal(guided[:, i], cfg(Analytic(**BOTH), scale)(x(f=4), 500).out[:, i])
    ids, denoise = (3, 1, 9), Analytic(**BOTH)
    window = cfg(denoise, scales)(x(), 500, ids).out
    assert denoise.frames == [ids]
    for i, scale in enumerate((8.0, 2.0, 8.0)):
        assert torch.equal(window[:, i], cfg(Analytic(**BOTH), scale)(x(), 500).out[:, i])
    with pytest.raises(InputError, match="empty"):
        cfg(Analytic(**BOTH), [])(x(), 500)


def test_a_scale_follows_the_time():
    guided = cfg(Analytic(**BOTH), lambda t: 1 + t / 100)
    for t in (900.0, torch.tensor(100.0)):
        assert torch.equal(guided(x(), t).out, cfg(Analytic(**BOTH), 1 + float(t) / 100)(x(), t).out)


def test_other_rows_keep_their_names_and_everything_kept_comes_back():
    def four(x, t, frames=None):
        pred = Analytic(a=0.5, b=0.25, c=-1.0, d=-0.5)(x, t, frames)
        names = [("uncond", "source"), ("uncond", "target"), ("cond", "source"), ("cond", "target")]
        return pred.replace(rows=tuple(frozenset(name) for name in names for _ in range(len(x))))

    guided = cfg(four, 3.0)(x(1), 500)
    assert guided.rows == (frozenset({"source"}), frozenset({"target"}))
    assert torch.equal(guided["target"].out, cfg(Analytic(uncond=0.25, cond=-0.5), 3.0)(x(1), 500).out)
    assert guided.kept["maps"].shape == (4,)
    with pytest.raises(InputError, match="no row is uncond"):
        cfg(Analytic(**COND), 3.0)(x(), 500)


def test_guidance_keeps_gradients():
    clip = x().requires_grad_()
    (guided,) = torch.autograd.grad(cfg(Analytic(**BOTH), 7.5)(clip, 500).out.sum(), clip)
    grads = [torch.autograd.grad(Analytic(**means)(clip, 500).out.sum(), clip)[0] for means in (UNCOND, COND)]
    torch.testing.assert_close(guided, grads[0] + 7.5 * (grads[1] - grads[0]))
