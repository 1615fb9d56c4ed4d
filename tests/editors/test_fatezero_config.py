"""The authors' configuration files: their keys and spellings, and what they mean here."""

from pathlib import Path

import pytest
import torch

from editors.fatezero_config import read_config
from motion_modules.pseudo_3d import frame_table
from tests import folders
from videogen.errors import InputError
from videogen.models.presets import SD1_UNET
from videogen.models.unet import UNet
from videogen.models.words import equal_chunks, tokenize

TEXT = """
pretrained_model_path: "./ckpt/some-model"
dataset_config:
    path: "data/ball"
    prompt: "a red ball, rolling"
    n_sample_frame: 8
    sampling_rate: 1
    stride: 80
    offset: {left: 0, right: 0, top: 0, bottom: 0}
editing_config:
    use_invertion_latents: true
    use_inversion_attention: true
    guidance_scale: 7.5
    source_prompt: "${dataset_config.prompt}"
    editing_prompts: ["a red ball, rolling", "a drawing of a red ball, rolling", "a blue box, rolling"]
    p2p_config:
        0:
            cross_replace_steps: {default_: 0.8}
            self_replace_steps: 0.9
            blend_words: [["cat"], ["cat"]]
            blend_self_attention: True
            blend_th: [2, 2]
        1:
            is_replace_controller: False
            cross_replace_steps: {default_: 0.8, drawing: [0.1, 0.6], lion: 0.2}
            self_replace_steps: 0.8
            eq_params: {words: ["drawing", "lion"], values: [10, 20]}
        2:
            is_replace_controller: True
            cross_replace_steps: {default_: 0.5}
            self_replace_steps: 0.5
            blend_words: [["red", "ball"], ["box"]]
            blend_self_attention: True
            blend_latents: True
            blend_th: [0.3, 0.3]
    clip_length: "${..dataset_config.n_sample_frame}"
    sample_seeds: [0]
    num_inference_steps: 30
    prompt2prompt_edit: True
model_config:
    lora: 160
    SparseCausalAttention_index: ['mid', -1]
    least_sc_channel: 640
test_pipeline_config:
    target: video_diffusion.pipelines.p2p_ddim_spatial_temporal.P2pDDIMSpatioTemporalPipeline
seed: 3
disk_store: True
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "edit.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_configuration_is_read(tmp_path):
    config = read_config(written(tmp_path, TEXT))
    assert (config.source, config.steps, config.guidance_scale, config.seed, config.disk) == (
        "a red ball, rolling",
        30,
        7.5,
        3,
        True,
    )
    assert config.sampling["n_sample_frame"] == 8
    same, style, shape = (edit.settings for edit in config.edits)
    assert (same.exchange.edit, same.exchange.selfs, same.blend) == (
        "replace",
        0.9,
        (),
    )  # no cat anywhere: as without blend words
    assert (style.exchange.edit, style.exchange.weights) == ("refine", {"drawing": 10.0})
    assert style.exchange.cross == {"default_": 0.8, "drawing": (0.1, 0.6)}
    assert (shape.exchange.edit, shape.blend, shape.threshold, shape.blend_latents) == (
        "replace",
        ("red", "ball", "box"),
        0.3,
        True,
    )


@pytest.mark.parametrize(
    ("source", "target", "edit"),
    [
        ("a red ball rolling on the grass,", "a blue box rolling on the grass", "replace"),
        ("a red ball rolling on the grass", "a blue box, rolling on the grass.", "replace"),
        ("a red ball - rolling", "a high-tech ball that rolls", "refine"),
        ("a red ball rolling", "a soft-boiled egg rolling", "refine"),  # one word more, to us
        ("a red ball rolling", "a ball", "refine"),
    ],
)
def test_prompts_are_paired_by_words_whatever_their_punctuation(tmp_path, source, target, edit):
    """And whatever pairing is chosen, the prompts allow it."""
    text = TEXT.replace("a red ball, rolling", source).replace("a blue box, rolling", target)
    found = read_config(written(tmp_path, text)).edits[2].settings.exchange
    assert found.edit == edit
    found.between(*equal_chunks([tokenize(prompt, folders.tokenizer()) for prompt in (source, target)]))


def test_the_frame_table_leaves_narrow_levels_alone(tmp_path):
    from editors.map_levels import attention_sites

    with torch.device("meta"):
        unet = UNet(SD1_UNET)
    config = read_config(written(tmp_path, TEXT))
    table = frame_table(unet, config.entries, config.least)
    assert table.entries == ("middle", -1)
    assert {site.level for site in attention_sites(unet) if table.sites(site)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("said", "entries"),
    [
        ("", None),
        ("model_config:\n", None),  # as in config/style/rabit_pokemon.yaml, where all that is under it is commented out
        ("model_config:\n    lora: 160\n", (-1, "first")),
        ("model_config:\n    SparseCausalAttention_index: [0, 'mid']\n", (0, "middle")),
    ],
)
def test_a_model_config_without_a_table_means_the_authors_own(tmp_path, said, entries):
    start, rest = TEXT.split("model_config:\n")
    config = read_config(written(tmp_path, start + said + rest[rest.index("test_pipeline_config") :]))
    assert (config.entries, config.least) == (entries, 0)


def test_a_file_that_tunes_is_told_from_one_that_edits(tmp_path):
    """As the authors' config/tune/*.yaml, which have keys of their own besides."""
    start, rest = TEXT.split("    p2p_config:\n")
    text = start + rest[rest.index("    clip_length") :] + "train_steps: 1000\ngradient_checkpointing: True\n"
    with pytest.raises(InputError, match="tunes a model of FateZero's authors"):
        read_config(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "self_replace_steps: 0.9",
            "self_replace_step: 0.9",
            r"p2p_config.0.self_replace_step is not a key .*did you mean editing_config.p2p_config.0.self_replace_steps\?",
        ),
        ("guidance_scale", "guidance", r"editing_config.guidance is not a key .*editing_config.guidance_scale\?"),
        ("disk_store", "disc_store", r"disc_store is not a key .*did you mean disk_store\?"),
        ("        2:\n", "        3:\n", "no entry 2 for the prompt 'a blue box, rolling'"),
        ("use_inversion_attention: true", "use_inversion_attention: false", "use_inversion_attention: .* True"),
        ("            self_replace_steps: 0.8\n", "", "p2p_config.1.self_replace_steps is missing"),
        ("self_replace_steps: 0.9", "self_replace_steps: often", "p2p_config.0.self_replace_steps: .* number"),
        ("seed: 3", "seed: [", "is not YAML"),
    ],
)
def test_a_wrong_file_is_named_by_its_key(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        read_config(written(tmp_path, TEXT.replace(old, new)))


def test_another_target_takes_the_settings_of_its_entry_or_of_the_last(tmp_path):
    path = written(tmp_path, TEXT)
    (style,) = read_config(path, target="a drawing of a red ball, rolling").edits
    assert style == read_config(path).edits[1]
    (other,) = read_config(path, source="one red ball", target="one green box").edits
    assert (other.prompt, other.settings.blend, other.settings.exchange.selfs) == (
        "one green box",
        ("red", "ball", "box"),
        0.5,
    )
