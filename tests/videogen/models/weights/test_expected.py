"""Missing and surplus keys: every list that has a rule is complete by it, and a key taken away or added is named."""

import pytest

from videogen.models.weights.expected import Verdict, verdict
from videogen.models.weights.families import recognise

RULED = (
    "animatediff_mm_sdxl_v10_beta", "animatediff_mm_v1_sd15", "animatediff_mm_v2_sd15",
    "animatediff_mm_v3_sd15", "animatediff_unet3d_sd15_image_layers", "animatelcm_sd15_t2v_motion",
    "clip_vit_l14_text_transformers", "diffusers_motion_adapter_sdxl", "diffusers_motion_adapter_v1", "diffusers_motion_adapter_v2",
    "diffusers_motion_adapter_v3", "hotshotxl_temporal_layers",
    "sd15_single_ldm",
    "sd15_unet_diffusers", "sd21_single_ldm", "sd21_text_encoder_diffusers", "sd21_unet_diffusers", "sd_vae_diffusers",
    "sdxl_base_single_sgm", "sdxl_refiner_single_sgm", "sdxl_refiner_unet_diffusers", "sdxl_text_encoder_2_diffusers",
    "sdxl_unet_diffusers",
)  # fmt: skip


def check(shapes):
    return verdict(shapes, recognise(shapes))


@pytest.mark.parametrize("name", RULED)
def test_complete_by_the_rule(manifests, name):
    found = check(manifests[name])
    assert isinstance(found, Verdict)
    assert (found.missing, found.surplus, found.misshapen) == ((), (), ())
    assert str(found).startswith("complete")


def test_families_without_a_rule_say_so(manifests):
    assert check(manifests["controlnet_sd15_official"]) is None
    assert check(manifests["t5_v1_1_xxl_encoder_transformers"]) is None


BROKEN = {
    "animatediff_mm_v2_sd15": (
        "up_blocks.3.motion_modules.0.temporal_transformer.proj_in.bias", "up_blocks.3.motion_modules.0.proj_in.bias"),
    "sd15_unet_diffusers": ("mid_block.resnets.1.conv2.weight", "mid_block.resnets.1.conv2.weight"),
    "sdxl_base_single_sgm": (
        "conditioner.embedders.1.model.transformer.resblocks.31.mlp.c_fc.bias",
        "text_encoder_2: text_model.encoder.layers.31.mlp.fc1.bias"),
    "sd_vae_diffusers": ("post_quant_conv.bias", "post_quant_conv.bias"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_missing_and_misshapen_key_is_named(manifests, name):
    key, ours = BROKEN[name]
    without = {k: shape for k, shape in manifests[name].items() if k != key}
    assert str(check(without)) == f"lacks 1, the first {ours}"
    other = manifests[name] | {key: [7] * len(manifests[name][key])}
    assert check(other).misshapen == (ours,)


def test_surplus_keys_are_named(manifests):
    more = manifests["sd15_unet_diffusers"] | {"down_blocks.0.extra.weight": [3]}
    assert str(check(more)) == "has too many 1, the first down_blocks.0.extra.weight"
    for key in ("model.diffusion_model.extra.weight", "first_stage_model.extra.weight"):
        assert key in check(manifests["sd15_single_ldm"] | {key: [3]}).surplus[0]
    for key in ("scale_factor", "depth_model.x", "cond_stage_model.other.weight"):
        assert str(check(manifests["sd15_single_ldm"] | {key: [3]})) == f"has too many 1, the first {key}"
    for name, prefix in (
        ("sd21_single_ldm", "cond_stage_model.model"),
        ("sdxl_base_single_sgm", "conditioner.embedders.1.model"),
    ):
        for ending in ("visual.proj", "extra.weight", "text_projection.weight"):
            key = f"{prefix}.{ending}"
            assert str(check(manifests[name] | {key: [3]})) == f"has too many 1, the first {key}"


@pytest.mark.parametrize(
    ("name", "title"), [("sdxl_base_single_sgm", "SDXL base"), ("sdxl_refiner_single_sgm", "SDXL refiner")]
)
def test_a_single_file_without_its_embedding_of_sizes_says_so(manifests, name, title):
    key = "model.diffusion_model.label_emb.0.2.bias"
    without = {k: shape for k, shape in manifests[name].items() if k != key}
    assert str(check(without)) == f"the single file lacks '{key}' (1 missing); it looks like: {title} single file"


PLACE = "down_blocks.0.motion_modules.0"
AXES = {
    "animatediff_mm_v2_sd15": (
        (f"{PLACE}.temporal_transformer.norm.weight", [], f"{PLACE}.norm.weight"),
        (f"{PLACE}.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe", [32],
         f"{PLACE}.transformer_blocks.0.pos_embed.pe"),
    ),
    "diffusers_motion_adapter_v2": ((f"{PLACE}.norm.weight", [], f"{PLACE}.norm.weight"),),
}  # fmt: skip


@pytest.mark.parametrize("name", AXES)
def test_motion_tensors_with_too_few_axes_are_named(manifests, name):
    for key, shape, ours in AXES[name]:
        said = str(check(manifests[name] | {key: shape}))
        assert said == f"the motion file has the shape {tuple(shape)} at {ours!r}, which has too few axes"


@pytest.mark.parametrize("shape", [[], [7]])
def test_networks_and_facts_bear_any_number_of_axes(manifests, shape):
    for name, key in (("sd15_unet_diffusers", "conv_in.weight"), ("sd_vae_diffusers", "encoder.conv_in.weight")):
        check(manifests[name] | {key: shape})
    recognise(manifests["sd15_lora_kohya_r8"] | {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": shape})
