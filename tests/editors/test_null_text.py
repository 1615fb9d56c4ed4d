"""Null-text inversion holds guided sampling to the pivot: never further from it for being optimised, and the same as the paper's
algorithm written out over diffusers' network."""

import dataclasses
from pathlib import Path as FilePath
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import editors
from editors.ddim_inversion import inverted
from editors.null_text import Descent, NullText, Sides, find_nulls, following, for_inputs, load_nulls, optimised
from editors.workpiece import begin
from tests import nets
from videogen.conditioning import Conditioning, stack
from videogen.denoiser import Denoiser
from videogen.errors import InputError
from videogen.guidance import cfg
from videogen.inversion import Trajectory, invert, reconstruct
from videogen.path import Path
from videogen.pipeline import Pipeline
from videogen.sampling import SAMPLERS

SD = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False,
}  # fmt: skip
NEVER = {"epsilon": 0.0, "slack": 0.0}  # no early stop


class Bench:
    """A tiny video network, its pivot for a clip of noise, and the nulls that are found for it."""

    def __init__(self, predicts: str = "eps") -> None:
        unet = nets.tiny_video_unet().requires_grad_(False)
        self.times = SAMPLERS["ddim"].from_config(SD).times(Path.from_config(SD), 4)
        self.denoiser = Denoiser(unet, self.times.path, predicts)  # type: ignore[arg-type]
        self.given, self.null = nets.condition(seed=2), nets.condition(seed=3)
        self.pivot = invert(self.denoiser.given(self.given), nets.clip(f=2), self.times)

    def told(self, embedding: Tensor) -> Conditioning:
        return self.null.replace(tokens={"text": embedding})

    def find(self, scale: float = 7.5, **settings: Any) -> NullText:
        sides = Sides(
            self.denoiser.given(self.given), lambda e: self.denoiser.given(self.told(e)), self.told, self.null.tokens["text"]
        )  # fmt: skip
        return optimised(sides, self.pivot, scale, Descent(**{**NEVER, **settings}))

    def plain(self, scale: float = 7.5) -> Trajectory:
        """What guidance with the null prompt itself makes of the inverted noise."""
        return reconstruct(cfg(self.denoiser.given(stack(uncond=self.null, cond=self.given)), scale), self.pivot)


@pytest.mark.parametrize("predicts", ["eps", "v"])
def test_guided_sampling_comes_nearer_to_the_pivot(predicts: str) -> None:
    bench = Bench(predicts)
    far = float(bench.pivot.distance(bench.plain())[-1])
    found = bench.find(inner_steps=5)
    near = float(bench.pivot.distance(found.reached)[-1])
    assert near < far
    assert all(after <= before for before, after in zip(found.before, found.after, strict=True))
    assert any(after < before for before, after in zip(found.before, found.after, strict=True))
    # What each step reports is the distance of the state that it reached.
    torch.testing.assert_close(
        bench.pivot.distance(found.reached)[1:] ** 2, torch.tensor(found.after).double(), rtol=1e-4, atol=0
    )


def test_sampling_with_the_nulls_goes_where_the_search_went() -> None:
    bench = Bench()
    found = bench.find(inner_steps=2)

    def guided(x, t, frames=None):
        return cfg(bench.denoiser.given(stack(uncond=found.at(t), cond=bench.given)), 7.5)(x, t, frames)

    again = reconstruct(guided, bench.pivot)
    torch.testing.assert_close(again.latents, found.reached.latents, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="same steps"):
        found.at(500.0)


def test_without_inner_steps_it_is_plain_guidance() -> None:
    bench = Bench()
    found = bench.find(inner_steps=0)
    assert all(torch.equal(null.tokens["text"], bench.null.tokens["text"]) for null in found.nulls)
    torch.testing.assert_close(found.reached.latents, bench.plain().latents, atol=1e-4, rtol=1e-4)
    assert found.asked == (1,) * 4


def test_at_guidance_one_the_null_is_of_no_account() -> None:
    """The gradient is exactly zero: the embeddings stay bit for bit, and the states are the unguided ones."""
    bench = Bench()
    found = bench.find(scale=1.0, inner_steps=2)
    assert all(torch.equal(null.tokens["text"], bench.null.tokens["text"]) for null in found.nulls)
    plain = reconstruct(bench.denoiser.given(bench.given), bench.pivot)
    assert torch.equal(found.reached.latents, plain.latents)


def test_early_stop_stops_where_the_loss_is_small_enough() -> None:
    bench = Bench()
    patient = bench.find(inner_steps=4)
    assert patient.asked == (5,) * 4
    at_once = bench.find(inner_steps=4, epsilon=torch.inf)
    assert at_once.asked == (1,) * 4
    # Halfway between the first step's first and best loss: that step stops early, below the mark.
    mark = (patient.before[0] + patient.after[0]) / 2
    stopped = bench.find(inner_steps=4, epsilon=mark)
    assert 1 < stopped.asked[0] < 5
    assert patient.after[0] < stopped.after[0] < mark < stopped.before[0]
    # The slack counts by step: the first is held to epsilon, the others are let go.
    slack = bench.find(inner_steps=4, slack=1e6)
    assert slack.asked == (5, 1, 1, 1)


def test_each_step_begins_with_the_embedding_of_the_one_before() -> None:
    found = Bench().find(inner_steps=4, slack=1e6)
    first = found.nulls[0].tokens["text"]
    assert all(torch.equal(null.tokens["text"], first) for null in found.nulls[1:])


def test_equals_the_algorithm_over_diffusers_network(still: tuple[Pipeline, Any], picture: Tensor) -> None:
    """Pivot, embeddings and states, against algorithm 1 written out with diffusers' UNet and schedulers."""
    pipe, theirs = still
    work = begin(pipe, picture, 4)
    (described,) = work.conditions("a red circle")
    pivot = inverted(work, described, progress=False)
    found = find_nulls(work, described, pivot, descent=Descent(inner_steps=3, **NEVER), progress=False)
    texts = [side.tokens["text"] for side in described]
    states, nulls, losses = written_out(theirs, pivot.clean[:, 0], texts[0], texts[1])
    torch.testing.assert_close(found.reached.latents[:, :, 0], torch.stack(states), atol=1e-4, rtol=1e-4)
    for mine, other in zip(found.nulls, nulls, strict=True):
        torch.testing.assert_close(mine.tokens["text"], other, atol=1e-4, rtol=1e-4)
    assert all(falling == sorted(falling, reverse=True) for falling in losses)  # so the last is the best


def written_out(
    theirs: Any, clean: Tensor, text: Tensor, null: Tensor
) -> tuple[list[Tensor], list[Tensor], list[list[float]]]:
    """States, null embeddings and losses at 4 steps, guidance 7.5 and 3 inner steps."""
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    config = {**theirs.scheduler.config}
    up = DDIMInverseScheduler.from_config({**config, "_class_name": "DDIMInverseScheduler"})
    down = DDIMScheduler.from_config(config)
    up.set_timesteps(4)
    down.set_timesteps(4)
    ask = lambda x, t, e: theirs.unet(x, t, encoder_hidden_states=e).sample  # noqa: E731
    with torch.no_grad():
        way = [clean]
        for t in up.timesteps:
            way.append(up.step(ask(way[-1], t, text), int(t), way[-1]).prev_sample)
    x, states, nulls, losses = way[-1], [way[-1]], [], []
    for i, t in enumerate(down.timesteps):
        null = null.clone().detach().requires_grad_()
        adam = torch.optim.Adam([null], lr=1e-2 * (1 - i / 8))
        with torch.no_grad():
            cond = ask(x, t, text)

        def arrive(null: Tensor, x: Tensor = x, t: Tensor = t, cond: Tensor = cond) -> Tensor:
            uncond = ask(x, t, null)
            return down.step(uncond + 7.5 * (cond - uncond), t, x).prev_sample

        losses.append([])
        for _ in range(3):
            loss = F.mse_loss(arrive(null), way[-2 - i])
            losses[-1].append(float(loss.detach()))
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            x = arrive(null)
        losses[-1].append(float(F.mse_loss(x, way[-2 - i])))
        states.append(x)
        nulls.append(null.detach())
    return states, nulls, losses


def test_one_embedding_serves_all_frames_and_nothing_else_changes(moving: tuple[Pipeline, Any], clip: Tensor) -> None:
    pipe = moving[0]
    weights = {name: value.clone() for name, value in pipe.parts.unet.state_dict().items()}
    trained = [parameter.requires_grad for parameter in pipe.parts.unet.parameters()]
    work = begin(pipe, clip, 2)
    (described,) = work.conditions("a red circle")
    pivot = inverted(work, described, progress=False)
    found = find_nulls(work, described, pivot, descent=Descent(inner_steps=2, **NEVER), progress=False)
    kept = find_nulls(work, described, pivot, descent=Descent(inner_steps=2, recompute=False, **NEVER), progress=False)
    torch.testing.assert_close(kept.reached.latents, found.reached.latents, atol=1e-5, rtol=1e-5)
    assert {null.tokens["text"].shape for null in found.nulls} == {described[1].tokens["text"].shape}
    assert all(null.dials == described[1].dials for null in found.nulls)
    # The embeddings moved, and with them the clip comes nearer than without.
    assert not any(torch.equal(null.tokens["text"], described[1].tokens["text"]) for null in found.nulls)
    plain = reconstruct(work.denoise(described, 7.5), pivot)
    assert pivot.distance(found.reached)[-1] < 0.95 * pivot.distance(plain)[-1]
    assert all(torch.equal(value, weights[name]) for name, value in pipe.parts.unet.state_dict().items())
    assert all(parameter.grad is None for parameter in pipe.parts.unet.parameters())
    assert [parameter.requires_grad for parameter in pipe.parts.unet.parameters()] == trained
    again = reconstruct(following(work, described, found.at, 7.5), pivot)
    torch.testing.assert_close(again.latents, found.reached.latents, atol=1e-4, rtol=1e-4)


def test_as_an_editor_it_reports_how_near_it_came(still: tuple[Pipeline, Any], picture: Tensor) -> None:
    pipe, prompt = still[0], "a red circle"
    settings: dict[str, Any] = {"steps": 4, "guidance_scale": 7.5, "progress": False}
    edited = editors.null_text(pipe, picture, prompt, prompt, descent=Descent(**NEVER), **settings)
    plain = editors.null_text(pipe, picture, prompt, prompt, descent=Descent(inner_steps=0), **settings)
    assert edited.measured["reconstruction_rms"] < plain.measured["reconstruction_rms"]
    # Under the source prompt the edit is the reconstruction, and what was measured is told of the frames that came back.
    with torch.no_grad():
        around = pipe.decode(begin(pipe, picture, 4).latents)[0]
    told = float(-10 * (edited.frames - around).square().mean().log10())
    assert edited.measured["reconstruction_psnr"] == pytest.approx(told, abs=0.01)
    # Without inner steps it is plain inversion, sampled with guidance.
    other = editors.ddim_inversion(pipe, picture, prompt, prompt, **settings)
    torch.testing.assert_close(plain.frames, other.frames, atol=1e-3, rtol=0)


def test_an_interruption_leaves_the_network_as_it_was() -> None:
    unet = nets.tiny_unet()
    next(iter(unet.parameters())).requires_grad_(False)
    before = [parameter.requires_grad for parameter in unet.parameters()]

    def stopped() -> None:
        with for_inputs(unet, recompute=True):
            assert not any(parameter.requires_grad for parameter in unet.parameters())
            assert unet.checkpointing
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [parameter.requires_grad for parameter in unet.parameters()] == before
    assert not unet.checkpointing


def test_null_texts_go_to_a_file_and_into_prompt_to_prompt(
    still: tuple[Pipeline, Any], picture: Tensor, tmp_path: FilePath
) -> None:
    pipe, prompt = still[0], "a red circle"
    work = begin(pipe, picture, 3)
    (described,) = work.conditions(prompt)
    pivot = inverted(work, described, progress=False)
    found = find_nulls(work, described, pivot, descent=Descent(inner_steps=2, **NEVER), progress=False)
    found.save(tmp_path / "ours.pt")
    stacked = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert stacked.shape == (3, *described[1].tokens["text"].shape)
    torch.save(list(stacked), tmp_path / "listed.pt")
    settings: dict[str, Any] = {"steps": 3, "guidance_scale": 7.5, "trajectory": pivot, "progress": False}
    wanted = editors.prompt_to_prompt(pipe, picture, prompt, "a blue circle", nulls=found.at, **settings)
    for name in ("ours.pt", "listed.pt"):
        nulls = load_nulls(tmp_path / name, work.times, described[1])
        again = editors.prompt_to_prompt(pipe, picture, prompt, "a blue circle", nulls=nulls, **settings)
        assert torch.equal(again.frames, wanted.frames)
    plain = editors.prompt_to_prompt(pipe, picture, prompt, "a blue circle", **settings)
    assert not torch.equal(plain.frames, wanted.frames)


@pytest.mark.parametrize(
    ("content", "says"),
    [(torch.zeros(4, 1, 5, 12), "need 3 of"), (torch.zeros(3, 1, 5, 8), r"\(1, 5, 8\)"), (torch.zeros(()), "holds 0"), (["text"] * 3, "need 3 of"),
     ({"nulls": torch.zeros(3, 1, 5, 12)}, "holds 0"), (nets.Maps(), "carries code")],
)  # fmt: skip
def test_a_file_of_other_null_texts_is_refused(content: Any, says: str, tmp_path: FilePath) -> None:
    """Of other steps, of another model, or of something else."""
    times = SAMPLERS["ddim"].from_config(SD).times(Path.from_config(SD), 3)
    torch.save(content, tmp_path / "nulls.pt")
    with pytest.raises(InputError, match=says):
        load_nulls(tmp_path / "nulls.pt", times, nets.condition())
    with pytest.raises(InputError, match="does not exist"):
        load_nulls(tmp_path / "none.pt", times, nets.condition())


@pytest.mark.parametrize("settings", [{"inner_steps": -1}, {"rate": 0.0}])
def test_a_descent_that_cannot_be_says_so(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="give 0 or more"):
        Descent(**settings)


def test_a_guidance_that_is_no_number_is_refused(still: tuple[Pipeline, Any], picture: Tensor) -> None:
    with pytest.raises(InputError, match="guidance"):
        editors.null_text(still[0], picture, "a", "b", steps=2, guidance_scale=float("nan"), progress=False)


def test_half_precision_is_refused_before_anything_is_computed(still: tuple[Pipeline, Any], picture: Tensor) -> None:
    parts = dataclasses.replace(still[0].parts, unet=nets.tiny_unet(dtype=torch.float16))
    with pytest.raises(InputError, match="float16"):
        editors.null_text(Pipeline(parts), picture, "a", "b")
