"""A network under a condition: rows, frames and times reach it, and come back named."""

import dataclasses

import pytest
import torch

from tests import nets
from videogen.applied import blocks
from videogen.conditioning import Conditioning, Dial, stack
from videogen.control import Control, Keep
from videogen.denoiser import Denoiser
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL
from videogen.path import Path
from videogen.windows import Windows, windowed

DOUBLE = torch.float64
PATH = Path.from_config({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})


def rows(**seeds: int) -> Conditioning:
    """One row for each name, every one with its own text."""
    return stack(**{name: nets.condition(seed=seed, dtype=DOUBLE) for name, seed in seeds.items()})


def test_a_prediction_says_where_on_the_path_it_was_made():
    unet, x = nets.tiny_unet(), nets.clip(2)
    net = Denoiser(unet, PATH, "v")
    cond = nets.condition(b=2).named("cond")
    pred = net.given(cond)(x, 500)
    assert torch.equal(pred.out, nets.predict(unet, x, cond)[0])
    assert pred.x is x
    assert (pred.alpha, pred.sigma, pred.kind) == (PATH.alpha(500), PATH.sigma(500), "v")
    assert pred.rows == (frozenset({"cond"}),) * 2
    assert net.replace(predicts="eps").given(cond)(x, 500).kind == "eps"


def test_each_item_may_have_its_own_time():
    net, x = Denoiser(nets.tiny_unet(dtype=DOUBLE), PATH), nets.clip(2, dtype=DOUBLE)
    cond, times = rows(a=1, b=2), torch.tensor([900.0, 20.0])
    pred = net.given(cond)(x, times)
    for i, t in enumerate(times):
        part = Conditioning(tokens={"text": cond.tokens["text"][i : i + 1]})
        alone = net.given(part)(x[i : i + 1], t)
        torch.testing.assert_close(pred.out[i : i + 1], alone.out)
        assert (pred.alpha[i], pred.sigma[i]) == (alone.alpha, alone.sigma)
    both = net.given(stack(uncond=cond, cond=cond))(x, times)
    assert torch.equal(both.alpha, torch.cat([pred.alpha, pred.alpha]))
    torch.testing.assert_close(both["cond"].x0, pred.x0)


def test_x_is_repeated_block_by_block_and_a_block_equals_its_own_call():
    net = Denoiser(nets.tiny_video_unet(dtype=DOUBLE), PATH)
    x = nets.clip(2, dtype=DOUBLE)
    a, b, c = (rows(first=i, second=i + 1) for i in (1, 3, 5))
    pred = net.given(stack(a=a, b=b, c=c))(x, 500)
    assert torch.equal(pred.x, torch.cat([x, x, x]))
    for name, cond in (("a", a), ("b", b), ("c", c)):
        assert pred[name].rows == (frozenset({name, "first"}), frozenset({name, "second"}))
        torch.testing.assert_close(pred[name].out, net.given(cond)(x, 500).out)


def test_permuting_stacked_rows_permutes_the_predictions():
    net, x = Denoiser(nets.tiny_video_unet(dtype=DOUBLE), PATH), nets.clip(1, dtype=DOUBLE)
    seeds = {"uncond": 1, "source": 2, "target": 3}
    parts = {name: nets.condition(seed=seed, dtype=DOUBLE) for name, seed in seeds.items()}
    parts["source"] = parts["source"].replace(dials={"motion": Dial(0.5, frames=[1.0, 0.0])})
    parts["target"] = parts["target"] & Conditioning(
        tokens={"text.style": nets.condition(seed=9, dtype=DOUBLE).tokens["text"]}
    )
    keep = Keep(lambda site: site.kind == "cross")
    pred = net.given(stack(**parts), keep)(x, 500)
    turned = net.given(stack(**{name: parts[name] for name in ("target", "uncond", "source")}), keep)(x, 500)
    for name in parts:
        torch.testing.assert_close(turned[name].out, pred[name].out)
    for name, maps in pred.kept.items():
        torch.testing.assert_close(turned.kept[name], maps[[2, 0, 1]])


@pytest.mark.parametrize("ids", [(0, 1, 2), (5, 2, 3)], ids=str)
def test_a_condition_given_whole_and_cut_equals_the_condition_of_the_slice(ids):
    net, x = Denoiser(nets.tiny_video_unet(dtype=DOUBLE), PATH), nets.clip(2, dtype=DOUBLE)
    weights, mask = [0.5, 1.0, 0.0, 0.25, 1.0, 0.75], torch.rand(6, 8, 8)
    groups = torch.tensor([[0, 0, 1, 1, 2, 1], [0, 1, 1, 1, 1, 2]])
    whole = nets.condition(b=2, f=6, dtype=DOUBLE, groups=groups, dials={"motion": Dial(frames=weights, mask=mask)})
    part = Conditioning(
        tokens={"text": whole.tokens["text"][:, ids]},
        groups=groups[:, ids],
        dials={"motion": Dial(frames=[weights[i] for i in ids], mask=mask[list(ids)])},
    )
    assert torch.equal(net.given(whole)(x, 500, frames=ids).out, net.given(part)(x, 500).out)


def test_one_window_that_covers_the_clip_is_the_plain_call_and_windows_meet_in_the_mean():
    denoise = nets.given(nets.tiny_video_unet(dtype=DOUBLE), nets.condition(b=1, f=5, dtype=DOUBLE))
    x = nets.clip(1, 5, dtype=DOUBLE)
    assert torch.equal(windowed(denoise, Windows(length=5, overlap=1))(x, 500).out, denoise(x, 500).out)
    out = windowed(denoise, Windows(length=3, overlap=1, weights="flat"))(x, 500).out
    first, last = denoise(x[:, :3], 500, (0, 1, 2)).out, denoise(x[:, 2:], 500, (2, 3, 4)).out
    torch.testing.assert_close(out, torch.cat([first[:, :2], (first[:, 2:] + last[:, :1]) / 2, last[:, 1:]], 1))


def test_gradients_reach_the_clip_the_text_and_what_was_kept():
    net, x = Denoiser(nets.tiny_unet(), PATH), nets.clip().requires_grad_()
    cond = nets.condition()
    text = cond.tokens["text"].requires_grad_()
    pred = net.given(cond, Keep(lambda site: site.kind == "cross", lambda probs: probs.square().mean((1, 2, 3))))(
        x, 500
    )
    for value in (pred.x0.square().mean(), sum(kept.sum() for kept in pred.kept.values())):
        for grad in torch.autograd.grad(value, (x, text), retain_graph=True):
            assert grad.abs().max() > 0


def test_a_control_is_resolved_for_the_time_the_frames_and_the_grid():
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Watch(Control):
        def at(self, t, frames, times):
            seen.append((t, frames, times))
            return self

    ask = Denoiser(nets.tiny_unet(), PATH).given(nets.condition(), Watch(), torch.tensor([900, 500]))
    ask(nets.clip(), torch.tensor(500))
    ask(nets.clip(), 500.0, frames=(7, 8, 9))
    assert seen == [(500.0, (0, 1, 2), (900.0, 500.0)), (500.0, (7, 8, 9), (900.0, 500.0))]


def test_calls_that_do_not_fit_are_refused():
    net, x = Denoiser(nets.tiny_unet(), PATH), nets.clip(2)
    with pytest.raises(InputError, match=r"five axes.*\(3, 4, 8, 8\)"):
        net.given(nets.condition())(x[0], 500)
    for items in (1, 3):
        with pytest.raises(InputError, match=f"condition has {items} items and the clip 2"):
            net.given(nets.condition(b=items))(x, 500)
    with pytest.raises(InputError, match="2 frame ids for a clip of 3"):
        net.given(nets.condition(b=2))(x, 500, frames=(0, 1))
    with pytest.raises(InputError, match="none for frame 2"):
        net.given(nets.condition(b=2, f=2))(x, 500)
    with pytest.raises(InputError, match="does not take tokens 'image'"):
        net.given(nets.condition() & Conditioning(tokens={"image": torch.zeros(1, 4, nets.CONTEXT)}))


def graphs(net: Denoiser, control: Control | None) -> int:
    """How many graphs two calls compile."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    given = net.given(nets.condition(b=2), control)
    for t in (500, 400):
        given(nets.clip(2), t)
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@torch.no_grad()
def test_compiled_blocks_are_not_compiled_anew_for_every_control():
    net = Denoiser(nets.tiny_unet(), PATH)
    for block in blocks(net.net):
        block.compile(backend="eager", dynamic=False, isolate_recompiles=True)
    assert 0 < graphs(net, None) == graphs(net, SPARSE_CAUSAL)
    for control in (Keep(lambda site: True), Keep(lambda site: True).on("cond"), SPARSE_CAUSAL >> Keep(lambda s: True)):
        assert graphs(net, control) == 0
    torch._dynamo.reset()
