"""`videogen inspect`: a short report of any checkpoint, from its header."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from motion_modules.animatediff import MotionConfig, add_motion, motion_state
from motion_modules.dialects import write_official
from videogen.cli.inspect import checkpoint_lines, inspect
from videogen.errors import InputError
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights import files
from videogen.models.weights.motion_keys import HEADER
from videogen.pipeline import Motion

LISTS = next(p for p in Path(__file__).parents if p.name == "tests") / "manifests" / "manifests.json.gz"


@pytest.fixture(scope="module")
def manifests():
    with gzip.open(LISTS) as file:
        return json.load(file)


def sparse_file(path, shapes):
    """A safetensors file with a true header and a hole where 1 to 10 GB of tensors would be."""
    header, offset = {"__metadata__": {"format": "pt", "title": "made from a key list"}}, 0
    for key, shape in shapes.items():
        size = 2 * int(torch.tensor(shape).prod()) if shape else 2
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


REPORTS = {
    "animatediff_mm_v2_sd15": {
        "what": "AnimateDiff motion module v2, authors' layout",
        "loads into": "--motion (motion modules of the UNet)",
        "holds": "588 tensors, 454,417,600 parameters, 866.7 MiB, float16",
        "facts": "motion modules 21, levels 4, middle module yes, positions 32",
        "keys": "complete",
        "metadata": "title = made from a key list",
    },
    "sdxl_base_single_sgm": {
        "what": "SDXL base single file",
        "loads into": "--model (text encoder, VAE and UNet)",
        "facts": "text width 2048, base SDXL, input channels 4, form plain",
        "keys": "complete (unet, vae, text_encoder, text_encoder_2)",
        "passed over": "1 position_ids, 1 logit scales",
    },
    "sd15_lora_kohya_conv_r8": {
        "what": "LoRA, kohya layout",
        "facts": "text width 768, base Stable Diffusion 1.x, rank 8, convolutions yes",
        "keys": "complete; changes unet 278 layers",
    },
    "controlnet_sd15_official": {
        "what": "ControlNet, authors' layout",
        "loads into": "nothing in this version of videogen yet",
        "keys": "not checked (no rule for this family)",
    },
}


@pytest.mark.parametrize("name", REPORTS)
def test_report_of_a_full_size_file_from_its_header(manifests, tmp_path, name):
    sparse_file(tmp_path / "file.safetensors", manifests[name])
    lines = dict(checkpoint_lines(tmp_path / "file.safetensors", sha=False))
    assert {key: lines[key] for key in REPORTS[name]} == REPORTS[name]


@pytest.mark.parametrize(("levels", "mid"), [(3, False), (4, True)])
def test_motion_modules_that_were_trained_here_say_so(tmp_path, levels, mid):
    sizes = {"channels": (8,) * levels, "layers": 1, "groups": 4}
    config = MotionConfig(**sizes, heads=2, positions=20, mid=mid, norm_scope="clip")
    net = UNet(UNetConfig(**sizes, depths=(1,) * levels, heads=(1,) * levels, context=12))
    state = motion_state(add_motion(net, config))
    told = Motion("", config.to_diffusers(), longest=20, trained=12, scheduler={}).header
    official = write_official(state, "animatediff_v2" if mid else "animatediff_v3")
    for name, keys, layout in (("official", official, "AnimateDiff's"), ("adapter", state, "diffusers")):
        files.write(tmp_path / f"{name}.safetensors", keys, told)
        lines = dict(checkpoint_lines(tmp_path / f"{name}.safetensors", sha=False))
        assert lines["what"] == f"motion modules that videogen wrote, {layout} layout"
        assert lines["loads into"] == "--motion (motion modules of the UNet)"
        assert lines["facts"].endswith("positions 20, heads 2, norm over each clip, trained on clips of 12 frames")
        assert f"levels {levels}, middle module {'yes' if mid else 'no'}" in lines["facts"]
        assert lines["keys"] == "complete"
        for other in ({}, {HEADER: "{"}, {HEADER: "{}"}, {HEADER: '{"config": 1}'}):
            files.write(tmp_path / "other.safetensors", keys, other)
            assert "videogen wrote" not in dict(checkpoint_lines(tmp_path / "other.safetensors"))["what"]


def test_a_lora_without_its_second_factor(manifests, tmp_path):
    key = "lora_unet_mid_block_attentions_0_proj_out.lora_up.weight"
    shapes = {name: shape for name, shape in manifests["sd15_lora_kohya_r8"].items() if name != key}
    sparse_file(tmp_path / "file.safetensors", shapes)
    lines = dict(checkpoint_lines(tmp_path / "file.safetensors", sha=False))
    assert lines["keys"] == "the LoRA file lacks the factor 'up' of lora_unet_mid_block_attentions_0_proj_out"


def test_a_clip_of_ours_shows_its_recipe(tmp_path, capsys):
    import numpy as np

    from videogen import clip, video
    from videogen.recipe import Recipe

    recipe = Recipe("generate", "a red circle", 7, 2, 16, 16, "8", "ddim", 4, 7.5, options={"eta": 0.5})
    for name in ("clip.gif", "clip.m4v", "clip.png"):  # the last is clip_0001.png and clip_0002.png
        video.write(tmp_path / name, clip.from_numpy(np.zeros((2, 16, 16, 3), np.uint8)), recipe)
        inspect(tmp_path / name)
        printed = capsys.readouterr().out
        assert "prompt      a red circle" in printed
        assert "options     eta 0.5" in printed


def test_pickles_hashes_and_a_broken_file(manifests, tmp_path, capsys):
    path = tmp_path / "lora.ckpt"
    torch.save(
        {"state_dict": {key: torch.zeros(shape) for key, shape in manifests["customdiffusion_sd14_diffusers"].items()}},
        path,
    )
    inspect(path)
    printed = capsys.readouterr().out
    assert "Custom Diffusion attention weights" in printed
    assert f"sha256      {files.sha256([path])[:16]}" in printed
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="cut short"):
        inspect(path)
    with pytest.raises(InputError, match="does not exist"):
        inspect(tmp_path / "away.ckpt")


def test_a_model_folder_names_each_part(manifests, tmp_path, capsys):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for part, name in (("unet", "sd15_unet_diffusers"), ("vae", "sd_vae_diffusers")):
        (tmp_path / part).mkdir()
        sparse_file(tmp_path / part / "diffusion_pytorch_model.safetensors", manifests[name])
    inspect(tmp_path)
    printed = capsys.readouterr().out
    assert "model folder in diffusers' layout, StableDiffusionPipeline" in printed
    assert "Stable Diffusion UNet, diffusers layout: 686 tensors, 859,520,964 parameters" in printed
    assert printed.count("; complete") == 2


def test_a_clip_without_a_recipe_says_so(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(InputError, match="carries no recipe"):
        inspect(tmp_path / "plain.png")
