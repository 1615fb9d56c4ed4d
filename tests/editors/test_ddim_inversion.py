"""Plain inversion as an editor: the source prompt returns the clip, and long clips are inverted in the windows they are sampled in."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

import editors
from editors.ddim_inversion import Inversion, invert_clip, inverted
from editors.fatezero import default_frames
from editors.workpiece import begin
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL, FrameChoice
from videogen.inversion import invert
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


def again(
    pipe: Pipeline, clip: torch.Tensor, found: Mapping[str, Inversion], **options: Any
) -> dict[str, torch.Tensor]:
    """Frames by method, from inversions by method."""
    shared: dict[str, Any] = {"steps": 4, "strength": 0.5, "guidance_scale": 3.0, "progress": False}
    return {
        name: getattr(editors, name)(
            pipe, clip, PROMPT, "a blue circle", trajectory=found.get(name), **shared, **options
        ).frames
        for name in INVERTING
    }


INVERTING = ("ddim_inversion", "prompt_to_prompt", "null_text", "fatezero")


@pytest.mark.parametrize(("model", "windows"), [("moving", None), ("moving", Windows(3, 2)), ("still", None)])
def test_one_inversion_serves_all_methods_that_invert(
    request: pytest.FixtureRequest, clip: torch.Tensor, model: str, windows: Windows | None
) -> None:
    """All but FateZero on an image model, which reads the middle frame in the inversion too."""
    pipe, clip = request.getfixturevalue(model)[0], clip[:, :, :24, :16]
    asked: dict[str, Any] = {"steps": 4, "strength": 0.5, "windows": windows, "progress": False}
    found = dict.fromkeys(INVERTING, invert_clip(pipe, clip, PROMPT, **asked))
    if model == "still":
        found["fatezero"] = invert_clip(pipe, clip, PROMPT, frames=default_frames(pipe), **asked)
        assert (found["fatezero"].latents - found["null_text"].latents).abs().max() > 1e-3
    alone, shared = (again(pipe, clip, given, windows=windows) for given in ({}, found))
    for name, frames in alone.items():
        torch.testing.assert_close(shared[name], frames, atol=1e-4, rtol=0, msg=name)
    # It is used, not made again.
    noisier = {
        name: dataclasses.replace(made, latents=torch.cat([made.latents[:-1] * 1.1, made.latents[-1:]]))
        for name, made in found.items()
    }
    for name, frames in again(pipe, clip, noisier, windows=windows).items():
        assert (frames - alone[name]).abs().max() > 1e-3, name


@pytest.mark.parametrize("name", INVERTING)
def test_an_inversion_of_another_clip_grid_or_prompt_is_refused(
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
    with pytest.raises(InputError, match="made under 'a red circle'; invert the clip under 'a red dot'"):
        method(pipe, clip, "a red dot", "a blue circle", trajectory=found, steps=4, progress=False)


def test_an_inversion_by_a_network_that_read_other_frames_is_refused(
    still: tuple[Pipeline, Any], clip: torch.Tensor
) -> None:
    """One frame has no others to read, and of the same frames the order does not count."""
    pipe, clip, asked = still[0], clip[:2, :, :24, :16], {"steps": 2, "progress": False}
    plain, middle = (invert_clip(pipe, clip, PROMPT, frames=table, **asked) for table in (None, default_frames(pipe)))
    for method, found in ((editors.fatezero, plain), (editors.prompt_to_prompt, middle)):
        with pytest.raises(InputError, match="over other frames"):
            method(pipe, clip, PROMPT, "a blue circle", trajectory=found, **asked)
    causal = invert_clip(pipe, clip, PROMPT, frames=SPARSE_CAUSAL, **asked)
    turned = FrameChoice((-1, "first"))
    editors.fatezero(pipe, clip, PROMPT, "a blue circle", trajectory=causal, frames=turned, **asked)
    alone = invert_clip(pipe, clip[:1], PROMPT, **asked)
    editors.fatezero(pipe, clip[:1], PROMPT, "a blue circle", trajectory=alone, **asked)
