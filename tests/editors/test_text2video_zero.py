"""Text2Video-Zero: equal to diffusers' pipeline, and the identities of its parts."""

import math

import pytest
import torch
from safetensors.torch import save_file

from editors.text2video_zero import (
    DIAGONAL,
    Smoothing,
    dilated,
    displacements,
    dynamics,
    smoothed,
    text2video_zero,
    translation,
    warp,
)
from tests import folders
from videogen.errors import InputError
from videogen.path import Path
from videogen.pipeline import Pipeline
from videogen.prediction import Prediction
from videogen.sampling import SAMPLERS, ddim
from videogen.shapes import foreground
from videogen.times import Times

STEPS = {"num_inference_steps": 6, "t0": 3, "t1": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny Stable Diffusion as diffusers has it, and as we load it."""
    folder = tmp_path_factory.mktemp("sd")
    return folders.stable_diffusion(folder), Pipeline.from_pretrained(folder)


def test_equal_to_diffusers_with_the_same_latents_and_draws(models):
    made, expected = side_by_side(*models)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
    assert (made[1] - made[0]).abs().max() > 0.1  # the motion is large enough to be seen


def test_the_moments_of_the_paper_are_those_of_stable_diffusions_50_steps(models):
    """Places 44 and 47 of the ascending grid, at t of 881 and 941."""
    grid = models[1].plan(num_inference_steps=50).times.t.flip(0)
    assert grid[[44, 47]].tolist() == [881, 941]

    def made(**moments):
        return text2video_zero(models[1], "a", num_frames=2, height=16, width=16, guidance_scale=1.0, **moments).frames

    found = made()
    assert torch.equal(found, made(t0=44, t1=47))
    for other in ({"t0": 43, "t1": 47}, {"t0": 44, "t1": 48}):
        assert not torch.equal(found, made(**other))


def test_a_personalised_base_is_its_own_and_equal_to_diffusers_too(models, tmp_path):
    """Weights that a LoRA file has changed; keys and values, of which frame 0's serve all frames, among them."""
    theirs, ours = folders.stable_diffusion(tmp_path / "sd"), Pipeline.from_pretrained(tmp_path / "sd")
    weights, draw = ours.parts.unet.state_dict(), torch.Generator().manual_seed(0)
    changes = {}
    for layer in ("attn1.to_k", "attn1.to_v", "attn2.to_q"):
        name = f"down_blocks.0.attentions.0.transformer_blocks.0.{layer}"
        out, in_ = weights[f"{name}.weight"].shape
        changes[f"unet.{name}.lora_A.weight"] = torch.randn(2, in_, generator=draw)
        changes[f"unet.{name}.lora_B.weight"] = torch.randn(out, 2, generator=draw)
    save_file(changes, tmp_path / "style.safetensors")
    theirs.load_lora_weights(tmp_path / "style.safetensors")
    made, expected = side_by_side(theirs, ours.load_lora(tmp_path / "style.safetensors"))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
    assert (made - side_by_side(*models)[0]).abs().max() > 1e-2


def side_by_side(theirs, ours):
    """Our frames and those of diffusers' pipeline, `f 3 H W`, with the same latents and draws."""
    from diffusers import TextToVideoZeroPipeline

    parts = {name: part for name, part in theirs.components.items() if name != "image_encoder"}
    theirs = TextToVideoZeroPipeline(**parts, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(3))
    size = {"height": 96, "width": 64, **STEPS}
    expected = theirs(
        "a b", video_length=4, latents=latents, generator=torch.Generator().manual_seed(5), output_type="np",
        motion_field_strength_x=100, motion_field_strength_y=-70, negative_prompt="c", **size,
    ).images  # fmt: skip
    made = text2video_zero(
        ours, "a b", num_frames=4, latents=latents[None], generator=torch.Generator().manual_seed(5), negative_prompt="c",
        flow=translation(100, -70), early=True, chunk=3, **size,
    )  # fmt: skip
    return made.frames, torch.from_numpy(expected).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(48, 48), (64, 96), (16, 128), (600, 8)])
def test_no_flow_is_the_exact_identity(size):
    x = torch.randn(2, 3, 1, *size)
    assert torch.equal(warp(x, displacements(translation(0, 0), range(3), size)), x)


def test_a_dot_moves_left_as_in_the_released_code():
    x = torch.zeros(1, 1, 1, 64, 64)
    x[..., 20, 32] = 1
    shifts = displacements(translation(12, 0), (1, 2, 4), (64, 64))
    moved = warp(x.expand(-1, 3, -1, -1, -1), shifts)
    assert [place.tolist() for place in moved[0, :, 0].nonzero()] == [[0, 20, 31], [1, 20, 29], [2, 20, 26]]


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (16, 16)])
def test_warping_equals_diffusers(size):
    from diffusers.pipelines.deprecated.text_to_video_synthesis import pipeline_text_to_video_zero as theirs

    x = torch.randn(3, 4, *size)
    for flow in ((12, 12), (-31, 7.3), (0, 300)):
        expected = theirs.create_motion_field_and_warp_latents(*flow, (1, 2, 5), x)
        assert torch.equal(warp(x[None], displacements(translation(*flow), (1, 2, 5), size))[0], expected)


def test_a_flow_may_differ_from_place_to_place():
    """Read at the mirrored column, a picture is mirrored."""
    columns = torch.arange(8.0)
    field = torch.stack([((7 - columns) - columns).expand(6, 8) / 8, torch.zeros(6, 8)])
    x = torch.randn(1, 1, 4, 6, 8)
    assert torch.equal(warp(x, displacements(lambda frame: field, [1], (6, 8))), x.flip(-1))


def blurring(x, t, frames=None):
    """A translation-equivariant denoiser."""
    kernel = torch.tensor([[0.0, 1, 0], [1, 2, 1], [0, 1, 0]], dtype=x.dtype).expand(x.shape[2], 1, 3, 3) / 6
    out = torch.nn.functional.conv2d(x.flatten(0, 1), kernel, padding=1, groups=x.shape[2]).unflatten(0, x.shape[:2])
    return Prediction(x, out, PATH.alpha(t), PATH.sigma(t), "eps")


PATH = Path.from_config({"beta_schedule": "linear"})


def ddim_times(n: int) -> Times:
    return SAMPLERS["ddim"].times(PATH, n)


def test_under_an_equivariant_net_frames_are_frame_0_displaced():
    """1.5 latents a frame, ties to the lower side: frame k is frame 0 shifted by 1, 3, 4 places in the interior."""
    times, none = ddim_times(10), lambda ids: torch.zeros(1, len(ids), 2, 64, 64)
    noise = torch.randn(1, 1, 2, 64, 64)
    x = dynamics(blurring, noise, times, range(4), DIAGONAL, none, (8, 8))
    x0 = ddim(blurring, x, times.final(9))
    inner = slice(20, 44)
    for frame, by in ((1, 1), (2, 3), (3, 4)):
        there = slice(20 + by, 44 + by)
        torch.testing.assert_close(x0[0, frame, :, inner, inner], x0[0, 0, :, there, there], rtol=1e-4, atol=1e-5)


def test_without_motion_and_fresh_noise_all_frames_are_the_same(models):
    still = text2video_zero(models[1], "a", num_frames=3, num_inference_steps=4, t0=3, t1=3, flow=translation(0, 0))
    torch.testing.assert_close(still.frames, still.frames[:1].expand(3, -1, -1, -1), rtol=0, atol=1e-6)


def test_frames_at_the_upper_moment_have_the_law_of_the_forward_process():
    """Clean data is a constant: what was noised back from t0 to t1 keeps the mean alpha_t1 / alpha_t0 and gains the missing variance."""
    times, generator = ddim_times(10), torch.Generator().manual_seed(0)
    fresh = lambda ids: torch.randn(1, len(ids), 1, 64, 64, generator=generator)  # noqa: E731
    told = lambda x, t, frames=None: Prediction(x, torch.zeros_like(x), PATH.alpha(t), PATH.sigma(t), "eps")  # noqa: E731
    x = dynamics(told, torch.ones(1, 1, 1, 64, 64), times, range(2), translation(0, 0), fresh, (5, 8))
    keep = PATH.alpha(times.t[1]) / PATH.alpha(times.t[4])
    x_t0 = PATH.alpha(times.t[4]) / PATH.alpha(times.t[0])
    assert x[0, 1].mean() == pytest.approx(float(keep * x_t0), abs=0.05)
    assert x[0, 1].std() == pytest.approx(float((1 - keep**2).sqrt()), abs=0.03)


def test_chunks_equal_the_whole_and_a_frame_keeps_its_picture_in_a_longer_clip(models):
    options = {"num_inference_steps": 4, "seed": 7, "flow": translation(60, 0)}
    whole = text2video_zero(models[1], "a", num_frames=6, chunk=6, **options).frames
    for chunk in (2, 4):
        cut = text2video_zero(models[1], "a", num_frames=6, chunk=chunk, **options).frames
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        text2video_zero(models[1], "a", num_frames=3, **options).frames, whole[:3], rtol=0, atol=1e-5
    )


def test_one_frame_is_the_image_model(models):
    one = text2video_zero(models[1], "a", num_frames=1, num_inference_steps=4, seed=7, guidance_scale=3.0)
    image = models[1](
        "a", num_frames=1, num_inference_steps=4, seed=7, guidance_scale=3.0, output_type="pt", progress=False
    )
    torch.testing.assert_close(one.frames, image.frames[0], rtol=0, atol=1e-5)


def test_smoothing_takes_the_background_from_frame_0_and_leaves_objects():
    x, object_ = torch.randn(1, 3, 2, 8, 8), torch.zeros(3, 1, 8, 8)
    object_[:, :, 2:5, 2:5] = 1
    none = displacements(translation(0, 0), range(3), (8, 8))
    out = smoothed(x, object_, none, 0.0)
    inside = object_.expand_as(x[0]).bool()
    assert torch.equal(out[0][inside], x[0][inside])
    torch.testing.assert_close(out[0][~inside], x[0, :1].expand(3, -1, -1, -1)[~inside])
    torch.testing.assert_close(smoothed(x, object_, none, 1.0), x)
    torch.testing.assert_close(smoothed(x, torch.ones_like(object_), none, 0.0), x)
    half = smoothed(x, object_, none, 0.4)
    torch.testing.assert_close(half, 0.4 * x + 0.6 * out)


def test_smoothing_changes_the_clip_and_returns_the_dilated_mask(models):
    def left(frames):
        return (torch.arange(64) < 16).float().expand(len(frames), 1, 64, 64)

    options = {"num_frames": 3, "height": 64, "width": 64, **STEPS}
    plain = text2video_zero(models[1], "a", **options)
    smooth = text2video_zero(models[1], "a", smoothing=Smoothing(left), **options)
    assert plain.mask is None
    assert smooth.mask.shape == (3, 1, 64, 64)
    assert smooth.mask[0, 0, 0].sum() == 16 + 2 * 8  # two cells of eight pixels more
    assert (smooth.frames - plain.frames).abs().max() > 1e-3
    torch.testing.assert_close(smooth.frames[0], plain.frames[0], rtol=0, atol=1e-5)  # frame 0 is its own background
    for wrong in (torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(3, 2, 8, 8)):
        with pytest.raises(InputError, match="one picture for each of 3 frames"):
            dilated(wrong, (8, 8), 3)
    for wrong in (torch.full((3, 1, 8, 8), 255, dtype=torch.uint8), torch.full((3, 1, 8, 8), math.nan)):
        with pytest.raises(InputError, match="give 0 to 1"):
            dilated(wrong, (8, 8), 3)
    assert dilated(torch.ones(3, 1, 8, 8, dtype=torch.bool), (8, 8), 3).min() == 1


@pytest.mark.parametrize("shape", [(1,), (3, 8, 8), (2, 8), (1, 2, 8, 8)])
def test_a_flow_of_another_shape_is_refused(shape):
    with pytest.raises(InputError, match="a flow gives 2"):
        displacements(lambda frame: torch.zeros(shape), range(2), (8, 8))


def test_smoothing_by_the_shapes_worlds_foreground_steadies_the_background():
    """On the model of that world: what no frame shows an object at changes less from frame to frame."""
    pipe, seen = Pipeline.from_pretrained("shapes", motion="none"), []
    options = {
        "num_frames": 3,
        "num_inference_steps": 10,
        "t0": 4,
        "t1": 5,
        "guidance_scale": 4.0,
        "flow": translation(-32, 0),
    }

    def find(frames):
        seen.append(frames)
        return foreground(frames)

    def unrest(frames):
        return (frames - frames[:1]).abs()[:, background.expand_as(frames[0])].mean()

    plain = text2video_zero(pipe, "a red circle on a black background", **options)
    smooth = text2video_zero(pipe, "a red circle on a black background", smoothing=Smoothing(find), **options)
    assert torch.equal(seen[0], plain.frames)
    background = smooth.mask.amax(0) == 0
    assert background.any()
    assert unrest(smooth.frames) < unrest(plain.frames)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"t0": 5, "t1": 3}, "t0 <= t1"), ({"num_frames": 0}, "frames"), ({"height": 63}, "multiple"), ({"latents": torch.zeros(1, 4, 8, 8)}, "shape"),
     ({"chunk": 0}, "chunk")],
)  # fmt: skip
def test_impossible_values_are_refused(models, wrong, message):
    with pytest.raises(InputError, match=message):
        text2video_zero(models[1], "a", **{"num_inference_steps": 8, **wrong})


@pytest.mark.parametrize("strength", [-0.1, 3.0, math.nan])
def test_a_smoothing_beyond_none_and_all_is_refused(strength):
    with pytest.raises(InputError, match="give 0 to 1"):
        Smoothing(foreground, strength)


def test_a_network_whose_norms_join_the_frames_is_refused(models):
    from motion_modules.tune_a_video_folder import animated, pipeline

    with pytest.raises(InputError, match="norms run over the clip"):
        text2video_zero(pipeline(animated(models[1].parts)), "a", num_inference_steps=4)
