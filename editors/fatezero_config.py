"""The configuration files of FateZero's authors (config/style, attribute, shape, teaser/*.yaml), their key names and spellings included."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from editors.alignment import word_count
from editors.fatezero import Settings
from editors.map_fusion import Exchange
from videogen.errors import InputError
from videogen.frame_choice import Entry
from videogen.models.prompt import parse
from videogen.training.config import Strict, load

Share = float | tuple[float, float]
Phrases = str | tuple[str, ...]

_OWN_PROMPT = "${dataset_config.prompt}"  # the one reference that the authors' files use


class Equalizer(Strict):
    """`eq_params`: how much words of the target count."""

    words: tuple[str, ...] = ()
    values: tuple[float, ...] = ()


class Change(Strict):
    """One entry of `p2p_config`. The last two keys change no edit."""

    cross_replace_steps: Share | dict[str, Share]
    self_replace_steps: Share
    is_replace_controller: bool = True
    eq_params: Equalizer | None = None
    blend_words: tuple[Phrases, ...] | Literal["None"] | None = None
    blend_self_attention: bool = False
    blend_latents: bool = False
    blend_th: float | tuple[float, ...] = (0.3, 0.3)
    use_inversion_attention: bool = True
    save_self_attention: bool = True


class Dataset(Strict):
    """`dataset_config`: the clip, what it shows, and how the authors take frames from it."""

    path: str
    prompt: str
    start_sample_frame: int = 0
    n_sample_frame: int = Field(8, gt=0)
    sampling_rate: int = Field(1, gt=0)
    stride: int = 1
    offset: dict[str, int] = Field({})
    class_data_root: Any = None
    class_prompt: Any = None


class Editing(Strict):
    """`editing_config`. The last block is read by the authors' display and changes no edit."""

    use_inversion_attention: Literal[True]
    editing_prompts: tuple[str, ...] = Field(min_length=1)
    p2p_config: dict[int, Change]
    source_prompt: str | None = None
    guidance_scale: float = 7.0
    num_inference_steps: int = Field(20, gt=0)

    use_invertion_latents: Any = None
    clip_length: Any = None
    sample_seeds: Any = None
    prompt2prompt_edit: Any = None
    annotate: Any = None
    num_samples_per_prompt: Any = None
    use_make_grid: Any = None
    traverse_p2p_config: Any = None
    strength: Any = None

    @model_validator(mode="after")
    def _all_there(self) -> Editing:
        for i, prompt in enumerate(self.editing_prompts):
            if i not in self.p2p_config:
                raise ValueError(f"p2p_config has no entry {i} for the prompt {prompt!r}")
        return self


class Model(Strict):
    """`model_config`. `lora` is a tuned model's, which brings it itself (`motion_modules.fatezero_folder`).

    `temporal_downsample_time: n` halves the frames on the n - 1 innermost levels that halve the picture, and doubles them again on the way out.
    """

    SparseCausalAttention_index: tuple[int | Literal["mid", "middle", "first", "last"], ...] = (-1, "first")
    least_sc_channel: int = 0
    lora: Any = None
    temporal_downsample_time: int | None = Field(None, ge=0)


class File(Strict):
    """A whole file. The last block is read by the authors' training or display and changes no edit."""

    pretrained_model_path: str
    dataset_config: Dataset
    editing_config: Editing
    net: Model = Field(Model(), alias="model_config")  # pydantic keeps that name for itself
    disk_store: bool = False
    seed: int | None = None

    test_pipeline_config: Any = None
    trainer_pipeline_config: Any = None
    train_dataset: Any = None
    validation_sample_logger: Any = None
    logdir: Any = None
    verbose: Any = None
    mixed_precision: Any = None
    enable_xformers: Any = None
    train_steps: Any = None
    use_invertion_latents: Any = None
    use_inversion_attention: Any = None

    @field_validator("net", mode="before")
    @classmethod
    def _standing(cls, value: object) -> object:
        """One of the authors' files has the key with nothing but comments under it."""
        return {} if value is None else value


@dataclasses.dataclass(frozen=True)
class Edit:
    """One of a configuration's edits."""

    prompt: str
    settings: Settings


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration, read.

    model     `pretrained_model_path`
    clip      `dataset_config.path`, with how the authors sample it: `start_sample_frame`, `n_sample_frame`, `sampling_rate`, ...
    source    the source prompt
    edits     one for each of `editing_prompts`
    steps, guidance_scale, seed
    entries   of the frame table, None where the file has no `model_config`; `least` is the width from which on it holds (narrower levels read
              their own frame)
    disk      `disk_store`: maps are held on disk
    halves    `temporal_downsample_time` asks for a network that halves the frames, which none does here
    """

    model: str
    clip: str
    sampling: Mapping[str, Any]
    source: str
    edits: tuple[Edit, ...]
    steps: int
    guidance_scale: float
    seed: int
    entries: tuple[Entry, ...] | None
    least: int
    disk: bool
    halves: bool


def read_config(path: str | Path, source: str | None = None, target: str | None = None) -> Config:
    """Read a YAML file, with another source prompt in place of its own, and with one target prompt in place of all.

    A target that the file does not have takes the settings of the file's last edit.

    Raises InputError, with the path of the key, for what is unknown (the nearest that is known beside it), missing or of the wrong kind.
    """
    values = load(path)
    said = values.get("editing_config")
    if "train_steps" in values and not (isinstance(said, dict) and "p2p_config" in said):
        raise InputError(
            f"{path} tunes a model of FateZero's authors (train_steps, and no editing_config.p2p_config); such models are edited with here, not "
            "tuned: give a file that edits, and the tuned folder as --model"
        )
    try:
        file = File.model_validate(values)
    except ValidationError as problem:
        raise InputError(f"{path}: {_complaint(problem.errors())}") from problem
    data, editing, net = file.dataset_config, file.editing_config, file.net
    if source is None:
        own = editing.source_prompt
        source = data.prompt if own is None or own.strip() == _OWN_PROMPT else own
    entries = tuple("middle" if entry == "mid" else entry for entry in net.SparseCausalAttention_index)
    chosen = list(enumerate(editing.editing_prompts))
    if target is not None:
        place = next((i for i, prompt in chosen if prompt == target), len(chosen) - 1)
        chosen = [(place, target)]
    return Config(
        model=file.pretrained_model_path,
        clip=data.path,
        sampling=data.model_dump(include=data.model_fields_set - {"path", "prompt"}),
        source=source,
        edits=tuple(Edit(prompt, _settings(editing.p2p_config[i], source, prompt)) for i, prompt in chosen),
        steps=editing.num_inference_steps,
        guidance_scale=editing.guidance_scale,
        seed=file.seed or 0,
        entries=entries if net.model_fields_set else None,
        least=net.least_sc_channel,
        disk=file.disk_store,
        halves=(net.temporal_downsample_time or 0) > 1,
    )


def _settings(part: Change, source: str, target: str) -> Settings:
    swaps = part.is_replace_controller and len(source.split(" ")) == len(target.split(" "))
    # A word with a hyphen is one of theirs and two of ours; what cannot be paired here is refined.
    swaps = swaps and word_count(parse(source).text) == word_count(parse(target).text)
    cross = (
        part.cross_replace_steps
        if isinstance(part.cross_replace_steps, dict)
        else {"default_": part.cross_replace_steps}
    )
    equal = part.eq_params or Equalizer()
    words = () if part.blend_words in (None, "None") else part.blend_words
    names = [(given,) if isinstance(given, str) else given for given in words or ((), ())]
    found = [tuple(w for w in group if _has(prompt, w)) for group, prompt in zip(names, (source, target))]
    found += [()] * (2 - len(found))
    # Without a word of the source their mask is empty: all of the source's structure stays, as without blend words.
    blend = tuple(dict.fromkeys(found[0] + found[1])) if found[0] else ()
    return Settings(
        Exchange(
            "replace" if swaps else "refine",
            # A name that the prompt lacks says nothing there; the authors share one list among several prompts.
            cross={word: share for word, share in cross.items() if word == "default_" or _has(target, word)},
            selfs=part.self_replace_steps,
            weights={word: value for word, value in zip(equal.words, equal.values) if _has(target, word)},
        ),
        blend=blend,
        threshold=part.blend_th[0] if isinstance(part.blend_th, tuple) else part.blend_th,
        blend_attention=part.blend_self_attention,
        blend_latents=part.blend_latents,
    )


def _has(prompt: str, words: str) -> bool:
    return (
        bool(words.strip())
        and re.search(rf"(?<!\w){re.escape(words.strip())}(?!\w)", prompt, re.IGNORECASE) is not None
    )


# Where a key may stand, by its last name above: what is known there.
_PARTS: dict[str, type[BaseModel]] = {
    "": File, "dataset_config": Dataset, "editing_config": Editing, "model_config": Model, "eq_params": Equalizer,
}  # fmt: skip


def _complaint(errors: Sequence[Any]) -> str:
    """One line about the first of pydantic's errors; an unknown key comes before the missing one that it may stand for."""
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    *parents, last = [str(part) for part in error["loc"]] or [""]
    # of a union pydantic names the branch too, as in (..., "cross_replace_steps", "float")
    where = ".".join(
        part for part in (*parents, last) if part and not re.search(r"[\[(]|^(float|tuple|dict|str)$", part)
    )
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] != "extra_forbidden":
        return f"{where}: {str(error['msg']).removeprefix('Value error, ')}"
    part = Change if parents and parents[-1].isdigit() else _PARTS.get(parents[-1] if parents else "", Change)
    known = [field.alias or name for name, field in part.model_fields.items()]
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.4)
    advice = f"did you mean {'.'.join([*parents, near[0]])}?" if near else f"known are {', '.join(known)}"
    return f"{where} is not a key of FateZero's configurations; {advice}"
