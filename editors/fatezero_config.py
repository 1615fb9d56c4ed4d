"""The configuration files of FateZero's authors (config/style, attribute, shape, teaser/*.yaml), their key names and spellings included."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from editors.fatezero import Settings
from editors.map_fusion import Exchange, Window
from videogen.errors import InputError
from videogen.frame_choice import Entry, FrameChoice
from videogen.models.unet import UNet

# What each part may hold. Keys of the second line are read by the authors' training or display and change no edit.
_KNOWN = {
    "": "pretrained_model_path dataset_config editing_config model_config disk_store seed "
    "test_pipeline_config trainer_pipeline_config train_dataset validation_sample_logger logdir verbose mixed_precision enable_xformers train_steps "
    "use_invertion_latents use_inversion_attention",
    "dataset_config": "path prompt start_sample_frame n_sample_frame sampling_rate stride offset class_data_root class_prompt",
    "editing_config": "use_invertion_latents use_inversion_attention guidance_scale source_prompt editing_prompts p2p_config num_inference_steps "
    "clip_length sample_seeds prompt2prompt_edit annotate num_samples_per_prompt use_make_grid traverse_p2p_config strength",
    "model_config": "lora SparseCausalAttention_index least_sc_channel temporal_downsample_time",
    "p2p_config": "is_replace_controller cross_replace_steps self_replace_steps eq_params blend_words blend_self_attention blend_latents blend_th "
    "use_inversion_attention save_self_attention",
}
_NAMES: dict[str, Entry] = {"mid": "middle", "middle": "middle", "first": "first", "last": "last"}


@dataclasses.dataclass(frozen=True)
class Edit:
    """One of a configuration's edits."""

    prompt: str
    settings: Settings


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration, read.

    model     `pretrained_model_path`
    clip      `dataset_config.path`, with how it is sampled: `start_sample_frame`, `n_sample_frame`, `sampling_rate`, `stride`, `offset`
    source    the source prompt
    edits     one for each of `editing_prompts`
    steps, guidance_scale, seed
    entries   of the frame table, and `least`, the width from which on it holds (narrower levels read their own frame)
    disk      `disk_store`: maps are held on disk
    """

    model: str
    clip: str
    sampling: Mapping[str, Any]
    source: str
    edits: tuple[Edit, ...]
    steps: int
    guidance_scale: float
    seed: int
    entries: tuple[Entry, ...]
    least: int
    disk: bool

    def frames(self, unet: UNet) -> FrameChoice:
        """The frame table for a network."""
        channels = unet.config.channels
        return FrameChoice(self.entries, sites=lambda site: channels[site.level] >= self.least)


def read_config(path: str | Path) -> Config:
    """Read a YAML file. Raises InputError, with the path of the key, for what is unknown, missing or of the wrong kind."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise InputError(f"{path} cannot be read as YAML: {str(problem).splitlines()[0]}") from problem
    try:
        return _config(tree)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        reason = f"{problem} is missing" if isinstance(problem, KeyError) else str(problem)
        raise InputError(f"{path} is no configuration of FateZero: {reason}") from problem


def _config(tree: Mapping[str, Any]) -> Config:
    data, editing = tree["dataset_config"], tree["editing_config"]
    model = tree.get("model_config") or {}
    for part, name in ((tree, ""), (data, "dataset_config"), (editing, "editing_config"), (model, "model_config")):
        _check(part, name, name)
    if not editing.get("use_inversion_attention", False):
        raise InputError("editing_config.use_inversion_attention must be true: attention comes from the inversion here")
    source = _plain(editing.get("source_prompt"), data) or data["prompt"]
    prompts = [str(prompt) for prompt in editing["editing_prompts"]]
    parts = editing["p2p_config"]
    lacking = [i for i in range(len(prompts)) if i not in parts]
    if lacking:
        raise InputError(f"editing_config.p2p_config has no entry {lacking[0]} for the prompt {prompts[lacking[0]]!r}")
    edits = [Edit(prompt, _settings(parts[i], source, prompt, f"p2p_config.{i}")) for i, prompt in enumerate(prompts)]
    sampling = {
        key: data[key]
        for key in ("start_sample_frame", "n_sample_frame", "sampling_rate", "stride", "offset")
        if key in data
    }
    entries = model.get("SparseCausalAttention_index", [-1, "first"])
    return Config(
        model=str(tree["pretrained_model_path"]),
        clip=str(data["path"]),
        sampling=sampling,
        source=str(source),
        edits=tuple(edits),
        steps=int(editing.get("num_inference_steps", 20)),
        guidance_scale=float(editing.get("guidance_scale", 7.0)),
        seed=int(tree.get("seed") or 0),
        entries=tuple(_NAMES.get(entry, entry) for entry in entries),
        least=int(model.get("least_sc_channel", 0)),
        disk=bool(tree.get("disk_store", False)),
    )


def _settings(part: Mapping[str, Any], source: str, target: str, where: str) -> Settings:
    _check(part, "p2p_config", where)
    swaps = part.get("is_replace_controller", True) and len(source.split(" ")) == len(target.split(" "))
    cross = part["cross_replace_steps"]
    cross = cross if isinstance(cross, Mapping) else {"default_": cross}
    equal = part.get("eq_params") or {"words": (), "values": ()}
    words = part.get("blend_words")
    words = None if words == "None" else words
    threshold = part.get("blend_th", (0.3, 0.3))
    names = [[given] if isinstance(given, str) else list(given) for given in words or ((), ())]
    found = [tuple(w for w in group if _has(prompt, w)) for group, prompt in zip(names, (source, target))]
    found += [()] * (2 - len(found))
    # Without a word of the source their mask is empty: all of the source's structure stays, as without blend words.
    blend = tuple(dict.fromkeys(found[0] + found[1])) if found[0] else ()
    return Settings(
        Exchange(
            "replace" if swaps else "refine",
            # A name that the prompt lacks says nothing there; the authors share one list among several prompts.
            cross={word: _window(w) for word, w in cross.items() if word == "default_" or _has(target, word)},
            selfs=_window(part["self_replace_steps"]),
            weights={word: float(v) for word, v in zip(equal["words"], equal["values"]) if _has(target, word)},
        ),
        blend=blend,
        threshold=float(threshold[0] if isinstance(threshold, (list, tuple)) else threshold),
        blend_attention=bool(part.get("blend_self_attention", False)),
        blend_latents=bool(part.get("blend_latents", False)),
    )


def _window(value: Any) -> Window:
    return (float(value[0]), float(value[1])) if isinstance(value, (list, tuple)) else float(value)


def _has(prompt: str, words: str) -> bool:
    return (
        bool(words.strip())
        and re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", prompt, re.IGNORECASE) is not None
    )


def _plain(value: Any, data: Mapping[str, Any]) -> str | None:
    """A text, with the one reference that the authors' files use resolved."""
    return data["prompt"] if isinstance(value, str) and value.strip() == "${dataset_config.prompt}" else value


def _check(part: Mapping[str, Any], kind: str, where: str) -> None:
    if not isinstance(part, Mapping):
        raise InputError(f"{where or 'the configuration'} must be a mapping of keys to values")
    unknown = sorted(str(key) for key in part if str(key) not in _KNOWN[kind].split())
    if unknown:
        raise InputError(f"{f'{where}.' if where else ''}{unknown[0]} is not a key of FateZero's configurations")
