"""Plain inversion as an editor: the source prompt returns the clip, and long clips are inverted in the windows they are sampled in."""

import math
from typing import Any

import pytest
import torch

import editors
from editors.ddim_inversion import invert_clip, inverted
from editors.workpiece import begin
from videogen.errors import InputError
from videogen.inversion import Trajectory, invert
from videogen.pipeline import Pipeline
from videogen.windows import Windows, windowed

PROMPT = "a red circle"


def test_the_source_prompt_returns_the_clip_the_nearer_the_more_rounds(
    moving: tuple[Pipeline, Any], clip: torch.Tensor
) -> None:
    """At guidance 1 the edit under the source prompt is the reconstruction, and what was measured is told of it."""
    pipe, clip = moving[0], clip[:2, :, :32, :32]
    with torch.no_grad():
        around = pipe.decode(pipe.encode(clip[None]))[0]
    errors, measured = [], []
    for rounds in (0, 8):
        edited = editors.ddim_inversion(
            pipe, clip, PROMPT, PROMPT, steps=10, guidance_scale=1, rounds=rounds, progress=False
        )
        errors.append(float((edited.frames - around).double().square().mean()))
        measured.append(edited.measured["reconstruction_rms"])
        assert edited.measured["reconstruction_psnr"] == pytest.approx(-10 * math.log10(errors[-1]), abs=0.01)
    assert errors[1] < errors[0]
    assert measured[1] < measured[0]


def test_prompts_of_one_call_have_equal_lengths(moving: tuple[Pipeline, Any], clip: torch.Tensor) -> None:
    """A target of two chunks beside a source of one: both come in two, with their null."""
    work = begin(moving[0], clip, 2)
    long = "a very large blue square " * 8
    (given, null), (wanted, _) = work.conditions(PROMPT, long)
    assert given.tokens["text"].shape == null.tokens["text"].shape == wanted.tokens["text"].shape
    ((alone, _),) = work.conditions(long)
    torch.testing.assert_close(wanted.tokens["text"], alone.tokens["text"])


def test_a_long_clip_is_inverted_in_windows(moving: tuple[Pipeline, Any]) -> None:
    """18 frames and a table of 16 positions: the windows are chosen, and the network is asked in them."""
    frames = torch.rand(18, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    work = begin(moving[0], frames, 2)
    assert work.windows is not None
    (described,) = work.conditions(PROMPT)
    trajectory = inverted(work, described, progress=False)
    plain = work.pipe.denoiser.given(described[0], None, work.times.t)
    expected = invert(windowed(plain, work.windows), work.latents, work.times)
    torch.testing.assert_close(trajectory.latents, expected.latents)


@pytest.mark.parametrize("name", editors.METHODS)
def test_every_method_is_a_function_whoever_imports_first(name: str) -> None:
    from importlib import import_module

    module = import_module(f"editors.{name}")
    assert getattr(editors, name) is getattr(module, name)
    assert name in dir(editors)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = editors.nonsense


def again(pipe: Pipeline, clip: torch.Tensor, trajectory: Trajectory | None, **options: Any) -> dict[str, torch.Tensor]:
    """Frames by method."""
    shared: dict[str, Any] = {
        "steps": 4,
        "strength": 0.5,
        "guidance_scale": 3.0,
        "progress": False,
        "trajectory": trajectory,
    }
    return {
        name: getattr(editors, name)(pipe, clip, PROMPT, "a blue circle", **shared, **options).frames
        for name in ("ddim_inversion", "prompt_to_prompt", "null_text", "fatezero")
    }


@pytest.mark.parametrize("windows", [None, Windows(3, 2)], ids=["whole", "windows"])
def test_one_inversion_serves_all_methods_that_invert(
    moving: tuple[Pipeline, Any], clip: torch.Tensor, windows: Windows | None
) -> None:
    pipe, clip = moving[0], clip[:, :, :24, :16]
    found = invert_clip(pipe, clip, PROMPT, steps=4, strength=0.5, windows=windows, progress=False)
    alone, shared = (again(pipe, clip, trajectory, windows=windows) for trajectory in (None, found))
    for name, frames in alone.items():
        torch.testing.assert_close(shared[name], frames, atol=1e-4, rtol=0, msg=name)
    # It is used, not made again.
    noisier = Trajectory(found.times, torch.cat([found.latents[:-1] * 1.1, found.latents[-1:]]), found.device)
    for name, frames in again(pipe, clip, noisier, windows=windows).items():
        assert (frames - alone[name]).abs().max() > 1e-3, name


@pytest.mark.parametrize("name", ["ddim_inversion", "prompt_to_prompt", "null_text", "fatezero"])
def test_an_inversion_of_another_clip_or_grid_is_refused(
    moving: tuple[Pipeline, Any], clip: torch.Tensor, name: str
) -> None:
    pipe, clip = moving[0], clip[:2, :, :24, :16]
    found, method = invert_clip(pipe, clip, PROMPT, steps=4, progress=False), getattr(editors, name)
    for options, message in (({"steps": 3}, "other steps"), ({"steps": 4, "strength": 0.5}, "other steps")):
        with pytest.raises(InputError, match=message):
            method(pipe, clip, PROMPT, "a blue circle", trajectory=found, progress=False, **options)
    for wrong in (1 - clip, clip[:1]):
        with pytest.raises(InputError, match="another clip"):
            method(pipe, wrong, PROMPT, "a blue circle", trajectory=found, steps=4, progress=False)
