"""The bundle against diffusers' pipelines, on tiny random models."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import folders
from videogen.errors import InputError
from videogen.frame_choice import FIRST
from videogen.free_init import FreeInit
from videogen.models.sizes import Sizes
from videogen.pipeline import Pipeline
from videogen.windows import Windows

PROMPT = "a red circle"


@pytest.fixture(scope="session")
def animated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("models") / "animatediff"
    return folder, folders.animatediff(folder)


@pytest.fixture(scope="session")
def pipe(animated: tuple[Path, Any]) -> Pipeline:
    return Pipeline.from_pretrained(animated[0])


def clip(pipe: Pipeline, **options: Any) -> torch.Tensor:
    settings: dict[str, Any] = {
        "num_frames": 4,
        "num_inference_steps": 3,
        "seed": 0,
        "output_type": "pt",
        "progress": False,
    }
    return pipe(PROMPT, **{**settings, **options}).frames


def noise(frames: int = 4, items: int = 1) -> torch.Tensor:
    return torch.randn(items, frames, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("negative", "scale"), [(None, 7.5), ("a blue square", 5.0), (None, 1.0)])
def test_equals_diffusers_animatediff(
    animated: tuple[Path, Any], pipe: Pipeline, negative: str | None, scale: float
) -> None:
    """Same weights, same latents, same settings: the same frames."""
    latents = noise()
    expected = animated[1](
        PROMPT, negative_prompt=negative, num_frames=4, num_inference_steps=3, guidance_scale=scale,
        latents=latents.transpose(1, 2), output_type="pt",
    ).frames  # fmt: skip
    made = clip(pipe, negative_prompt=negative, guidance_scale=scale, latents=latents)
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_equals_diffusers_stable_diffusion(tmp_path: Path) -> None:
    reference = folders.stable_diffusion(tmp_path / "sd")
    latents = noise(1)
    expected = reference(PROMPT, num_inference_steps=3, latents=latents[:, 0], output_type="pt").images
    made = clip(Pipeline.from_pretrained(tmp_path / "sd"), num_frames=1, latents=latents)
    torch.testing.assert_close(made[:, 0], expected, atol=1e-3, rtol=0)


def test_equals_diffusers_stable_diffusion_xl(tmp_path: Path) -> None:
    """Two encoders, pooled text, sizes, zeros for the missing negative prompt."""
    reference = folders.stable_diffusion_xl(tmp_path / "sdxl")
    latents = noise(1)
    expected = reference(
        PROMPT, num_inference_steps=3, height=64, width=64, guidance_scale=5.0, latents=latents[:, 0], output_type="pt"
    ).images
    made = clip(
        Pipeline.from_pretrained(tmp_path / "sdxl"),
        num_frames=1,
        latents=latents,
        sampler="euler",
        guidance_scale=5.0,
        height=64,
        width=64,
    )
    torch.testing.assert_close(made[:, 0], expected, atol=1e-3, rtol=0)


def test_sdxl_takes_what_diffusers_takes(tmp_path: Path) -> None:
    """A second prompt, skipped layers, sizes and crops on either side."""
    reference = folders.stable_diffusion_xl(tmp_path / "sdxl")
    latents = noise(1)
    told = {"original_size": (32, 48), "crops_coords_top_left": (8, 16), "target_size": (64, 56)}
    expected = reference(
        PROMPT, prompt_2="a cat", negative_prompt="grey", negative_prompt_2="green", clip_skip=1, **told,
        negative_original_size=(16, 16), negative_target_size=(24, 24), num_inference_steps=2, height=64, width=64,
        guidance_scale=5.0, latents=latents[:, 0], output_type="pt",
    ).images  # fmt: skip
    made = clip(
        Pipeline.from_pretrained(tmp_path / "sdxl"), prompt_2="a cat", negative_prompt="grey", negative_prompt_2="green",
        clip_skip=1, sizes=Sizes(**told), negative_sizes=Sizes(original_size=(16, 16), target_size=(24, 24)),
        num_frames=1, num_inference_steps=2, latents=latents, sampler="euler", guidance_scale=5.0, height=64, width=64,
    )  # fmt: skip
    torch.testing.assert_close(made[:, 0], expected, atol=1e-3, rtol=0)


def test_the_refiner_equals_diffusers_and_is_saved_for_it(tmp_path: Path) -> None:
    """One encoder, five sizes with a score; a denoising start above every step gives diffusers the noise itself."""
    from diffusers import StableDiffusionXLImg2ImgPipeline

    folders.stable_diffusion_xl_refiner(tmp_path / "refiner")
    ours = Pipeline.from_pretrained(tmp_path / "refiner")
    ours.save_pretrained(tmp_path / "saved")
    latents = noise(1)
    made = clip(
        ours, num_frames=1, latents=latents, sampler="euler", guidance_scale=5.0, sizes=Sizes(aesthetic_score=7.0)
    )
    for name in ("refiner", "saved"):
        theirs = StableDiffusionXLImg2ImgPipeline.from_pretrained(tmp_path / name, local_files_only=True)
        theirs.set_progress_bar_config(disable=True)
        theirs.scheduler.set_timesteps(3)
        expected = theirs(
            PROMPT, image=latents[:, 0] * theirs.scheduler.init_noise_sigma, denoising_start=1e-9, num_inference_steps=3,
            guidance_scale=5.0, aesthetic_score=7.0, output_type="pt",
        ).images  # fmt: skip
        torch.testing.assert_close(made[:, 0], expected, atol=1e-3, rtol=0)


def test_only_sdxl_is_told_sizes(pipe: Pipeline) -> None:
    with pytest.raises(InputError, match="only SDXL"):
        clip(pipe, sizes=Sizes())


@pytest.mark.parametrize("upcast", [True, False])
def test_the_vae_of_sdxl_stays_in_float32_where_it_says_so(tmp_path: Path, upcast: bool) -> None:
    """As in diffusers, where the config asks for it (`force_upcast`): both directions are those of the float32 pipeline."""
    folders.stable_diffusion_xl(tmp_path / "sdxl")
    config = tmp_path / "sdxl" / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "force_upcast": upcast}))
    full, half = (Pipeline.from_pretrained(tmp_path / "sdxl", dtype=dtype) for dtype in (torch.float32, torch.float16))
    moved = Pipeline.from_pretrained(tmp_path / "sdxl").to(dtype=torch.float16)
    latents, pixels = noise(), torch.rand(1, 2, 3, 16, 16)
    for pipe in (half, moved):
        assert (pipe.parts.unet.conv_in.weight.dtype, next(pipe.parts.text.parameters()).dtype) == (torch.float16,) * 2
        assert pipe.parts.vae.dtype == (torch.float32 if upcast else torch.float16)
        if upcast:
            assert torch.equal(pipe.decode(latents), full.decode(latents))
            assert torch.equal(pipe.encode(pixels), full.encode(pixels))


def test_vaes_of_other_families_run_as_the_pipeline_does(animated: tuple[Path, Any]) -> None:
    """Their configs carry the same key, which diffusers' pipelines for them do not read."""
    pipe = Pipeline.from_pretrained(animated[0], dtype=torch.float16)
    assert pipe.parts.vae.config["force_upcast"]
    assert pipe.parts.vae.dtype == torch.float16


def test_the_names_that_diffusers_had_or_has_are_taken(animated: tuple[Path, Any], tmp_path: Path) -> None:
    assert (
        Pipeline.from_pretrained(animated[0], torch_dtype=torch.float16).parts.unet.conv_in.weight.dtype
        == torch.float16
    )
    with pytest.raises(InputError, match="mean the same"):
        Pipeline.from_pretrained(animated[0], dtype=torch.float16, torch_dtype=torch.float32)
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(InputError, match=r"empty\.safetensors"):
        Pipeline.from_single_file(tmp_path / "empty.safetensors", torch_dtype=torch.float16)


def test_generator_is_diffusers_draw(animated: tuple[Path, Any], pipe: Pipeline) -> None:
    expected = animated[1](
        PROMPT, num_frames=4, num_inference_steps=3, generator=torch.Generator().manual_seed(5), output_type="pt"
    ).frames
    made = clip(pipe, seed=None, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_saved_folder_is_loaded_by_diffusers(animated: tuple[Path, Any], pipe: Pipeline, tmp_path: Path) -> None:
    from diffusers import AnimateDiffPipeline

    pipe.save_pretrained(tmp_path / "saved")
    theirs = AnimateDiffPipeline.from_pretrained(tmp_path / "saved", local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    latents = noise()
    expected = theirs(
        PROMPT, num_frames=4, num_inference_steps=3, latents=latents.transpose(1, 2), output_type="pt"
    ).frames
    torch.testing.assert_close(clip(pipe, latents=latents), expected, atol=1e-3, rtol=0)
    again = Pipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(clip(again, latents=latents), clip(pipe, latents=latents))


@pytest.mark.parametrize("advice", [{}, {"steps": 7, "guidance": 3.5, "strength": 0.5}])
def test_what_a_model_advises_is_saved_with_it(pipe: Pipeline, tmp_path: Path, advice: dict[str, float]) -> None:
    Pipeline(dataclasses.replace(pipe.parts, advice=advice), pipe.motion).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "videogen.json").exists() == bool(advice)
    assert Pipeline.from_pretrained(tmp_path / "saved").parts.advice == advice


@pytest.mark.parametrize("name", ["StableDiffusion", "StableDiffusionXL", "AnimateDiffSDXL"])
def test_what_is_saved_without_motion_or_of_sdxl_is_loaded_by_diffusers_too(tmp_path: Path, name: str) -> None:
    """Whatever the index names: the same pictures, or clips."""
    from diffusers import DiffusionPipeline

    xl, frames = "XL" in name, 3 if name.startswith("AnimateDiff") else 1
    (folders.stable_diffusion_xl if xl else folders.stable_diffusion)(tmp_path / "model")
    if frames > 1:
        folders.motion_adapter().save_pretrained(tmp_path / "motion")
    ours = Pipeline.from_pretrained(tmp_path / "model", motion=tmp_path / "motion" if frames > 1 else None)
    ours.save_pretrained(tmp_path / "saved")
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "saved", local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    assert type(theirs).__name__ == f"{name}Pipeline"
    if (
        frames > 1
    ):  # diffusers 0.42 forgets this layer when it joins UNet and motion modules, and leaves it as it was drawn
        theirs.unet.add_embedding.load_state_dict(ours.parts.unet.add_embedding.state_dict())
    latents = noise(frames)
    told = {"latents": latents.transpose(1, 2), "num_frames": frames} if frames > 1 else {"latents": latents[:, 0]}
    settings: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 5.0, "height": 64, "width": 64}
    result = theirs(PROMPT, output_type="pt", **told, **settings)
    expected = result.frames if frames > 1 else result.images[:, None]
    made = clip(ours, num_frames=frames, latents=latents, sampler="euler" if xl else "ddim", **settings)
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_a_folder_that_holds_something_is_not_saved_over(pipe: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "mine" / "precious.txt").parent.mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("years of work")
    for target in (tmp_path / "mine", tmp_path / "mine" / "precious.txt"):
        with pytest.raises(InputError, match="holds something already"):
            pipe.save_pretrained(target)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "precious.txt"]
    (tmp_path / "empty").mkdir()
    pipe.save_pretrained(tmp_path / "empty")
    assert (tmp_path / "empty" / "model_index.json").is_file()


def test_a_frame_keeps_its_noise_in_a_longer_clip(pipe: Pipeline) -> None:
    """With motion off, frames are independent: a clip of 3 is the beginning of a clip of 5, up to the kernels' batch size."""
    short = clip(pipe, num_frames=3, motion_scale=0.0)
    long = clip(pipe, num_frames=5, motion_scale=0.0)
    torch.testing.assert_close(short, long[:, :3], atol=1e-5, rtol=0)


def test_one_frame_is_the_image_model(animated: tuple[Path, Any], pipe: Pipeline) -> None:
    still = Pipeline.from_pretrained(animated[0], motion="none")
    assert torch.equal(clip(pipe, num_frames=1), clip(still, num_frames=1))


def test_guidance_in_one_call_or_two(pipe: Pipeline) -> None:
    torch.testing.assert_close(clip(pipe, guidance_batched=False), clip(pipe), atol=1e-5, rtol=0)


def test_clip_longer_than_the_table_runs_in_windows(pipe: Pipeline) -> None:
    result = pipe(PROMPT, num_frames=20, num_inference_steps=2, seed=0, output_type="latent", progress=False)
    assert result.frames.shape[1] == 20
    assert [window[0] for window in result.windows] == [0, 4]
    assert {frame for window in result.windows for frame in window} == set(range(20))


def test_a_window_over_the_whole_clip_is_the_plain_call(pipe: Pipeline) -> None:
    assert torch.equal(clip(pipe, windows=Windows(8, 2)), clip(pipe))


def test_prompts_by_frame_follow_their_frames(pipe: Pipeline) -> None:
    """Frame by frame (motion off), a travelling prompt is at its keys the clip of that key's prompt."""
    travelled = pipe(
        {0: "a red circle", 3: "a blue square"},
        num_frames=4,
        num_inference_steps=2,
        seed=0,
        motion_scale=0.0,
        output_type="pt",
        progress=False,
    )
    for frame, text in ((0, "a red circle"), (3, "a blue square")):
        alone = pipe(
            text, num_frames=4, num_inference_steps=2, seed=0, motion_scale=0.0, output_type="pt", progress=False
        )
        torch.testing.assert_close(travelled.frames[:, frame], alone.frames[:, frame], atol=1e-5, rtol=0)


def test_callback_sees_every_step_and_may_change_latents(pipe: Pipeline) -> None:
    seen = []

    def callback(_: Pipeline, step: int, t: float, kwargs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append((step, t))
        return {"latents": torch.zeros_like(kwargs["latents"])}

    changed = clip(pipe, callback_on_step_end=callback, output_type="latent")
    assert [step for step, _ in seen] == [0, 1, 2]
    assert not changed.any()


def test_what_guidance_alone_hears_is_told_where_there_is_none(pipe: Pipeline) -> None:
    for options in ({"negative_prompt": "a blue square"}, {"guidance_rescale": 0.5}):
        with pytest.warns(UserWarning, match="without guidance"):
            clip(pipe, guidance_scale=1.0, **options)


def test_frames_of_a_prompt_map_may_be_text_as_json_has_them(pipe: Pipeline) -> None:
    made = [
        pipe({kind(0): "a red circle", kind(2): "a blue square"}, num_frames=3, num_inference_steps=1, seed=0,
             output_type="latent", clip_skip=None, progress=False).frames
        for kind in (int, str)
    ]  # fmt: skip
    assert torch.equal(*made)
    with pytest.raises(InputError, match="begin at frames"):
        pipe({"first": "a red circle"}, num_frames=3, progress=False)  # type: ignore[dict-item]


def test_output_types(pipe: Pipeline) -> None:
    tensor, array, pictures = (clip(pipe, output_type=kind) for kind in ("pt", "np", "pil"))
    assert tensor.shape == (1, 4, 3, 64, 64)
    assert array.shape == (1, 4, 64, 64, 3)
    assert pictures[0][0].size == (64, 64)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_frames": 0}, "at least 1"),
        ({"num_inference_steps": -1}, "at least 1"),
        ({"width": 20}, "nearest is"),
        ({"sampler": "best"}, "choose one of"),
        ({"sampler": "ddpm", "karras": True}, "Karras"),
        ({"latents": torch.zeros(1, 3, 4, 8, 8)}, "this call needs"),
        ({"output_type": "tensor"}, "choose one of pil, np, pt, latent"),
        ({"seed": [1, 2]}, "2 seeds for 1 clips"),
        ({"denoising_end": float("nan")}, "shares 0 and nan"),
    ],
)
def test_impossible_values_are_refused(pipe: Pipeline, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        clip(pipe, **options)


def test_a_call_without_prompts_and_a_motion_scale_without_motion_are_refused(animated: tuple[Path, Any]) -> None:
    still = Pipeline.from_pretrained(animated[0], motion="none")
    with pytest.raises(InputError, match="no prompt is given"):
        still([])
    with pytest.raises(InputError, match="none is loaded"):
        clip(still, motion_scale=0.5)


def test_the_seed_that_was_drawn_is_told(pipe: Pipeline) -> None:
    options: dict[str, Any] = {"num_frames": 2, "num_inference_steps": 1, "output_type": "latent", "progress": False}
    made = pipe(PROMPT, **options)
    assert torch.equal(pipe(PROMPT, seed=made.seed, **options).frames, made.frames)
    assert pipe(PROMPT, seed=3, generator=torch.Generator(), **options).seed is None


def test_missing_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Pipeline.from_pretrained(tmp_path / "nowhere")


def test_free_noise_equals_diffusers(animated: tuple[Path, Any], pipe: Pipeline) -> None:
    """Temporal layers in windows of 8 that move by 4, on the same latents."""
    reference = animated[1]
    latents = noise(16)
    reference.enable_free_noise(context_length=8, context_stride=4)
    try:
        expected = reference(
            PROMPT, num_frames=16, num_inference_steps=2, latents=latents.transpose(1, 2), output_type="pt"
        ).frames
    finally:
        reference.disable_free_noise()
    made = clip(pipe, num_frames=16, num_inference_steps=2, latents=latents, free_noise=True, windows=Windows(8, 4))
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_free_noise_on_a_clip_of_one_window_is_the_plain_call(pipe: Pipeline) -> None:
    assert torch.equal(clip(pipe, free_noise=True), clip(pipe))


def test_free_init_starts_from_the_same_noise(pipe: Pipeline) -> None:
    once = clip(pipe, free_init=FreeInit(1))
    assert torch.equal(once, clip(pipe))
    assert not torch.equal(clip(pipe, free_init=FreeInit(2)), once)


def test_a_frame_choice_is_cut_into_windows_without_a_motion_module(tmp_path: Path) -> None:
    """Frames that read frame 0 alone are the same in windows that hold it."""
    folders.stable_diffusion(tmp_path / "still")
    still = Pipeline.from_pretrained(tmp_path / "still")
    pieces = Windows(3, 0, "flat", anchor=(0,))
    whole, cut = (clip(still, control=FIRST, windows=w, output_type="latent") for w in (None, pieces))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)
    assert not torch.equal(whole, clip(still, output_type="latent"))


def test_frames_that_do_not_know_of_each_other_are_asked_for_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.stable_diffusion(tmp_path / "still")
    still, held = Pipeline.from_pretrained(tmp_path / "still"), []
    still.parts.unet.register_forward_pre_hook(lambda unet, args: held.append(args[0].shape[1]))
    long = clip(still, num_frames=20, num_inference_steps=2, output_type="latent")
    assert set(held) == {16}
    torch.testing.assert_close(long[:, :4], clip(still, num_inference_steps=2, output_type="latent"), rtol=0, atol=1e-5)


def test_a_single_file_has_no_variant(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="leave variant out"):
        Pipeline.from_pretrained(tmp_path / "model.safetensors", variant="fp16")
