"""Every kind of prediction says the same; rows are found by name."""

import pytest
import torch

from videogen.errors import InputError
from videogen.path import Path, RectifiedFlow
from videogen.prediction import Prediction, kind_from_config

VP = Path.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
ZERO = Path.from_config({"beta_schedule": "linear", "rescale_betas_zero_snr": True})
FLOW = RectifiedFlow(shift=3.0)
KINDS = ("eps", "v", "x0", "flow")


def truth(path, t, dtype=torch.float64):
    """A clip, its noise and what each kind of net should say of their mixture at t (a number, or one an item)."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(3, 2, 4, 5, 5, generator=generator, dtype=dtype) for _ in range(2))
    alpha, sigma = path.alpha(t), path.sigma(t)
    a, s = (c.to(dtype) if c.ndim == 0 else c.reshape(-1, 1, 1, 1, 1).to(dtype) for c in (alpha, sigma))
    x = a * x0 + s * eps
    said = {"x0": x0, "eps": eps, "v": a * eps - s * x0, "flow": eps - x0}
    return x, alpha, sigma, said | {"score": -eps / s, "velocity": eps - x0}


@pytest.mark.parametrize("t", [0, 400.5, 998, torch.tensor([3, 500, 998])], ids=str)
@pytest.mark.parametrize("path", [VP, FLOW], ids=["vp", "flow"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_in_one_kind_is_read_in_all(kind, path, t):
    x, alpha, sigma, said = truth(path, t)
    pred = Prediction(x, said[kind], alpha, sigma, kind)
    for name in ("x0", "eps", "v", "score", "velocity"):
        torch.testing.assert_close(getattr(pred, name), said[name], rtol=1e-9, atol=1e-9)
    for other in KINDS:
        again = Prediction(x, getattr(pred, {"flow": "velocity"}.get(other, other)), alpha, sigma, other)
        torch.testing.assert_close(again.eps, said["eps"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_said_is_returned_bit_for_bit(kind):
    x, alpha, sigma, said = truth(VP, 500, torch.float32)
    pred = Prediction(x, said[kind], alpha, sigma, kind)
    assert torch.equal(getattr(pred, {"flow": "velocity"}.get(kind, kind)), said[kind])


def test_pure_noise_can_be_read_from_v_but_not_from_eps():
    x, alpha, sigma, said = truth(ZERO, 999, torch.float32)
    assert alpha == 0
    pred = Prediction(x, said["v"], alpha, sigma, "v")
    assert torch.equal(pred.x0, said["x0"])
    assert torch.equal(pred.eps, x)
    with pytest.raises(InputError, match="v-prediction"):
        _ = pred.replace(out=said["eps"], kind="eps").x0
    times = torch.tensor([5, 999, 7])
    with pytest.raises(InputError, match="v-prediction"):
        _ = pred.replace(out=said["eps"], alpha=ZERO.alpha(times), sigma=ZERO.sigma(times), kind="eps").x0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_x_and_out(kind):
    x, alpha, sigma, said = truth(VP, torch.tensor([10.0, 300, 900]))
    x, out = x.requires_grad_(), said[kind].clone().requires_grad_()

    def read(x, out):
        pred = Prediction(x, out, alpha, sigma, kind)
        return pred.x0.sum(), pred.eps.sum(), pred.v.sum()

    assert torch.autograd.gradcheck(read, (x[..., :1, :1], out[..., :1, :1]))


@pytest.mark.parametrize("t", [500, torch.tensor([300, 500, 700])], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_rounded_once(kind, t):
    x, alpha, sigma, said = truth(VP, t, torch.float32)
    x, out = x.bfloat16(), said[kind].bfloat16()
    pred = Prediction(x, out, alpha, sigma, kind)
    exact = Prediction(x.double(), out.double(), alpha, sigma, kind)
    for name in ("x0", "eps"):
        assert getattr(pred, name).dtype == torch.bfloat16
        torch.testing.assert_close(getattr(pred, name), getattr(exact, name).bfloat16(), rtol=2**-7, atol=1e-6)
    # A float32 state beside a bfloat16 net stays float32.
    mixed = Prediction(x.float(), out, alpha, sigma, kind)
    torch.testing.assert_close(mixed.x0, exact.x0.float(), rtol=1e-5, atol=1e-5)


ROWS = tuple(map(frozenset, ({"uncond", "source"}, {"uncond", "target"}, {"cond", "source"}, {"cond", "target"})))


def rows_prediction(t):
    x = torch.arange(4.0).reshape(4, 1, 1, 1, 1)
    return Prediction(x, x + 10, VP.alpha(t), VP.sigma(t), "v", ROWS, {"maps": 7})


@pytest.mark.parametrize("t", [500, torch.tensor([100, 200, 300, 400])], ids=str)
@pytest.mark.parametrize(
    ("words", "items"),
    [("cond", [2, 3]), ("uncond", [0, 1]), ("source", [0, 2]), (("cond", "target"), [3]), ((), [0, 1, 2, 3])],
)
def test_rows_are_picked_by_word(words, items, t):
    whole = rows_prediction(t)
    part = whole[words]
    assert part.rows == tuple(ROWS[i] for i in items)
    assert part.kept == {"maps": 7}
    assert part.kind == "v"
    for name in ("x", "out", "x0", "eps", "score"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[items])


def test_rows_that_lie_together_are_not_copied():
    whole = rows_prediction(500)
    assert whole["cond"].out.untyped_storage().data_ptr() == whole.out.untyped_storage().data_ptr()


def test_a_row_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(InputError, match=r"no row is style; .*\{source, uncond\}, .*\{cond, target\}"):
        rows_prediction(500)["style"]
    with pytest.raises(InputError, match="none named"):
        rows_prediction(500).replace(rows=())["cond"]


def test_kinds_by_the_words_of_a_config():
    words = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
    assert {word: kind_from_config({"prediction_type": word}) for word in words} == words
    assert kind_from_config({}) == "eps"
    assert kind_from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"}) == "flow"
    with pytest.raises(InputError, match="prediction_type"):
        kind_from_config({"prediction_type": "noise"})
    x = torch.zeros(1, 1, 1, 1, 1)
    with pytest.raises(InputError, match="kind"):
        Prediction(x, x, 1.0, 0.0, "epsilon")


def test_times_must_fit_the_batch():
    x = torch.zeros(3, 1, 1, 1, 1)
    t = torch.tensor([1, 2])
    with pytest.raises(InputError, match="batch of 3"):
        _ = Prediction(x, x, VP.alpha(t), VP.sigma(t), "v").x0
