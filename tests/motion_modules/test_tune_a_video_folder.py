"""Tune-A-Video's folders: the authors' layout and words, there and back."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from motion_modules import tune_a_video_folder as tuned
from motion_modules.animatediff import set_resnet_norm_scope
from motion_modules.tune_a_video import temporal_parameters
from tests import folders
from videogen.errors import InputError
from videogen.models.unet import UNetConfig
from videogen.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A tiny model whose temporal layers do something, their bias too."""
    folder = tmp_path_factory.mktemp("sd")
    folders.stable_diffusion(folder)
    made = tuned.pipeline(tuned.animated(Pipeline.from_pretrained(folder).parts))
    for name, value in temporal_parameters(made.parts.unet).items():
        if ".to_out." in name:
            torch.nn.init.normal_(value, std=0.3)
    return made


def test_save_and_load_give_the_same_clip(pipe: Pipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    again = Pipeline.from_pretrained(tmp_path / "model")
    options = {"num_frames": 3, "num_inference_steps": 2, "seed": 1, "output_type": "latent", "progress": False}
    first = pipe("a", **options).frames
    assert torch.equal(again("a", **options).frames, first)
    assert again.parts.unet.conv_norm_out.scope == "clip"
    assert again.line.endswith("motion: Tune-A-Video")
    torch.testing.assert_close(again("a", guidance_batched=False, **options).frames, first, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="own temporal layers"):
        Pipeline.from_pretrained(tmp_path / "model", motion=tmp_path / "model")


def test_the_pipeline_calls_the_network_with_the_frames_it_was_tuned_on(pipe: Pipeline) -> None:
    """Temporal layers off, frames read the first and the previous: the last frame changes no other."""
    noise = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    other = noise.clone()
    other[:, 2] = 0
    set_resnet_norm_scope(pipe.parts.unet, "frame")
    try:
        options = {
            "num_frames": 3,
            "num_inference_steps": 2,
            "output_type": "latent",
            "progress": False,
            "motion_scale": 0.0,
        }
        a, b = (pipe("a", latents=x, **options).frames[0] for x in (noise, other))
    finally:
        set_resnet_norm_scope(pipe.parts.unet, "clip")
    assert torch.equal(a[:2], b[:2])
    c = pipe("a", latents=torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], 1), **options).frames[0]
    assert all(not torch.equal(x, y) for x, y in zip(a, c, strict=True))


@pytest.mark.parametrize("advice", [{}, {"guidance": 4.0, "strength": 0.65}])
def test_what_a_model_advises_it_advises_tuned_too(pipe: Pipeline, tmp_path: Path, advice: dict[str, float]) -> None:
    """An edit with the folder is an edit with the model that was tuned in memory."""
    told = dataclasses.replace(pipe.parts, advice=advice)
    tuned.pipeline(told).save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "videogen.json").exists() == bool(advice)
    assert Pipeline.from_pretrained(tmp_path / "model").parts.advice == advice


def test_the_files_are_the_authors(pipe: Pipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["_class_name"] == "TuneAVideoPipeline"
    assert index["unet"] == ["tuneavideo.models.unet", "UNet3DConditionModel"]
    config = json.loads((tmp_path / "model" / "unet" / "config.json").read_text())
    assert config["mid_block_type"] == "UNetMidBlock3DCrossAttn"
    assert config["down_block_types"] == ["CrossAttnDownBlock3D", "DownBlock3D"]
    assert config["attention_head_dim"] == 4
    state = torch.load(tmp_path / "model" / "unet" / "diffusion_pytorch_model.bin", weights_only=True)
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    layer = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    ours = {f"{block}.attn_temp.{name}" for name in layer} | {f"{block}.norm_temp.weight", f"{block}.norm_temp.bias"}
    assert ours <= state.keys()


def test_the_config_of_the_released_class_is_understood(manifests: dict[str, dict[str, list[int]]]) -> None:
    """What a file saved by the authors' class says, every one of its arguments registered."""
    said = folders.released_config("3D")
    config = UNetConfig.from_diffusers(tuned.image_config(said))
    assert config == UNetConfig()
    back = tuned.authors_config(config)
    assert {key: back[key] for key in said if key in back} == {key: said[key] for key in said if key in back}


def test_another_class_of_that_name_is_refused() -> None:
    modelscope = {"_class_name": "UNet3DConditionModel", "down_block_types": ["CrossAttnDownBlock3D"]}
    with pytest.raises(InputError, match="UNetMidBlock3DCrossAttn"):
        tuned.image_config(modelscope)


def test_an_image_model_is_not_saved_as_a_tuned_one(pipe: Pipeline, tmp_path: Path) -> None:
    folders.stable_diffusion(tmp_path / "sd")
    with pytest.raises(InputError, match="no temporal layers"):
        tuned.pipeline(Pipeline.from_pretrained(tmp_path / "sd").parts).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
