"""Names: every dialect of the key lists addresses the same layers, and all of them exist in the full-size models."""

import re

import pytest
import torch

from videogen.adapters.lora_dialects import address, read_lora
from videogen.adapters.low_rank import LowRank
from videogen.errors import InputError


def written(manifest):
    """The file of a list without its weight in memory: every tensor is one repeated number."""
    return {key: torch.ones(()).expand(shape) for key, shape in manifest.items()}


def places(changes):
    return {(change.target, change.module) for change in changes}


SAME = {
    "sd15_lora_kohya_r8": "sd15_lora_diffusers_r8",
    "sdxl_lora_kohya_r8": "sdxl_lora_diffusers_r8",
}


@pytest.mark.parametrize("kohya", SAME)
def test_kohya_addresses_what_diffusers_addresses(manifests, kohya):
    ours, theirs = read_lora(written(manifests[kohya])), read_lora(written(manifests[SAME[kohya]]))
    assert places(ours) == places(theirs)
    shapes = {(c.target, c.module): (c.down.shape, c.up.shape) for c in theirs if isinstance(c, LowRank)}
    assert all((c.down.shape, c.up.shape) == shapes[c.target, c.module] for c in ours if isinstance(c, LowRank))
    assert {c.scale for c in ours} == {1 / 8}  # `written` makes alpha 1
    assert {c.scale for c in theirs} == {1.0}


@pytest.mark.parametrize(
    ("whole", "part", "target"),
    [
        ("sd15_lora_diffusers_r8", "sd15_lora_peft_unet_r8", "unet"),
        ("sd15_lora_diffusers_r8", "sd15_lora_peft_text_encoder_r8", "text_encoder"),
        ("sdxl_lora_diffusers_r8", "sdxl_lora_peft_unet_r8", "unet"),
    ],
)
def test_peft_adapters_are_the_parts_of_the_whole(manifests, whole, part, target):
    ours = places(read_lora(written(manifests[part])))
    assert ours == {place for place in places(read_lora(written(manifests[whole]))) if place[0] == target}


def test_old_attention_processors_are_among_the_rest(manifests):
    old = places(read_lora(written(manifests["sd15_lora_diffusers_old_attn_r8"])))
    assert old < places(read_lora(written(manifests["sd15_lora_diffusers_r8"])))
    assert len(old) == 352 / 2


LAYERS = {
    "sd15_lora_kohya_r8": {"unet": "sd15_unet_diffusers", "text_encoder": "clip_vit_l14_text_transformers"},
    "sd15_lora_kohya_conv_r8": {"unet": "sd15_unet_diffusers"},
    "sdxl_lora_kohya_r8": {
        "unet": "sdxl_unet_diffusers", "text_encoder": "clip_vit_l14_text_transformers",
        "text_encoder_2": "sdxl_text_encoder_2_diffusers",
    },
    "sd15_lora_diffusers_old_attn_r8": {"unet": "sd15_unet_diffusers", "text_encoder": "clip_vit_l14_text_transformers"},
    "animatediff_motion_lora_v2_sd15_r64": {"motion": "diffusers_motion_adapter_v2"},
    "animatediff_domain_adapter_v3_sd15_r128": {"unet": "sd15_unet_diffusers"},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_every_change_has_its_layer_and_fits(manifests, name):
    changes = read_lora(written(manifests[name]))
    assert {change.target for change in changes} == set(LAYERS[name])
    for change in changes:
        shape = manifests[LAYERS[name][change.target]][f"{change.module}.weight"]
        assert change.to("meta").delta(shape).shape == tuple(shape)


def test_animatediff_files_do_not_divide_by_the_rank(manifests):
    for name in ("animatediff_motion_lora_v2_sd15_r64", "animatediff_domain_adapter_v3_sd15_r128"):
        assert {change.scale for change in read_lora(written(manifests[name]))} == {1.0}


@pytest.mark.parametrize(
    ("layer", "target", "module"),
    [
        ("lora_unet_input_blocks_1_0_in_layers_2", "unet", "down_blocks.0.resnets.0.conv1"),
        ("lora_unet_input_blocks_3_0_op", "unet", "down_blocks.0.downsamplers.0.conv"),
        ("lora_unet_input_blocks_4_0_skip_connection", "unet", "down_blocks.1.resnets.0.conv_shortcut"),
        ("lora_unet_input_blocks_5_0_emb_layers_1", "unet", "down_blocks.1.resnets.1.time_emb_proj"),
        ("lora_unet_middle_block_0_out_layers_3", "unet", "mid_block.resnets.0.conv2"),
        ("lora_unet_middle_block_2_in_layers_2", "unet", "mid_block.resnets.1.conv1"),
        ("lora_unet_output_blocks_2_2_conv", "unet", "up_blocks.0.upsamplers.0.conv"),
        ("lora_unet_output_blocks_8_0_in_layers_2", "unet", "up_blocks.2.resnets.2.conv1"),
        ("lora_unet_input_blocks_0_0", "unet", "conv_in"),
        ("lora_unet_out_2", "unet", "conv_out"),
        ("lora_unet_time_embed_0", "unet", "time_embedding.linear_1"),
        ("lora_unet_label_emb_0_2", "unet", "add_embedding.linear_2"),
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj", "unet",
         "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj"),
        ("lora_te2_text_projection", "text_encoder_2", "text_projection"),
        ("text_encoder.text_model.encoder.layers.3.self_attn.to_out", "text_encoder",
         "text_model.encoder.layers.3.self_attn.out_proj"),
        ("base_model.model.encoder.layers.3.mlp.fc1", "text_encoder", "text_model.encoder.layers.3.mlp.fc1"),
        ("lora_unet_up_blocks_1_motion_modules_2_temporal_transformer_transformer_blocks_0_attention_blocks_1_to_q", "motion",
         "up_blocks.1.motion_modules.2.transformer_blocks.0.attn2.to_q"),
        ("unet.down_blocks.0.motion_modules.1.transformer_blocks.0.attn1.processor.to_out", "motion",
         "down_blocks.0.motion_modules.1.transformer_blocks.0.attn1.to_out.0"),
    ],
)  # fmt: skip
def test_address(layer, target, module):
    assert address(layer) == (target, module)


def test_the_second_text_encoder_is_told_by_its_width():
    layer = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj"
    assert address(layer, 768)[0] == "text_encoder"
    assert address(layer, 1280)[0] == "text_encoder_2"


def test_a_peft_file_of_the_second_text_encoder_is_of_it_with_every_layer(manifests):
    linear = re.compile(r"text_model\.encoder\..*(_proj|fc1|fc2)\.weight$")
    layers = {key: shape for key, shape in manifests["sdxl_text_encoder_2_diffusers"].items() if linear.match(key)}
    state = {}
    for key, (outputs, inputs) in layers.items():
        layer = f"base_model.model.{key.removesuffix('.weight')}"
        state |= {f"{layer}.lora_A.weight": [2, inputs], f"{layer}.lora_B.weight": [outputs, 2]}
    found = places(read_lora(written(state)))
    assert found == {("text_encoder_2", key.removesuffix(".weight")) for key in layers}
    assert len(found) == 32 * 6


def test_sgm_names_equal_those_of_the_converter_of_diffusers(manifests):
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    with torch.device("meta"):
        config = UNet2DConditionModel(
            block_out_channels=(32, 64, 64), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2, 10),
        ).config  # fmt: skip
    state = written(manifests["sdxl_lora_kohya_r8"])
    theirs, _ = StableDiffusionXLPipeline.lora_state_dict(dict(state), unet_config=config)
    assert places(read_lora(theirs)) == places(read_lora(state))


def tiny(layer, down="lora_down.weight", up="lora_up.weight", **more):
    return {f"{layer}.{down}": torch.ones(2, 4), f"{layer}.{up}": torch.ones(4, 2)} | {
        f"{layer}.{k}": v for k, v in more.items()
    }


def test_alpha_from_the_file_the_config_and_the_header():
    kohya = tiny("lora_unet_mid_block_attentions_0_proj_in", alpha=torch.tensor(6.0))
    assert read_lora(kohya)[0].scale == 3.0
    peft = tiny("base_model.model.mid_block.attentions.0.proj_in", "lora_A.weight", "lora_B.weight")
    assert read_lora(peft)[0].scale == 1.0
    assert read_lora(peft, {"r": 2, "lora_alpha": 8})[0].scale == 4.0
    assert read_lora(peft, {"r": 2, "lora_alpha": 8, "use_rslora": True})[0].scale == pytest.approx(8 / 2**0.5)
    assert read_lora(peft, {"r": 2, "lora_alpha": 8, "alpha_pattern": {"proj_in": 5}})[0].scale == 2.5
    overlapping = {"proj_in": 5, "mid_block.*": 7}  # peft takes the first that fits
    assert read_lora(peft, {"r": 2, "lora_alpha": 8, "alpha_pattern": overlapping})[0].scale == 2.5
    diffusers = tiny("unet.mid_block.attentions.0.proj_in", "lora_A.weight", "lora_B.weight")
    header = {"lora_adapter_metadata": '{"unet.lora_alpha": 10, "unet.r": 2, "text_encoder.lora_alpha": 2}'}
    assert read_lora(diffusers, None, header)[0].scale == 5.0


def test_what_is_no_low_rank_change_is_refused_by_name(manifests):
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    with pytest.raises(InputError, match=r"weight decomposition \(DoRA\)"):
        read_lora(tiny(layer, dora_scale=torch.ones(4, 1)))
    with pytest.raises(InputError, match=f"has the key {layer}.diff, which is no part"):
        read_lora(tiny(layer, diff=torch.ones(4, 4)))
    lonely = {key: tensor for key, tensor in tiny(layer).items() if "lora_up" not in key}
    with pytest.raises(InputError, match=f"lacks the factor 'up' of {layer}"):
        read_lora(lonely)
    with pytest.raises(InputError, match="looks like: AnimateDiff motion module v2"):
        read_lora(written(manifests["animatediff_mm_v2_sd15"]))


LAYER = "lora_unet_mid_block_attentions_0_proj_in"


@pytest.mark.parametrize("shape", [(4,), (), (0, 4)])
@pytest.mark.parametrize("key", [f"{LAYER}.lora_down.weight", f"{LAYER}.lora_up.weight"])
def test_factors_with_too_few_axes_are_refused_by_name(key, shape):
    with pytest.raises(InputError, match=rf"has the shape {re.escape(str(shape))} at {re.escape(key)}"):
        read_lora(tiny(LAYER) | {key: torch.ones(shape)})


def test_what_does_not_multiply_and_an_alpha_of_several_numbers_are_refused_by_name():
    factors = {"lokr_w1_a": torch.ones(2, 3), "lokr_w1_b": torch.ones(2, 2), "lokr_w2": torch.ones(2, 2)}
    with pytest.raises(InputError, match=rf"do not multiply: {LAYER}\.lokr_w1_a \(2, 3\), {LAYER}\.lokr_w1_b \(2, 2\)"):
        read_lora({f"{LAYER}.{name}": tensor for name, tensor in factors.items()})
    with pytest.raises(InputError, match=rf"has 2 numbers at {LAYER}\.alpha"):
        read_lora(tiny(LAYER, alpha=torch.ones(2)))


@pytest.mark.parametrize("header", ["[1]", "{", "3"])
def test_a_header_that_is_no_object_is_refused(header):
    with pytest.raises(InputError, match="lora_adapter_metadata, which tells alpha, and it is no JSON object"):
        read_lora(tiny(LAYER), None, {"lora_adapter_metadata": header})


@pytest.mark.parametrize(
    "settings",
    [{"lora_alpha": None}, {"lora_alpha": "much"}, {"alpha_pattern": [1]}, {"alpha_pattern": {"(": 1}}],
)
def test_settings_that_tell_no_alpha_are_refused(settings):
    peft = tiny("base_model.model.mid_block.attentions.0.proj_in", "lora_A.weight", "lora_B.weight")
    with pytest.raises(InputError, match=r"settings .* tell no alpha of mid_block\.attentions\.0\.proj_in: "):
        read_lora(peft, {"r": 2} | settings)


def test_two_adapters_in_one_file_are_refused_with_both_names():
    layer = "unet.mid_block.attentions.0.proj_in"
    one, other = (tiny(layer, f"lora_A.{name}.weight", f"lora_B.{name}.weight") for name in "ab")
    assert len(read_lora(one)) == 1
    with pytest.raises(
        InputError, match=rf"two adapters for one layer, {layer}\.lora_A\.a\.weight and {layer}\.lora_A\.b\.w"
    ):
        read_lora(one | other)
