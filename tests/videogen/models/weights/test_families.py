"""Every checkpoint of the key lists is recognised, alone or with the file it is a difference to."""

import pytest

from videogen.models.weights.families import recognise
from videogen.models.weights.signatures import INTO_MODEL, INTO_UNET, NOT_YET

FAMILIES = {
    "animatediff_domain_adapter_v3_sd15_r128": "animatediff_domain_adapter",
    "animatediff_mm_sdxl_v10_beta": "animatediff_sdxl",
    "animatediff_mm_v1_sd15": "animatediff_v1",
    "animatediff_mm_v2_sd15": "animatediff_v2",
    "animatediff_mm_v3_sd15": "animatediff_v3",
    "animatediff_motion_lora_v2_sd15_r64": "animatediff_motion_lora",
    "animatediff_sparsectrl_rgb_v3_sd15": "sparsectrl_rgb",
    "animatediff_sparsectrl_scribble_v3_sd15": "sparsectrl_scribble",
    "animatediff_unet3d_sd15_image_layers": "sd_unet",
    "animatelcm_sd15_t2v_motion": "animatelcm",
    "blipdiffusion_qformer_diffusers": "blip_diffusion_qformer",
    "clip_vit_h14_vision_transformers": "clip_vision",
    "clip_vit_l14_text_transformers": "clip_text",
    "clip_vit_l14_vision_transformers": "clip_vision",
    "controlnet_sd15_diffusers": "controlnet_diffusers",
    "controlnet_sd15_official": "controlnet",
    "controlnet_sd21_official": "controlnet",
    "controlnet_sdxl_diffusers": "controlnet_diffusers",
    "controlnetxs_sd15_encD_53m_official": "controlnet_xs",
    "controlnetxs_sd15_r02_adapter_diffusers": "controlnet_xs_diffusers",
    "controlnetxs_sd21_adapter_diffusers": "controlnet_xs_diffusers",
    "controlnetxs_sd21_encD_14m_official": "controlnet_xs",
    "controlnetxs_sdxl_encD_20m_official": "controlnet_xs",
    "controlnetxs_sdxl_encD_48m_official": "controlnet_xs",
    "controlnetxs_sdxl_r01_adapter_diffusers": "controlnet_xs_diffusers",
    "customdiffusion_sd14_delta_bin_official": "custom_diffusion_bin",
    "customdiffusion_sd14_delta_official": "custom_diffusion",
    "customdiffusion_sd14_diffusers": "custom_diffusion_diffusers",
    "diffae_ffhq128_autoenc_130M_model_official": "diffae",
    "diffae_ffhq256_autoenc_model_official": "diffae",
    "diffae_ffhq256_latent_net_official": "diffae_latent",
    "diffusers_motion_adapter_sdxl": "motion_adapter_diffusers",
    "diffusers_motion_adapter_v1": "motion_adapter_diffusers",
    "diffusers_motion_adapter_v2": "motion_adapter_diffusers",
    "diffusers_motion_adapter_v3": "motion_adapter_diffusers",
    "diffusers_sparsectrl_rgb": "sparsectrl_rgb_diffusers",
    "diffusers_sparsectrl_scribble": "sparsectrl_scribble_diffusers",
    "fastcomposer_sd15_delta_official": "fastcomposer",
    "fatezero_unetpseudo3d_sd14_lora160": "fatezero",
    "gligen_keypoint_sd14_unet_official_delta": "gligen_keypoints",
    "gligen_sd14_textbox_unet_diffusers": "gligen",
    "gligen_sd14_textbox_unet_official": "gligen",
    "gligen_sd14_textimage_unet_diffusers_delta": "gligen_text_image",
    "gligen_sd14_textimage_unet_official_delta": "gligen_text_image",
    "hotshotxl_temporal_layers": "hotshotxl",
    "instantid_sdxl_ipadapter_official": "instantid",
    "ipadapter_faceid_plusv2_sd15_official": "ip_adapter_faceid_plus",
    "ipadapter_faceid_plusv2_sdxl_official": "ip_adapter_faceid_plus",
    "ipadapter_faceid_sd15_official": "ip_adapter_faceid",
    "ipadapter_faceid_sdxl_official": "ip_adapter_faceid",
    "ipadapter_full_face_sd15_official": "ip_adapter_full_face",
    "ipadapter_plus_sd15_official": "ip_adapter_plus",
    "ipadapter_plus_sdxl_vith_official": "ip_adapter_plus",
    "ipadapter_sd15_official": "ip_adapter",
    "ipadapter_sdxl_bigg_official": "ip_adapter",
    "ipadapter_sdxl_vith_official": "ip_adapter",
    "modelscope_t2v_unet3d_diffusers": "modelscope_diffusers",
    "modelscope_t2v_unetsd_original": "modelscope",
    "paintbyexample_image_encoder_diffusers": "paint_by_example_encoder",
    "paintbyexample_sd14_single_ldm_delta": "paint_by_example",
    "photomaker_v1_id_encoder_sdxl_official": "photomaker_v1",
    "photomaker_v2_id_encoder_sdxl_official": "photomaker_v2",
    "sd15_lora_diffusers_old_attn_r8": "lora_diffusers_old",
    "sd15_lora_diffusers_r8": "lora_diffusers",
    "sd15_lora_kohya_conv_r8": "lora_kohya",
    "sd15_lora_kohya_r8": "lora_kohya",
    "sd15_lora_peft_text_encoder_r8": "lora_peft",
    "sd15_lora_peft_unet_r8": "lora_peft",
    "sd15_model_ema_ldm": "ldm_ema",
    "sd15_single_ldm": "sd1_single",
    "sd15_unet_diffusers": "sd_unet",
    "sd21_single_ldm": "sd2_single",
    "sd21_text_encoder_diffusers": "clip_text_h",
    "sd21_unet_diffusers": "sd_unet",
    "sd3_medium_single_sd3ref": "sd3_single",
    "sd3_medium_transformer_diffusers": "sd3_transformer",
    "sd3_text_encoders_single_sd3ref": "sd3_text_encoders",
    "sd3_vae_diffusers": "sd3_vae",
    "sd_vae_diffusers": "vae",
    "sdxl_base_single_sgm": "sdxl_single",
    "sdxl_lora_diffusers_r8": "lora_diffusers",
    "sdxl_lora_kohya_r8": "lora_kohya",
    "sdxl_lora_peft_unet_r8": "lora_peft",
    "sdxl_refiner_single_sgm": "sdxl_refiner_single",
    "sdxl_refiner_unet_diffusers": "sdxl_refiner_unet",
    "sdxl_text_encoder_2_diffusers": "clip_text_2",
    "sdxl_unet_diffusers": "sdxl_unet",
    "t2iadapter_coadapter_fuser_sd15_official": "t2i_adapter_fuser",
    "t2iadapter_full_sd14_official": "t2i_adapter",
    "t2iadapter_full_sd15_diffusers": "t2i_adapter_diffusers",
    "t2iadapter_full_sdxl_diffusers": "t2i_adapter_diffusers",
    "t2iadapter_full_sdxl_official": "t2i_adapter",
    "t2iadapter_light_sd14_official": "t2i_adapter_light",
    "t2iadapter_light_sd15_diffusers": "t2i_adapter_light_diffusers",
    "t2iadapter_style_sd14_official": "t2i_adapter_style",
    "t5_v1_1_xxl_encoder_transformers": "t5",
    "textual_inversion_sd15_kohya_2tok": "textual_inversion_kohya",
    "textual_inversion_sd15_learned_embeds_diffusers": "textual_inversion",
    "textual_inversion_sd15_webui_2tok": "textual_inversion_webui",
    "textual_inversion_sdxl_kohya_2tok": "textual_inversion_sdxl",
    "tuneavideo_unet3d_sd14": "tune_a_video",
    "unicontrol_sd15_official": "unicontrol",
    "videocomposer_unetsd_temporal": "videocomposer",
}

# lists that hold only what differs from another file: (difference, base) -> family, and a fact the shapes tell
TOGETHER = {
    ("sd15_inpainting_single_ldm_delta", "sd15_single_ldm"): ("sd1_single", "form", "inpainting"),
    ("sd15_inpainting_unet_diffusers_delta", "sd15_unet_diffusers"): ("sd_unet", "form", "inpainting"),
    ("instructpix2pix_sd15_single_ldm_delta", "sd15_single_ldm"): ("sd1_single", "form", "InstructPix2Pix"),
    ("instructpix2pix_sd15_unet_diffusers_delta", "sd15_unet_diffusers"): ("sd_unet", "form", "InstructPix2Pix"),
    ("paintbyexample_sd14_single_ldm_delta", "sd15_single_ldm"): ("paint_by_example", "input channels", 9),
    ("pia_sd15_delta", "animatediff_mm_v3_sd15"): ("pia", "positions", 32),
    ("pia_sd15_delta", "diffusers_motion_adapter_v3"): ("pia", "positions", 32),
    ("hotshotxl_temporal_layers", "sdxl_unet_diffusers"): ("hotshotxl", "base", "SDXL"),
    ("t2iadapter_sketch_sd14_official_delta", "t2iadapter_full_sd14_official"): ("t2i_adapter", None, None),
    ("gligen_sd14_textimage_unet_diffusers_delta", "sd15_unet_diffusers"): ("gligen_text_image", "form", "plain"),
    ("gligen_keypoint_sd14_unet_official_delta", "gligen_sd14_textbox_unet_official"): ("gligen_keypoints", None, None),
    ("controlnet_sd15_official", "sd15_single_ldm"): ("controlnet", "base", "Stable Diffusion 1.x"),
    ("sd15_model_ema_ldm", "sd15_single_ldm"): ("sd1_single", "form", "plain"),
    ("animatediff_mm_v3_sd15", "animatediff_unet3d_sd15_image_layers"): ("animatediff_v3", "text width", 768),
    ("diffusers_motion_adapter_v3", "sd15_unet_diffusers"): ("unet_motion_diffusers", "text width", 768),
}

FACTS = {
    "sd21_single_ldm": {"base": "Stable Diffusion 2.x", "form": "plain"},
    "sdxl_base_single_sgm": {"base": "SDXL", "form": "plain"},
    "sdxl_refiner_single_sgm": {"base": "SDXL refiner"},
    "modelscope_t2v_unetsd_original": {"text width": 1024},
    "videocomposer_unetsd_temporal": {"text width": 1024, "input channels": 12},
    "animatediff_mm_v1_sd15": {"positions": 24, "middle module": False, "levels": 4, "motion modules": 20},
    "animatediff_mm_v2_sd15": {"positions": 32, "middle module": True, "levels": 4, "motion modules": 21},
    "animatediff_mm_sdxl_v10_beta": {"positions": 32, "levels": 3, "motion modules": 15},
    "animatelcm_sd15_t2v_motion": {"positions": "none in the file", "motion modules": 21},
    "hotshotxl_temporal_layers": {"positions": 24, "levels": 3},
    "animatediff_motion_lora_v2_sd15_r64": {"rank": 64},
    "sd15_lora_kohya_conv_r8": {"rank": 8, "convolutions": True, "base": "Stable Diffusion 1.x"},
    "sdxl_lora_kohya_r8": {"rank": 8, "convolutions": False, "base": "SDXL"},
    "ipadapter_sdxl_bigg_official": {"base": "SDXL"},
}  # fmt: skip


def test_every_list_has_its_line_here(manifests):
    differences = {delta for delta, _ in TOGETHER}
    assert set(manifests) == set(FAMILIES) | {name for name in differences if name not in FAMILIES}
    assert len(manifests) == 109


@pytest.mark.parametrize("name", FAMILIES)
def test_recognised(manifests, name):
    assert recognise(manifests[name]).name == FAMILIES[name]


@pytest.mark.parametrize(("delta", "base"), TOGETHER)
def test_recognised_together_with_what_it_differs_from(manifests, delta, base):
    name, fact, value = TOGETHER[delta, base]
    family = recognise(manifests[base] | manifests[delta])
    assert family.name == name
    assert fact is None or family.facts[fact] == value


@pytest.mark.parametrize("name", FACTS)
def test_facts_are_read_from_the_shapes(manifests, name):
    facts = recognise(manifests[name]).facts
    assert {key: facts[key] for key in FACTS[name]} == FACTS[name]


def test_ignored_keys_are_counted(manifests):
    together = manifests["sd15_single_ldm"] | manifests["sd15_model_ema_ldm"]
    assert recognise(together).ignored == ("12 schedule buffers", "687 EMA copies (model_ema.*)", "1 position_ids")


def test_a_training_checkpoint_keeps_no_position_tables(manifests):
    motion = {k: v for k, v in manifests["animatediff_mm_v3_sd15"].items() if "pos_encoder" not in k}
    assert recognise(motion | manifests["animatediff_unet3d_sd15_image_layers"]).name == "animatediff_trained"
    assert recognise(motion).name == "animatediff_no_positions"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("hada_w1_a", "lora_loha"),
        ("lokr_w1", "lora_lokr"),
        ("dora_scale", "lora_dora"),
        ("lora_mid.weight", "lora_kohya"),
    ],
)
def test_other_spellings_of_low_rank(manifests, key, name):
    more = {f"lora_unet_mid_block_attentions_0_proj_in.{key}": [8, 8]}
    assert recognise(manifests["sd15_lora_kohya_r8"] | more).name == name


def test_unknown_says_its_first_key():
    assert recognise({"encoder.layer": [3]}).title == "no family that videogen knows (first key: encoder.layer)"


@pytest.mark.parametrize(
    ("delta", "base", "form"),
    [
        ("sd15_inpainting_single_ldm_delta", "sd15_single_ldm", "inpainting"),
        ("sd15_inpainting_unet_diffusers_delta", "sd15_unet_diffusers", "inpainting"),
        ("instructpix2pix_sd15_single_ldm_delta", "sd15_single_ldm", "InstructPix2Pix"),
        ("instructpix2pix_sd15_unet_diffusers_delta", "sd15_unet_diffusers", "InstructPix2Pix"),
    ],
)
def test_forms_that_are_refused_load_into_nothing_yet(manifests, delta, base, form):
    assert recognise(manifests[base]).into in (INTO_MODEL, INTO_UNET)
    assert recognise(manifests[base] | manifests[delta]).into == f"{NOT_YET} (form {form})"


def test_a_unet_with_the_channels_of_its_own_autoencoder_has_its_place(manifests):
    wide = {"conv_in.weight": [320, 3, 3, 3]}
    assert recognise(manifests["sd15_unet_diffusers"] | wide).into == INTO_UNET


def test_parts_that_nothing_reads_load_into_nothing_yet(manifests):
    whole, vision = manifests["sd15_single_ldm"], manifests["clip_vit_l14_vision_transformers"]
    files = {
        "ldm_unet": {key: shape for key, shape in whole.items() if key.startswith("model.diffusion_model.")},
        "vae_ldm": {
            key.removeprefix("first_stage_model."): shape
            for key, shape in whole.items()
            if key.startswith("first_stage_")
        },
        "clip": manifests["clip_vit_l14_text_transformers"] | vision | {"logit_scale": []},
        "clip_vision": vision,
    }
    for name, shapes in files.items():
        assert (recognise(shapes).name, recognise(shapes).into) == (name, NOT_YET)
