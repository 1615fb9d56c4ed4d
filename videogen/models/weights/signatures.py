"""What tells one checkpoint family from another: a literal list, tried from the top, the first that fits wins.

Order matters, for the later families lie inside the earlier ones: a ControlNet file may hold a whole Stable
Diffusion, FaceID files hold LoRA keys, a trained AnimateDiff file holds a whole UNet. So: SD3, control, adapters,
LoRA, motion, grounding, identity, tokens, whole models, parts.

A pattern is part of a key; `^` and `$` tie it to the key's beginning and end, `|` offers alternatives.
"""

from dataclasses import dataclass

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """One family: every pattern of `needs` is in some key, none of `lacks` in any, and the keys in `shapes` have
    these shapes (None is any).
    """

    name: str
    title: str
    part: str
    into: str
    needs: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    shapes: tuple[tuple[str, Shape], ...] = ()
    most: int | None = None  # no more keys than this


OURS = "videogen"
NOT_YET = "nothing in this version of videogen yet"

SD3 = (
    Signature("sd3_single", "Stable Diffusion 3 single file, reference layout", "model", NOT_YET,
              ("joint_blocks.0.x_block.",)),
    Signature("sd3_text_encoders", "the three text encoders of Stable Diffusion 3 in one file", "text_encoder",
              NOT_YET, ("^text_encoders.",)),
    Signature("sd3_transformer", "Stable Diffusion 3 transformer, diffusers layout", "transformer", NOT_YET,
              ("transformer_blocks.0.attn.add_q_proj.",)),
)  # fmt: skip

CONTROL = (
    Signature("unicontrol", "UniControl, authors' layout", "controlnet", NOT_YET, ("task_id_hypernet.",)),
    Signature("controlnet_xs", "ControlNet-XS, authors' layout", "controlnet", NOT_YET, ("enc_zero_convs_in.",)),
    Signature("controlnet_xs_diffusers", "ControlNet-XS adapter, diffusers layout", "controlnet", NOT_YET,
              ("base_to_ctrl.",)),
    Signature("sparsectrl_rgb", "SparseCtrl RGB (AnimateDiff v3), authors' layout", "controlnet", NOT_YET,
              ("controlnet_cond_embedding.weight", ".motion_modules.", ".temporal_transformer.")),
    Signature("sparsectrl_scribble", "SparseCtrl scribble (AnimateDiff v3), authors' layout", "controlnet", NOT_YET,
              ("controlnet_cond_embedding.", ".motion_modules.", ".temporal_transformer.")),
    Signature("sparsectrl_rgb_diffusers", "SparseCtrl RGB, diffusers layout", "controlnet", NOT_YET,
              ("controlnet_cond_embedding.weight", ".motion_modules.")),
    Signature("sparsectrl_scribble_diffusers", "SparseCtrl scribble, diffusers layout", "controlnet", NOT_YET,
              ("controlnet_cond_embedding.", ".motion_modules.")),
    Signature("controlnet", "ControlNet, authors' layout", "controlnet", NOT_YET,
              ("zero_convs.0.0.", "input_hint_block.0.")),
    Signature("controlnet_diffusers", "ControlNet, diffusers layout", "controlnet", NOT_YET,
              ("controlnet_down_blocks.0.",)),
)  # fmt: skip

IMAGE_PROMPT = (
    Signature("photomaker_v2", "PhotoMaker v2 identity encoder", "adapter", NOT_YET,
              ("id_encoder.", "qformer_perceiver.")),
    Signature("photomaker_v1", "PhotoMaker v1 identity encoder", "adapter", NOT_YET, ("id_encoder.", "fuse_module.")),
    Signature("instantid", "InstantID image adapter", "adapter", NOT_YET, ("ip_adapter.", "image_proj.latents"),
              shapes=(("image_proj.proj_in.weight", (None, 512)),)),
    Signature("ip_adapter_faceid_plus", "IP-Adapter FaceID plus (v1 or v2)", "adapter", NOT_YET,
              ("ip_adapter.", "_lora.down.", "perceiver_resampler.")),
    Signature("ip_adapter_faceid", "IP-Adapter FaceID", "adapter", NOT_YET, ("ip_adapter.", "_lora.down.")),
    Signature("ip_adapter_plus", "IP-Adapter plus", "adapter", NOT_YET, ("ip_adapter.", "image_proj.latents")),
    Signature("ip_adapter_full_face", "IP-Adapter full face", "adapter", NOT_YET,
              ("ip_adapter.", "image_proj.proj.3.")),
    Signature("ip_adapter", "IP-Adapter", "adapter", NOT_YET, ("to_k_ip.",)),
)  # fmt: skip

INTO_LORA = "--lora (merged into UNet, text encoders and motion modules)"
LORA = (
    Signature("lora_dora", "LoRA with weight decomposition (DoRA)", "refused", NOT_YET,
              (".dora_scale|lora_magnitude_vector",)),
    Signature("lora_loha", "LoHa (Hadamard products of low rank)", "lora", INTO_LORA, (".hada_w1_a",)),
    Signature("lora_lokr", "LoKr (Kronecker products)", "lora", INTO_LORA, (".lokr_w1",)),
    Signature("animatediff_motion_lora", "AnimateDiff MotionLoRA, authors' layout", "lora", INTO_LORA,
              (".motion_modules.", ".attention_blocks.", ".processor.to_q_lora.down.")),
    Signature("animatediff_domain_adapter", "AnimateDiff v3 domain adapter, authors' layout", "lora", INTO_LORA,
              ("^down_blocks.0.attentions.", ".processor.to_q_lora.down."), (".motion_modules.",),
              ((".attn1.processor.to_q_lora.down.weight", (128, None)),)),
    Signature("lora_kohya", "LoRA, kohya layout", "lora", INTO_LORA, ("^lora_unet_|^lora_te",)),
    Signature("lora_peft", "LoRA, peft layout", "lora", INTO_LORA, ("base_model.model.", ".lora_A.")),
    Signature("lora_diffusers", "LoRA, diffusers layout", "lora", INTO_LORA, (".lora_A.|.lora.down.",)),
    Signature("lora_diffusers_old", "LoRA, old diffusers attention processors", "lora", INTO_LORA,
              ("_lora.down.|lora_linear_layer.down.",)),
)  # fmt: skip

INTO_MOTION = "--motion (motion modules of the UNet)"
MODULES = (".motion_modules.", ".temporal_transformer.")
MOTION = (
    Signature("animatelcm_i2v", "AnimateLCM image-to-video", "refused", NOT_YET, ("img_encoder.",)),
    Signature("cameractrl", "CameraCtrl pose adaptor", "refused", NOT_YET,
              ("pose_encoder_state_dict.|.qkv_merge.|pose_adaptor.",)),
    Signature("pia", "PIA (image animation with nine input channels)", "refused", NOT_YET, (".motion_modules.",),
              shapes=(("conv_in.weight", (None, 9, None, None)),)),
    Signature("hotshotxl", "Hotshot-XL temporal layers", "motion", INTO_MOTION,
              (".temporal_attentions.", "pos_encoder.positional_encoding")),
    Signature("animatediff_sdxl", "AnimateDiff motion module, SDXL beta, authors' layout", "motion", INTO_MOTION,
              (*MODULES, "pos_encoder.pe"), ("down_blocks.3.",)),
    Signature("animatediff_v2", "AnimateDiff motion module v2, authors' layout", "motion", INTO_MOTION,
              (*MODULES, "pos_encoder.pe", "mid_block.motion_modules.")),
    Signature("animatediff_v1", "AnimateDiff motion module v1, authors' layout", "motion", INTO_MOTION, MODULES,
              shapes=(("pos_encoder.pe", (1, 24, None)),)),
    Signature("animatediff_v3", "AnimateDiff motion module v3, authors' layout", "motion", INTO_MOTION,
              (*MODULES, "pos_encoder.pe")),
    Signature("animatediff_trained",
              "AnimateDiff training checkpoint (whole UNet with motion modules, no position tables)", "motion",
              INTO_MOTION, (*MODULES, "conv_in.weight")),
    Signature("animatelcm", "AnimateLCM motion module (no position tables)", "motion", INTO_MOTION,
              (*MODULES, "mid_block.motion_modules.")),
    Signature("animatediff_no_positions", "AnimateDiff motion module saved without position tables", "motion",
              INTO_MOTION, MODULES),
    Signature("unet_motion_diffusers", "UNetMotionModel (UNet and motion modules in one), diffusers layout", "motion",
              INTO_MOTION, (".motion_modules.", "conv_in.weight")),
    Signature("motion_adapter_diffusers", "MotionAdapter, diffusers layout", "motion", INTO_MOTION,
              (".motion_modules.", ".transformer_blocks.0.attn1.")),
    Signature("videocomposer", "VideoComposer UNet", "unet", NOT_YET, ("temopral_conv.", "motion_embedding.")),
    Signature("modelscope", "ModelScope text-to-video UNet, authors' layout", "unet", NOT_YET, ("temopral_conv.",)),
    Signature("modelscope_diffusers", "ModelScope text-to-video UNet, diffusers layout", "unet", NOT_YET,
              (".temp_convs.",)),
    Signature("tune_a_video", "Tune-A-Video UNet", "unet", "--model (the folder of which it is the unet)", (".attn_temp.",)),
    Signature("fatezero", "FateZero UNet", "unet", "--model (the folder of which it is the unet)", (".attn_temporal.|.conv_temporal.",)),
)  # fmt: skip

GROUNDING = (
    Signature("gligen_keypoints", "GLIGEN with keypoints", "unet", NOT_YET, ("position_net.keypoint_embeddings",)),
    Signature("gligen_text_image", "GLIGEN with text and image boxes", "unet", NOT_YET,
              ("position_net.linears_text.",)),
    Signature("gligen", "GLIGEN with text boxes", "unet", NOT_YET, ("position_net.linears.",)),
    Signature("t2i_adapter_fuser", "fuser of composable T2I-Adapters", "adapter", NOT_YET,
              ("task_embedding", "spatial_feat_mapping.")),
    Signature("t2i_adapter_style", "T2I-Adapter style", "adapter", NOT_YET,
              ("style_embedding", "transformer_layes.")),
    Signature("t2i_adapter_light_diffusers", "T2I-Adapter light, diffusers layout", "adapter", NOT_YET,
              ("body.0.in_conv.weight", "body.0.resnets.0.block1.")),
    Signature("t2i_adapter_diffusers", "T2I-Adapter, diffusers layout", "adapter", NOT_YET,
              ("body.0.resnets.0.block1.",)),
    Signature("t2i_adapter_light", "T2I-Adapter light, authors' layout", "adapter", NOT_YET,
              ("body.0.in_conv.weight", "body.0.body.0.block1.")),
    Signature("t2i_adapter", "T2I-Adapter, authors' layout", "adapter", NOT_YET,
              ("body.0.block1.weight", "conv_in.weight")),
)  # fmt: skip

SUBJECT = (
    Signature("paint_by_example", "Paint by Example single file", "model", NOT_YET,
              ("^learnable_vector$", "cond_stage_model.mapper.")),
    Signature("paint_by_example_encoder", "Paint by Example image encoder, diffusers layout", "image_encoder",
              NOT_YET, ("uncond_vector", "mapper.blocks.0.")),
    Signature("custom_diffusion_diffusers", "Custom Diffusion attention weights, diffusers layout", "adapter",
              NOT_YET, ("to_k_custom_diffusion.",)),
    Signature("custom_diffusion_bin", "Custom Diffusion delta.bin", "adapter", NOT_YET,
              ("^modifier_token.", "attn2.to_k.")),
    Signature("custom_diffusion", "Custom Diffusion delta, authors' layout", "adapter", NOT_YET,
              ("^embed$", "attn2.to_k.")),
    Signature("fastcomposer", "FastComposer", "adapter", NOT_YET, ("postfuse_module.",)),
    Signature("blip_diffusion_qformer", "BLIP-Diffusion Q-Former", "adapter", NOT_YET,
              ("query_tokens", "visual_encoder.")),
    Signature("diffae_latent", "diffusion autoencoder, latent model", "model", NOT_YET,
              ("latent_net.layers.0.linear.",)),
    Signature("diffae", "diffusion autoencoder", "model", NOT_YET, ("cond_emb_layers.", "encoder.input_blocks.")),
)  # fmt: skip

TOKENS = (
    Signature("textual_inversion_webui", "textual inversion, web UI layout", "tokens", NOT_YET,
              ("^string_to_param.",)),
    Signature("textual_inversion_kohya", "textual inversion, kohya layout", "tokens", NOT_YET, ("^emb_params$",)),
    Signature("textual_inversion_sdxl", "textual inversion for SDXL", "tokens", NOT_YET, ("^clip_l$", "^clip_g$"),
              most=2),
    *(Signature("textual_inversion", "textual inversion, diffusers layout", "tokens", NOT_YET, (), (".",), (("", shape),),
                most=1) for shape in ((None,), (None, 768), (None, 1024), (None, 1280))),
)  # fmt: skip

INTO_MODEL = "--model (text encoder, VAE and UNet)"
INTO_UNET = "the unet of a model folder"
UNET = "model.diffusion_model.input_blocks."
SINGLE = (
    Signature("sdxl_refiner_single", "SDXL refiner single file", "model", INTO_MODEL,
              (UNET, "conditioner.embedders.0.model.")),
    Signature("sdxl_single", "SDXL base single file", "model", INTO_MODEL, (UNET, "conditioner.embedders.1.model.")),
    Signature("sd2_single", "Stable Diffusion 2.x single file", "model", INTO_MODEL,
              (UNET, "cond_stage_model.model.")),
    Signature("sd1_single", "Stable Diffusion 1.x single file", "model", INTO_MODEL,
              (UNET, "cond_stage_model.transformer.")),
    Signature("ldm_unet", "UNet in LDM layout without text encoder", "unet", NOT_YET, (UNET,)),
    Signature("ldm_ema", "EMA shadow of a UNet, dots removed, without the weights beside it", "unet", NOT_YET,
              ("^model_ema.decay$",)),
)  # fmt: skip

PARTS = (
    Signature("sdxl_refiner_unet", "SDXL refiner UNet, diffusers layout", "unet", INTO_UNET,
              ("down_blocks.0.", "mid_block.", "conv_in.weight"),
              shapes=(("add_embedding.linear_1.weight", (None, 2560)),)),
    Signature("sdxl_unet", "SDXL UNet, diffusers layout", "unet", INTO_UNET,
              ("down_blocks.0.", "mid_block.", "conv_in.weight", "add_embedding.linear_1.")),
    Signature("sd_unet", "Stable Diffusion UNet, diffusers layout", "unet", INTO_UNET,
              ("down_blocks.0.", "mid_block.", "conv_in.weight", "time_embedding.linear_1.", "attn2.to_k.")),
    Signature("sd3_vae", "VAE of Stable Diffusion 3 (16 channels)", "vae", NOT_YET,
              ("encoder.conv_in.weight", "decoder.conv_in.weight"), ("quant_conv.",),
              (("decoder.conv_in.weight", (None, 16, None, None)),)),
    Signature("vae_ldm", "KL autoencoder, LDM layout", "vae", NOT_YET,
              ("encoder.down.0.block.0.", "decoder.up.0.block.0.")),
    Signature("vae", "KL autoencoder, diffusers layout", "vae", "the vae of a model folder",
              ("encoder.conv_in.weight", "decoder.conv_in.weight")),
    Signature("clip", "CLIP, text and image sides in one", "text_encoder", NOT_YET,
              ("vision_model.embeddings.class_embedding", "text_model.embeddings.token_embedding.")),
    Signature("clip_vision", "CLIP image encoder", "image_encoder", NOT_YET,
              ("embeddings.class_embedding", "embeddings.patch_embedding.")),
    Signature("clip_text_2", "OpenCLIP bigG text encoder (the second of SDXL)", "text_encoder",
              "the text_encoder_2 of a model folder", (),
              shapes=(("embeddings.token_embedding.weight", (None, 1280)),)),
    Signature("clip_text_h", "OpenCLIP H text encoder (Stable Diffusion 2.x)", "text_encoder",
              "the text_encoder of a model folder", (),
              shapes=(("embeddings.token_embedding.weight", (None, 1024)),)),
    Signature("clip_text", "CLIP text encoder", "text_encoder", "the text_encoder of a model folder",
              ("embeddings.token_embedding.weight", "encoder.layers.0.self_attn.")),
    Signature("t5", "T5 encoder", "text_encoder", NOT_YET, ("block.0.layer.1.DenseReluDense.",)),
)  # fmt: skip

SIGNATURES = (*SD3, *CONTROL, *IMAGE_PROMPT, *LORA, *MOTION, *GROUNDING, *SUBJECT, *TOKENS, *SINGLE, *PARTS)
