"""Motion module files: every dialect of the key lists is read, equals diffusers' names, and is written back key by
key.
"""

import pytest
import torch

from motion_modules.animatediff import MotionConfig, add_motion, sinusoidal_positions
from motion_modules.dialects import FAMILIES, read_motion, write_official
from videogen.errors import InputError
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights import files, motion_keys
from videogen.path import Path
from videogen.sampling import SAMPLERS

# list -> family, the diffusers list of the same modules, (levels, positions, middle, norm scope, resnet norm scope, betas)
DIALECTS = {
    "animatediff_mm_v1_sd15": ("animatediff_v1", "diffusers_motion_adapter_v1", (4, 24, False, "frame", "clip", "linear")),
    "animatediff_mm_v2_sd15": ("animatediff_v2", "diffusers_motion_adapter_v2", (4, 32, True, "frame", "frame", "linear")),
    "animatediff_mm_v3_sd15": ("animatediff_v3", "diffusers_motion_adapter_v3", (4, 32, False, "frame", "frame", "linear")),
    "animatediff_mm_sdxl_v10_beta": (
        "animatediff_sdxl", "diffusers_motion_adapter_sdxl", (3, 32, False, "clip", "frame", "scaled_linear"),
    ),
    "animatelcm_sd15_t2v_motion": ("animatelcm", "diffusers_motion_adapter_v2", (4, 64, True, "frame", "frame", "linear")),
    "hotshotxl_temporal_layers": ("hotshotxl", "diffusers_motion_adapter_sdxl", (3, 24, False, "frame", "clip", None)),
    "diffusers_motion_adapter_v1": (
        "motion_adapter_diffusers", "diffusers_motion_adapter_v1", (4, 24, False, "clip", "frame", None),
    ),
    "diffusers_motion_adapter_v2": (
        "motion_adapter_diffusers", "diffusers_motion_adapter_v2", (4, 32, True, "clip", "frame", None),
    ),
    "diffusers_motion_adapter_v3": (
        "motion_adapter_diffusers", "diffusers_motion_adapter_v3", (4, 32, False, "clip", "frame", None),
    ),
    "diffusers_motion_adapter_sdxl": (
        "motion_adapter_diffusers", "diffusers_motion_adapter_sdxl", (3, 32, False, "clip", "frame", None),
    ),
}  # fmt: skip


def small(shape):
    """A list's shape at a fortieth of its width, so that 320, 640 and 1280 become 8, 16 and 32."""
    return [size // 40 if size % 320 == 0 else size for size in shape]


def written(manifest, seed=0):
    """A file with these keys: random weights, true position tables."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {key: small(shape) for key, shape in manifest.items()}
    return {
        key: sinusoidal_positions(shape[-1], shape[1])
        if "pos_encoder" in key or key.endswith(".pe")
        else torch.randn(shape, generator=generator)
        for key, shape in shapes.items()
    }


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", DIALECTS)
def test_names_and_shapes_become_those_of_diffusers(manifests, name):
    _, diffusers, (_, positions, *_) = DIALECTS[name]
    state = read_motion(written(manifests[name])).state
    wanted = {key: small(shape) for key, shape in manifests[diffusers].items()}
    wanted = {key: [1, positions, shape[2]] if key.endswith(".pe") else shape for key, shape in wanted.items()}
    assert {key: list(tensor.shape) for key, tensor in state.items()} == wanted


def test_hotshots_clips_were_shorter(manifests):
    """8 frames by its authors' code; 16 elsewhere."""
    frames = {name: read_motion(written(manifests[name])).frames for name in DIALECTS}
    assert {name for name, count in frames.items() if count != 16} == {"hotshotxl_temporal_layers"}
    assert frames["hotshotxl_temporal_layers"] == 8


@pytest.mark.parametrize("name", DIALECTS)
def test_numbers_of_the_family(manifests, name):
    _, _, (levels, positions, mid, norm_scope, resnet_norm_scope, betas) = DIALECTS[name]
    file = read_motion(written(manifests[name]))
    assert file.config == {
        "channels": (8, 16, 32, 32)[:levels], "layers": 2, "heads": 8, "positions": positions, "mid": mid,
        "norm_scope": norm_scope, "resnet_norm_scope": resnet_norm_scope, "groups": 32,
    }  # fmt: skip
    assert file.scheduler.get("beta_schedule") == betas
    assert f"{positions} positions" in file.line


@pytest.mark.parametrize("name", DIALECTS)
def test_read_and_written_back_key_by_key(manifests, name):
    original = written(manifests[name])
    back = write_official(read_motion(original).state, DIALECTS[name][0])
    assert equal({key: back[key] for key in original}, original)
    assert len(back) == len(original)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("diffusers_motion_adapter_v3", ("linear", 0.012)), ("diffusers_motion_adapter_sdxl", ("scaled_linear", 0.020))],
)
def test_a_diffusers_adapter_of_full_width_has_animatediffs_schedule(manifests, name, schedule):
    state = {key: torch.empty(shape, device="meta") for key, shape in manifests[name].items()}
    scheduler = read_motion(state).scheduler
    assert (scheduler["beta_schedule"], scheduler["beta_end"]) == schedule


@pytest.mark.parametrize(("name", "last"), [("animatediff_mm_v2_sd15", -1), ("diffusers_motion_adapter_v3", 0)])
def test_over_stable_diffusion_the_authors_end_in_clean_data_and_diffusers_does_not(manifests, name, last):
    """Theirs is built from the module's keys alone; an adapter leaves the model's own in place."""
    state = written(manifests[name])
    scheduler = {"beta_schedule": "scaled_linear", "set_alpha_to_one": False, **read_motion(state).scheduler}
    times = SAMPLERS["ddim"].from_config(scheduler).times(Path.from_config(scheduler), 25)
    assert float(times.to[-1]) == last


def test_training_script_files(manifests, tmp_path):
    """`module.` before every key, the whole UNet beside the modules, no position tables."""
    motion = written({k: s for k, s in manifests["animatediff_mm_v3_sd15"].items() if "pos_encoder" not in k})
    image = {
        key: torch.zeros(()).expand(shape) for key, shape in manifests["animatediff_unet3d_sd15_image_layers"].items()
    }
    image["conv_in.weight"] = torch.zeros(1)
    content = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in (image | motion).items()}}
    torch.save(content, tmp_path / "checkpoint.ckpt")
    file = read_motion(files.read(tmp_path / "checkpoint.ckpt"))
    assert file.config["positions"] == 32
    assert file.config["norm_scope"] == file.config["resnet_norm_scope"] == "frame"
    assert "686 other tensors passed over" in file.line
    table = file.state["up_blocks.1.motion_modules.2.transformer_blocks.0.pos_embed.pe"]
    assert torch.equal(table, sinusoidal_positions(32, 32))
    again = {
        key.removeprefix("module."): value for key, value in write_official(file.state, "animatediff_trained").items()
    }
    assert equal({key: again[key] for key in motion}, motion)
    assert len(again) == len(motion)


def test_what_is_read_installs_strictly_into_our_unet():
    config = UNetConfig(channels=(32, 64), depths=(1, 0), heads=(2, 2), context=16, groups=8)
    shapes = motion_keys.shapes((32, 64), 2, True, 32)
    generator = torch.Generator().manual_seed(1)
    state = {
        key: sinusoidal_positions(shape[-1], 32) if key.endswith(".pe") else torch.randn(shape, generator=generator)
        for key, shape in shapes.items()
    }
    file = read_motion(write_official(state, "animatediff_v2"))
    unet = add_motion(UNet(config), MotionConfig(**file.config))
    ours = {key for key in unet.state_dict() if motion_keys.is_motion(key)}
    assert ours == set(file.state)
    result = unet.load_state_dict(file.state, strict=False)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if motion_keys.is_motion(key)]


def test_heads_and_groups_come_from_the_config_beside_the_file(manifests):
    adapter = {"motion_num_attention_heads": 4, "motion_norm_num_groups": 8, "norm_scope": "frame"}
    config = read_motion(written(manifests["diffusers_motion_adapter_v3"]), adapter).config
    assert (config["heads"], config["groups"], config["norm_scope"]) == (4, 8, "frame")


def test_position_tables_that_differ_within_a_block_are_an_error(manifests):
    state = written(manifests["animatediff_mm_v2_sd15"])
    key = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"
    state[key] = state[key] + 1
    with pytest.raises(InputError, match=r"two position tables that differ in one block, at mid_block"):
        read_motion(state)


def test_missing_surplus_misshapen_and_nan_name_the_first(manifests):
    state = written(manifests["animatediff_mm_v3_sd15"])
    key = "up_blocks.0.motion_modules.1.temporal_transformer.proj_in.weight"
    cases = {
        "lacks 'up_blocks.0.motion_modules.1.proj_in.weight' (1 missing)": {k: v for k, v in state.items() if k != key},
        "has 'up_blocks.0.motion_modules.1.proj_in.scale', which the model does not know (1 surplus)": state
        | {key.replace("weight", "scale"): torch.ones(1)},
        "is needed, at 'up_blocks.0.motion_modules.1.proj_in.weight'": state | {key: torch.ones(3, 3)},
        "up_blocks.0.motion_modules.1.proj_in.weight holds NaN": state | {key: torch.full_like(state[key], torch.nan)},
    }
    for message, broken in cases.items():
        with pytest.raises(InputError) as caught:
            read_motion(broken)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


REFUSED = {
    "animatediff_motion_lora_v2_sd15_r64": "is a MotionLoRA",
    "animatediff_domain_adapter_v3_sd15_r128": "is the AnimateDiff v3 domain adapter",
    "animatediff_unet3d_sd15_image_layers": "holds image layers only",
    "animatediff_sparsectrl_rgb_v3_sd15": "looks like: SparseCtrl RGB",
    "sd_vae_diffusers": "looks like: KL autoencoder",
    "tuneavideo_unet3d_sd14": "looks like: Tune-A-Video",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_by_name(manifests, name):
    with pytest.raises(InputError, match=REFUSED[name]):
        read_motion(written(manifests[name]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"conv_in.weight": (320, 9, 3, 3)}, "is PIA"),
        ({"img_encoder.conv_in.weight": (4, 4)}, "is AnimateLCM image-to-video"),
        ({"mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.qkv_merge.weight":
          (4, 4)}, "is a CameraCtrl"),
    ],
)  # fmt: skip
def test_relatives_that_are_not_supported_are_refused_by_name(manifests, more, message):
    state = written(manifests["animatediff_mm_v3_sd15"]) | {key: torch.zeros(shape) for key, shape in more.items()}
    with pytest.raises(InputError, match=message):
        read_motion(state)


def test_every_family_says_where_its_numbers_come_from():
    assert all(family.source for family in FAMILIES.values())
    with pytest.raises(InputError, match="is not known; choose one of animatediff_v1"):
        write_official({}, "animatediff_v4")


@pytest.mark.parametrize("name", [name for name in DIALECTS if name.startswith("animatediff_mm")])
def test_equals_the_converter_of_diffusers(manifests, name):
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    original = written(manifests[name])
    theirs = convert_animatediff_checkpoint_to_diffusers(dict(original))  # which drops the position tables
    ours = {key: value for key, value in read_motion(original).state.items() if not key.endswith(".pe")}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
