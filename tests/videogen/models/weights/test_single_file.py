"""Single files: names and shapes of the full-size lists, and values of small models written in the original layout."""

import dataclasses
import json
import re

import pytest
import torch

from tests import folders
from videogen.errors import InputError
from videogen.models.presets import PRESETS
from videogen.models.unet import UNet
from videogen.models.weights import files, single_file
from videogen.models.weights.single_file import load_single_file, read_single_file, split

WHOLE = {
    "sd15": ("sd1_single", "sd15_single_ldm", {
        "unet": "sd15_unet_diffusers", "vae": "sd_vae_diffusers", "text_encoder": "clip_vit_l14_text_transformers"}),
    "sd21": ("sd2_single", "sd21_single_ldm", {
        "unet": "sd21_unet_diffusers", "vae": "sd_vae_diffusers", "text_encoder": "sd21_text_encoder_diffusers"}),
    "sdxl": ("sdxl_single", "sdxl_base_single_sgm", {
        "unet": "sdxl_unet_diffusers", "vae": "sd_vae_diffusers", "text_encoder": "clip_vit_l14_text_transformers",
        "text_encoder_2": "sdxl_text_encoder_2_diffusers"}),
    "sdxl-refiner": ("sdxl_refiner_single", "sdxl_refiner_single_sgm", {
        "unet": "sdxl_refiner_unet_diffusers", "vae": "sd_vae_diffusers", "text_encoder_2": "sdxl_text_encoder_2_diffusers"}),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_names_and_shapes_of_full_size_files(manifests, name):
    family, whole, lists = WHOLE[name]
    state = {key: torch.empty(shape, device="meta") for key, shape in manifests[whole].items()}
    parts = split(state, family, PRESETS[name])
    assert set(parts) == set(lists)
    for part, wanted in lists.items():
        found = {key: list(tensor.shape) for key, tensor in parts[part].items()}
        assert found == {key: shape for key, shape in manifests[wanted].items() if not key.endswith("position_ids")}


@pytest.mark.parametrize("name", WHOLE)
def test_presets_build_the_networks_of_the_lists(manifests, name):
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    _, _, lists = WHOLE[name]
    preset = PRESETS[name]
    with torch.device("meta"):
        models = {"unet": UNet(preset.unet), "vae": AutoencoderKL(**preset.vae)}
        for part, config in preset.text.items():
            models[part] = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    for part, model in models.items():
        found = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        wanted = {key: shape for key, shape in manifests[lists[part]].items() if not key.endswith("position_ids")}
        if "text_projection.weight" not in wanted:
            found.pop("text_projection.weight", None)
        assert found == wanted


# -- small models, written in the original layout by the inverse of the naming rule ------------------------------------

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
TOP = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
       "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
       "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip


def resnet_to_ldm(rest):
    head, _, tail = rest.partition(".")
    return f"{RESNET[head]}.{tail}"


def unet_to_ldm(state, config):
    def name(key):
        top, _, tail = key.rpartition(".")
        if top in TOP:
            return f"{TOP[top]}.{tail}"
        side, i, kind, j, rest = re.match(r"(down|mid|up)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.*)", key).groups()
        i, j, n = int(i or 0), int(j), config.layers + 1
        inner = resnet_to_ldm(rest) if kind == "resnets" else rest
        place = {"resnets": 0, "attentions": 1}.get(kind)
        if side == "mid":
            return f"middle_block.{2 * j if kind == 'resnets' else 1}.{inner}"
        if side == "down":
            if kind == "downsamplers":
                return f"input_blocks.{(i + 1) * n}.0.op.{tail}"
            return f"input_blocks.{1 + i * n + j}.{place}.{inner}"
        if kind == "upsamplers":
            attends = config.depths[::-1][i] > 0
            return f"output_blocks.{i * n + n - 1}.{2 if attends else 1}.conv.{tail}"
        return f"output_blocks.{i * n + j}.{place}.{inner}"

    return {f"model.diffusion_model.{name(key)}": tensor for key, tensor in state.items()}


def vae_to_ldm(state, levels):
    def name(key):
        key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
        key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
        key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        for ours, theirs in (("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), ("to_out.0", "proj_out"),
                             ("to_", ""), ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut")):  # fmt: skip
            key = key.replace(ours, theirs)
        return f"first_stage_model.{key}"

    return {
        name(key): tensor[:, :, None, None] if "attentions" in key and tensor.ndim == 2 else tensor
        for key, tensor in state.items()
    }


OPENCLIP = (("text_model.embeddings.token_embedding", "token_embedding"), ("text_model.final_layer_norm", "ln_final"),
            ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
            ("text_model.encoder.layers", "transformer.resblocks"), ("self_attn", "attn"), ("layer_norm", "ln_"),
            ("fc1", "c_fc"), ("fc2", "c_proj"))  # fmt: skip


def text_to_openclip(state, prefix):
    out = {}
    for key, tensor in state.items():
        key = key if key.startswith("text_") else f"text_model.{key}"
        for ours, theirs in OPENCLIP:
            key = key.replace(ours, theirs)
        if m := re.match(r"(.*)\.(q|k|v)_proj\.(weight|bias)", key):
            out.setdefault(f"{m[1]}.in_proj_{m[3]}", {})[m[2]] = tensor
        else:
            out[key.replace("text_projection.weight", "text_projection")] = tensor.T if "projection" in key else tensor
    out = {
        key: torch.cat([value[n] for n in "qkv"]) if isinstance(value, dict) else value for key, value in out.items()
    }
    return {prefix + key: tensor.contiguous() for key, tensor in out.items()}


TINY_TEXT = {"vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
             "num_attention_heads": 2, "projection_dim": 32}  # fmt: skip


def small(name):
    """The preset of this name with small widths, its four networks with random weights, and their single file."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    preset = PRESETS[name]
    sdxl = "text_encoder_2" in preset.text
    levels = len(preset.unet.channels)
    unet = dataclasses.replace(
        preset.unet, channels=(32, 64, 64, 64)[:levels], heads=(2,) * levels, context=32 * len(preset.text), groups=8,
        depths={"sdxl": (0, 1, 2), "sdxl-refiner": (0, 2, 2, 0)}.get(name, preset.unet.depths), middle=2 * (name == "sdxl-refiner"),
        size_width=8 if sdxl else None, added_width={"sdxl": 32 + 6 * 8, "sdxl-refiner": 32 + 5 * 8}.get(name),
    )  # fmt: skip
    vae = {**preset.vae, "block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}
    text = {part: {**config, **TINY_TEXT} for part, config in preset.text.items()}
    preset = dataclasses.replace(preset, unet=unet, vae=vae, text=text)
    models = {"unet": UNet(unet), "vae": AutoencoderKL(**vae)}
    for part, config in text.items():
        kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
        models[part] = kind(CLIPTextConfig(**config))
    states = {part: model.state_dict() for part, model in models.items()}
    file = unet_to_ldm(states["unet"], unet) | vae_to_ldm(states["vae"], 4)
    if name == "sdxl-refiner":
        file |= text_to_openclip(states["text_encoder_2"], "conditioner.embedders.0.model.")
    elif sdxl:
        clip = {f"conditioner.embedders.0.transformer.text_model.{k}": v for k, v in states["text_encoder"].items()}
        file |= clip | text_to_openclip(states["text_encoder_2"], "conditioner.embedders.1.model.")
    elif name == "sd15":
        file |= {f"cond_stage_model.transformer.text_model.{k}": v for k, v in states["text_encoder"].items()}
    else:
        file |= text_to_openclip(states["text_encoder"], "cond_stage_model.model.")
    file["betas"] = torch.linspace(0, 1, 1000)
    return preset, models, file


@pytest.fixture(scope="module", params=["sd15", "sd21", "sdxl", "sdxl-refiner"])
def written(request, tmp_path_factory):
    preset, models, file = small(request.param)
    path = tmp_path_factory.mktemp("single") / "model.ckpt"
    torch.save({"state_dict": file}, path)
    return request.param, preset, models, path


def bare(state):
    return {key.removeprefix("text_model."): tensor for key, tensor in state.items()}


def test_values_of_small_models_come_back(written, monkeypatch):
    name, preset, models, path = written
    monkeypatch.setitem(PRESETS, name, preset)
    parts = read_single_file(path).parts
    for part, model in models.items():
        wanted, found = bare(model.state_dict()), bare(parts[part])
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_loaded_parts_compute_what_the_models_compute(written, monkeypatch, tmp_path, make_tokenizer):
    name, preset, models, path = written
    monkeypatch.setitem(PRESETS, name, preset)
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    parts = load_single_file(path, tokenizer=tmp_path)
    assert parts.scheduler["prediction_type"] == ("v_prediction" if name == "sd21" else "epsilon")
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(77)[None]
    with torch.no_grad():
        assert torch.equal(parts.vae.encode(x).latent_dist.mean, models["vae"].eval().encode(x).latent_dist.mean)
        for encoder, part in zip(parts.text.encoders, preset.text, strict=True):
            assert torch.equal(encoder.model(ids)[0], models[part].eval()(ids)[0])
    state = models["unet"].state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in parts.unet.state_dict().items())
    pads = [encoder.tokenizer.pad_token for encoder in parts.text.encoders]
    assert pads == {"sd15": ["<|endoftext|>"], "sdxl": ["<|endoftext|>", "!"]}.get(name, ["!"])
    sdxl = name.startswith("sdxl")
    assert all(encoder.skip == sdxl and encoder.final_norm != sdxl for encoder in parts.text.encoders)
    assert parts.text.zero_null == (name == "sdxl")


def test_text_encoders_without_prefix_are_read_the_same():
    preset, models, file = small("sd15")
    plain = {
        key.replace("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."): v
        for key, v in file.items()
    }
    found = split(plain, "sd1_single", preset)["text_encoder"]
    assert found.keys() == {f"text_model.{key}" for key in models["text_encoder"].state_dict()}


def test_averaged_weights_are_passed_over(tmp_path, monkeypatch):
    preset, models, file = small("sd15")
    monkeypatch.setitem(PRESETS, "sd15", preset)
    copies = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): tensor + 1
        for key, tensor in file.items()
        if key.startswith("model.diffusion_model.")
    }
    files.write(tmp_path / "model.safetensors", file | copies | {"model_ema.decay": torch.tensor(0.999)})
    plain = read_single_file(tmp_path / "model.safetensors")
    for key, tensor in models["unet"].state_dict().items():
        assert torch.equal(plain.parts["unet"][key], tensor)
    assert "EMA copies" in plain.line


def prediction(tmp_path, state, name, metadata=None, asked=None):
    files.write(tmp_path / name, state, metadata)
    scheduler = read_single_file(tmp_path / name, asked).preset.scheduler
    return scheduler["prediction_type"], scheduler.get("rescale_betas_zero_snr", False)


def test_stable_diffusion_2_predicts_what_caller_metadata_or_name_say(tmp_path, monkeypatch):
    preset, _, state = small("sd21")
    for name in ("sd21", "sd21-base"):
        small_one = dataclasses.replace(PRESETS[name], unet=preset.unet, vae=preset.vae, text=preset.text)
        monkeypatch.setitem(PRESETS, name, small_one)
    said = {"modelspec.prediction_type": "epsilon"}
    assert prediction(tmp_path, state, "v2-1_768.safetensors") == ("v_prediction", False)
    assert prediction(tmp_path, state, "unknown.safetensors") == ("v_prediction", False)
    assert prediction(tmp_path, state, "v2-1_512-pruned.safetensors") == ("epsilon", False)
    assert prediction(tmp_path, state, "a_base.safetensors") == ("epsilon", False)
    assert prediction(tmp_path, state, "unknown.safetensors", said) == ("epsilon", False)
    assert prediction(tmp_path, state, "unknown.safetensors", said, "v_prediction") == ("v_prediction", False)
    assert prediction(tmp_path, state, "v2_512.safetensors", None, "v") == ("v_prediction", False)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    assert prediction(tmp_path, state | marks, "v2_512.safetensors") == ("v_prediction", True)
    with pytest.raises(InputError, match="prediction type 'velocity' is not known"):
        read_single_file(tmp_path / "unknown.safetensors", "velocity")


def test_other_files_and_other_forms_are_refused(tmp_path, monkeypatch):
    preset, _, state = small("sd15")
    monkeypatch.setitem(PRESETS, "sd15", preset)
    key = "model.diffusion_model.input_blocks.0.0.weight"
    wide = torch.cat([state[key]] * 3, 1)[:, :9]
    files.write(tmp_path / "inpainting.safetensors", state | {key: wide})
    with pytest.raises(InputError, match=r"is the inpainting model \(9 input channels\)"):
        load_single_file(tmp_path / "inpainting.safetensors")
    convolutions = ("encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight")
    files.write(tmp_path / "vae.safetensors", {name: torch.ones(1) for name in convolutions})
    with pytest.raises(InputError, match="it looks like: KL autoencoder"):
        read_single_file(tmp_path / "vae.safetensors")
    del state["model.diffusion_model.output_blocks.3.0.in_layers.2.weight"]
    files.write(tmp_path / "holed.safetensors", state)
    with pytest.raises(
        InputError, match=r"up_blocks\.1\.resnets\.0\.conv1\.weight.*looks like: Stable Diffusion 1\.x single file"
    ):
        load_single_file(tmp_path / "holed.safetensors")


@pytest.mark.parametrize(
    "key", ["model.diffusion_model.extra.weight", "first_stage_model.decoder.extra.weight", "down deep"]
)
def test_surplus_tensors_are_told_where_the_converter_would_drop_them_too(tmp_path, monkeypatch, make_tokenizer, key):
    preset, _, state = small("sd15")
    monkeypatch.setitem(PRESETS, "sd15", preset)
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    deep = ("model.diffusion_model.input_blocks.1.0.extra.weight", "down_blocks.0.resnets.0.extra.weight")
    key, told = deep if key == "down deep" else (key, key)
    losses = {"first_stage_model.loss.logvar": torch.zeros(())}
    files.write(tmp_path / "more.safetensors", state | losses | {key: torch.ones(2)})
    with pytest.raises(InputError, match=rf"has '{re.escape(told)}', which the model does not know \(1 surplus\)"):
        load_single_file(tmp_path / "more.safetensors", tokenizer=tmp_path / "tokenizer")
    files.write(tmp_path / "more.safetensors", state | losses)
    assert "1 training losses" in load_single_file(tmp_path / "more.safetensors", tokenizer=tmp_path / "tokenizer").line


@pytest.mark.parametrize(
    "key",
    ["edm_mean", "depth_model.x", "cond_stage_model.other.weight", "scale_factor", "unet.down.weight"],
)
def test_keys_of_no_part_are_told(tmp_path, monkeypatch, key):
    preset, _, state = small("sd15")
    monkeypatch.setitem(PRESETS, "sd15", preset)
    files.write(tmp_path / "more.safetensors", state | {key: torch.ones(2)})
    with pytest.raises(InputError, match=rf"has '{re.escape(key)}', which the model does not know \(1 surplus\).*1\.x"):
        read_single_file(tmp_path / "more.safetensors")


@pytest.mark.parametrize("name", WHOLE)
def test_no_released_file_has_keys_of_no_part(manifests, name):
    family, whole, _ = WHOLE[name]
    marks = {"v_pred": [0], "ztsnr": [0]}
    assert single_file.surplus(manifests[whole] | manifests["sd15_model_ema_ldm"] | marks, family) == ()


def test_the_form_is_told_before_the_keys_that_it_brings(tmp_path):
    _, _, state = small("sd21")
    key = "model.diffusion_model.input_blocks.0.0.weight"
    wide = torch.cat([state[key]] * 2, 1)[:, :5]
    files.write(tmp_path / "depth.safetensors", state | {key: wide, "depth_model.x": torch.ones(2)})
    with pytest.raises(InputError, match=r"is the depth model \(5 input channels\)"):
        read_single_file(tmp_path / "depth.safetensors")


@pytest.mark.parametrize(
    ("name", "title"), [("sdxl", "SDXL base single file"), ("sdxl-refiner", "SDXL refiner single file")]
)
@pytest.mark.parametrize("key", single_file.EMBEDDED)
def test_a_file_without_its_embedding_of_sizes_is_refused_by_name(tmp_path, monkeypatch, name, title, key):
    preset, _, state = small(name)
    monkeypatch.setitem(PRESETS, name, preset)
    del state[key]
    files.write(tmp_path / "holed.safetensors", state)
    with pytest.raises(InputError, match=rf"lacks '{re.escape(key)}' \(1 missing\); it looks like: {title}"):
        read_single_file(tmp_path / "holed.safetensors")


@pytest.mark.parametrize("shape", [(), (7,), (7, 7, 7), (0, 0, 0, 0)])
@pytest.mark.parametrize(
    "key",
    [
        "first_stage_model.encoder.mid.attn_1.q.weight",
        "conditioner.embedders.1.model.text_projection",
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
    ],
)
def test_tensors_with_another_number_of_axes_are_refused_by_name(manifests, key, shape):
    state = {name: torch.empty(own, device="meta") for name, own in manifests["sdxl_base_single_sgm"].items()}
    with pytest.raises(InputError, match=rf"has the shape {re.escape(str(shape))} at '{re.escape(key)}', where 2"):
        split(state | {key: torch.empty(shape, device="meta")}, "sdxl_single", PRESETS["sdxl"])


def test_no_tokenizer_is_one_line_that_says_which_to_get(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="give --tokenizer DIR"):
        single_file.find_tokenizer(None)


@pytest.mark.parametrize("repository", single_file.CACHED_TOKENIZERS)
def test_the_tokenizer_in_the_cache_is_found_and_a_broken_one_is_named(tmp_path, monkeypatch, repository):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / f"models--{repository.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123")
    folder = (cached / "snapshots" / "0123" / single_file.CACHED_TOKENIZERS[repository]).parent
    wanted = folders.tokenizer()
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(wanted.get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    assert single_file.find_tokenizer(None)("a cat").input_ids == wanted("a cat").input_ids
    (folder / "vocab.json").write_text("{")
    with pytest.raises(InputError, match=rf"the tokenizer in {re.escape(str(folder))} cannot be read"):
        single_file.find_tokenizer(None)
