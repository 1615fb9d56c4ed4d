"""Tune-A-Video as an editor: one tuning, then inversion and sampling through the same causal network."""

import math
import signal
from pathlib import Path

import pytest
import torch
import yaml

from editors.ddim_inversion import ddim_inversion, invert_clip
from editors.tune_a_video import from_config, sample, tune, tune_a_video
from editors.workpiece import begin
from motion_modules import fatezero_folder
from motion_modules.tune_a_video import temporal_parameters
from motion_modules.tuning import Tuning
from tests import folders
from videogen.errors import InputError
from videogen.frame_choice import MIDDLE, SPARSE_CAUSAL
from videogen.inversion import invert
from videogen.noise import FrameNoise
from videogen.pipeline import Pipeline


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd")
    folders.stable_diffusion(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(place):
    return Pipeline.from_pretrained(place)


@pytest.fixture(scope="module")
def clip():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_model_that_is_given_stays_as_it_is_and_the_tuned_one_fits_the_clip_better(pipe, clip):
    before = {name: value.clone() for name, value in pipe.parts.unet.state_dict().items()}
    state = torch.get_rng_state()
    _, start = tune(pipe, clip, "a", steps=0)
    tuned, end = tune(pipe, clip, "a", steps=16, learning_rate=1e-2)
    assert torch.equal(torch.get_rng_state(), state)
    assert pipe.parts.unet.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in pipe.parts.unet.state_dict().items())
    assert temporal_parameters(tuned.parts.unet)
    assert sum(end.values()) < sum(start.values())
    assert not any(value.requires_grad for value in tuned.parts.unet.parameters())


def test_one_call_tunes_and_edits_and_a_tuned_model_is_not_tuned_again(pipe, clip):
    options = {"steps": 3, "guidance_scale": 3.0}
    tuned, error = tune(pipe, clip, "a", steps=2)
    once = tune_a_video(pipe, clip, "a", "b", tuning_steps=2, **options)
    again = tune_a_video(tuned, clip, "a", "b", **options)
    assert once.measured == error
    assert once.frames.shape == clip.shape
    torch.testing.assert_close(again.frames, once.frames, rtol=0, atol=1e-5)
    assert not torch.equal(sample(tuned, clip, "c", **options).frames, again.frames)


def test_inversion_and_sampling_go_through_the_causal_network_with_the_empty_prompt(pipe, clip):
    """Sampling what was inverted, unguided, is the method with an empty target."""
    tuned, _ = tune(pipe, clip, "a", steps=0)
    work = begin(tuned, clip, 3)
    (empty,) = work.conditions("")
    denoise = work.denoise(empty)
    noise = invert(denoise, work.latents, work.times).noise
    made = work.sampler(denoise, noise, work.times)
    torch.testing.assert_close(
        sample(tuned, clip, "", steps=3, guidance_scale=1.0).frames, tuned.decode(made)[0], rtol=0, atol=1e-5
    )


def test_every_method_reads_the_frames_that_a_model_was_tuned_with_once(pipe, clip):
    """Those of the model, in the place of which a method may put its own; guided or not."""
    tuned, _ = tune(pipe, clip, "a", steps=0)
    x, t = torch.randn(1, 3, 4, 2, 2), 500.0
    for frames, asked in ((None, SPARSE_CAUSAL), (MIDDLE, MIDDLE)):
        work = begin(tuned, clip, 3, frames=frames)
        (pair,) = work.conditions("a")
        alone, guided = (work.denoise(pair, scale)(x, t).out for scale in (1.0, 3.0))
        expected = tuned.denoiser.given(pair[0], asked)(x, t).out
        torch.testing.assert_close(alone, expected)
        torch.testing.assert_close(
            guided, tuned.denoiser.given(pair[1], asked)(x, t).out.lerp(expected, 3.0), rtol=0, atol=1e-5
        )
        assert (alone - tuned.denoiser.given(pair[0])(x, t).out).abs().max() > 1e-4


def test_a_folder_with_a_table_of_its_own_is_inverted_and_sampled_with_it(pipe, clip):
    """As those of FateZero's authors have. An inversion made without this method is then one of the same network."""
    tuned, _ = tune(pipe, clip, "a", steps=0)
    folder = fatezero_folder.pipeline(tuned.parts, fatezero_folder.ModelConfig(None, ("middle",)))
    options = {"steps": 2, "guidance_scale": 1.0, "progress": False}
    made, causal = (sample(p, clip, "b", **options).frames for p in (folder, tuned))
    assert torch.equal(made, ddim_inversion(folder, clip, "", "b", **options).frames)
    assert (made - causal).abs().max() > 1e-4
    trajectory = invert_clip(folder, clip, "", steps=2, progress=False)
    torch.testing.assert_close(sample(folder, clip, "b", trajectory=trajectory, **options).frames, made)


def test_noise_of_a_seed_takes_the_place_of_inversion(pipe, clip):
    tuned, _ = tune(pipe, clip, "a", steps=0)
    one, two = (sample(tuned, clip, "b", steps=2, inversion_prompt=None, seed=seed).frames for seed in (1, 2))
    assert not torch.equal(one, two)
    whole = tuned("b", num_frames=3, height=16, width=16, num_inference_steps=2, guidance_scale=12.5, seed=1,
                  output_type="pt", progress=False)  # fmt: skip
    torch.testing.assert_close(one, whole.frames[0], rtol=0, atol=1e-5)
    # A piece of a longer clip has the noise of its own frames.
    later = FrameNoise(1)(1, range(7, 10), (4, 2, 2))
    piece = tuned("b", num_frames=3, height=16, width=16, num_inference_steps=2, guidance_scale=12.5, latents=later,
                  output_type="pt", progress=False)  # fmt: skip
    made = sample(tuned, clip, "b", steps=2, inversion_prompt=None, seed=1, first=7, progress=False)
    torch.testing.assert_close(made.frames, piece.frames[0], rtol=0, atol=1e-5)


@pytest.fixture
def file(place, clip, tmp_path: Path) -> Path:
    """A configuration file with the authors' keys; its runs go to the folder `out` beside it."""
    from videogen.clip import Clip
    from videogen.video import write

    write(tmp_path / "clip.png", Clip(clip))
    said = {
        "pretrained_model_path": str(place), "output_dir": str(tmp_path / "out"), "max_train_steps": 2, "mixed_precision": "no",
        "train_data": {"video_path": str(tmp_path / "clip.png"), "prompt": "a", "n_sample_frames": 3, "width": 16, "height": 16},
        "validation_data": {"prompts": ["b", "c"], "video_length": 2, "num_inference_steps": 2, "use_inv_latent": True},
    }  # fmt: skip
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(said))
    return tmp_path / "theirs.yaml"


def test_a_file_with_the_authors_keys_runs_from_tuning_to_clips(file):
    made = from_config(file)
    assert {prompt: edited.frames.shape for prompt, edited in made.items()} == dict.fromkeys("bc", (2, 3, 16, 16))
    tuned = Pipeline.from_pretrained(file.parent / "out")
    assert temporal_parameters(tuned.parts.unet)
    # The inverted noise lies where the authors' script leaves it, with their axes, and samples to the same clip.
    (noise,) = (file.parent / "out" / "inv_latents").iterdir()
    assert noise.name == "ddim_latent-2.pt"
    latents = torch.load(noise, weights_only=True)
    assert latents.shape == (1, 4, 2, 2, 2)
    again = tuned("b", latents=latents.transpose(1, 2), num_frames=2, height=16, width=16, num_inference_steps=2,
                  guidance_scale=12.5, output_type="pt", progress=False).frames[0]  # fmt: skip
    torch.testing.assert_close(again, made["b"].frames, rtol=0, atol=1e-5)


def test_a_run_of_a_file_that_is_interrupted_makes_no_clips(file, interrupting):
    with pytest.raises(KeyboardInterrupt):
        from_config(file)
    assert not (file.parent / "out" / "inv_latents").exists()


def test_what_cannot_be_edited_is_refused_before_anything_is_tuned(pipe):
    with pytest.raises(InputError, match="multiple"):
        tune_a_video(pipe, torch.rand(2, 3, 15, 16), "a", "b")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"learning_rate": -1.0}, "rate above 0"), ({"learning_rate": math.nan}, "rate above 0"), ({"tuning_steps": -1}, "0 or more"),
     ({"guidance_scale": math.nan}, "guidance")],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(pipe, clip, wrong, message):
    with pytest.raises(InputError, match=message):
        tune_a_video(pipe, clip, "a", "b", **{"tuning_steps": 0, "steps": 1, "progress": False, **wrong})


def test_a_tuning_can_be_silent(pipe, clip, capsys):
    tune(pipe, clip, "a", steps=1, progress=False)
    assert capsys.readouterr().err == ""


@pytest.fixture
def interrupting(monkeypatch) -> None:
    """Each step of a tuning hears a signal. The loop finishes the step and returns."""
    losses = Tuning.losses

    def interrupted(self, batch):
        signal.raise_signal(signal.SIGINT)
        return losses(self, batch)

    monkeypatch.setattr(Tuning, "losses", interrupted)


def test_a_tuning_that_is_interrupted_ends_the_edit_and_leaves_the_model_as_it_was(place, clip, interrupting):
    """Half a tuning must not be sampled from, and its VAE and text side are the model's own."""
    pipe = Pipeline.from_pretrained(place, dtype=torch.bfloat16)
    with pytest.raises(KeyboardInterrupt):
        tune_a_video(pipe, clip, "a", "b", tuning_steps=3, steps=1, progress=False)
    parts = (pipe.parts.unet, pipe.parts.vae, pipe.parts.text)
    assert {value.dtype for part in parts for value in part.parameters()} == {torch.bfloat16}
