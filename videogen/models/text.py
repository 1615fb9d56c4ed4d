"""The text side: prompts to conditions, with one text encoder or two; from model folders and into them.

Three steps with values between them, so that a method can step in at any of them: `tokenize` (string to `Words`),
`embed` (to token vectors; a learned word goes in here) and `encode` (to a `Conditioning`; what replaces encoded rows
follows it).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videogen.conditioning import Conditioning, travel
from videogen.errors import InputError, reason
from videogen.models.prompt import Prompt
from videogen.models.text_encoder import Batch, Emphasis, TextEncoder, inner
from videogen.models.weights import files
from videogen.models.weights.families import recognise
from videogen.models.weights.strict import load_state, shapes_of

if TYPE_CHECKING:
    from transformers import CLIPTextConfig, CLIPTokenizer

Travel = Mapping[int, str]


class TextSide(nn.Module):
    """All text encoders of a model: one (SD 1.x, 2.x, SDXL's refiner) or two, with their tokens side by side.

    zero_null  a missing negative prompt is zeros (SDXL's `force_zeros_for_empty_prompt`) rather than the encoded empty
               prompt
    """

    def __init__(self, encoders: Sequence[TextEncoder], *, zero_null: bool = False) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.zero_null = zero_null

    @property
    def pooled(self) -> int | None:
        """The width of vector["text"], None where no encoder pools."""
        return self._encoders()[-1].pooled

    def tokenize(
        self, prompts: Sequence[str | Prompt], second: Sequence[str | Prompt] | None = None
    ) -> tuple[Batch, ...]:
        """For each encoder one `Words` per prompt; the same number of chunks everywhere. `second` is for the second
        encoder.
        """
        batches = [encoder.tokenize(texts) for encoder, texts in zip(self._encoders(), (prompts, second or prompts))]
        chunks = max(batch[0].chunks for batch in batches)
        return tuple(tuple(words.padded(chunks) for words in batch) for batch in batches)

    def embed(self, words: Sequence[Batch]) -> tuple[Tensor, ...]:
        """For each encoder the token vectors `b n d`."""
        return tuple(encoder.embed(batch) for encoder, batch in zip(self._encoders(), words, strict=True))

    def encode(self, embedded: Sequence[Tensor], words: Sequence[Batch], clip_skip: int = 0) -> Conditioning:
        """tokens["text"] `b n d`, and vector["text"] `b d` where an encoder pools; words are the first encoder's."""
        read = [e.encode(x, batch, clip_skip) for e, x, batch in zip(self._encoders(), embedded, words, strict=True)]
        pooled = [vector for _, vector in read if vector is not None]
        return Conditioning(
            tokens={"text": torch.cat([tokens for tokens, _ in read], dim=-1)},
            vector={"text": pooled[-1]} if pooled else {},
            words=words[0],
        )

    def forward(
        self,
        prompts: str | Prompt | Travel | Sequence[str | Prompt | Travel],
        negatives: str | Prompt | Sequence[str | Prompt] | None = None,
        *,
        second: str | Sequence[str] | None = None,
        negative_second: str | Sequence[str] | None = None,
        clip_skip: int = 0,
    ) -> tuple[Conditioning, Conditioning]:
        """Encode prompts and what guidance moves away from: (given, null), b items each, equally many chunks.

        A prompt may be `{frame: text}`; then given has tokens `b k n d` (and vectors `b k d`) at the key frames of all
        prompts. One negative prompt serves all prompts; without one the null is the empty prompt, or zeros where the
        model was trained so. Raises InputError where the numbers of prompts do not match, or the model has no second
        encoder or not so many layers.

        second, negative_second   for the second encoder (diffusers' `prompt_2`); without them, or empty, it reads the same
        clip_skip                 layers left out at the end, for the prompts and, as in diffusers, not for the negative ones
        """
        listed = [prompts] if isinstance(prompts, (str, Prompt, Mapping)) else list(prompts)
        against = _for_each("" if negatives is None else negatives, listed, "negative prompts")
        travels = [_numbered(p) if isinstance(p, Mapping) else {0: p} for p in listed]
        if not all(travels):
            raise InputError("prompts by frame are empty; give at least one")
        texts = [text for keys in travels for text in keys.values()]
        if (second or negative_second) and len(self.encoders) == 1:
            raise InputError("this model has one text encoder; a second prompt belongs to those with two (SDXL)")
        others, others_against = texts, against
        if second:  # the same at every key of a prompt that travels
            each = _for_each(second, listed, "second prompts")
            others = [text for keys, text in zip(travels, each, strict=True) for _ in keys]
        if negative_second:
            others_against = _for_each(negative_second, listed, "second negative prompts")
        words = self.tokenize([*texts, *against], [*others, *others_against])
        given = self._encode([batch[: len(texts)] for batch in words], clip_skip)
        null = self._encode([batch[len(texts) :] for batch in words])
        if negatives is None and not negative_second and self.zero_null:
            null = null.replace(
                tokens={name: torch.zeros_like(v) for name, v in null.tokens.items()},
                vector={name: torch.zeros_like(v) for name, v in null.vector.items()},
            )
        if any(isinstance(p, Mapping) for p in listed):
            given = _by_frame(given, travels)
        return given, null

    def _encode(self, words: Sequence[Batch], clip_skip: int = 0) -> Conditioning:
        return self.encode(self.embed(words), words, clip_skip)

    def _encoders(self) -> list[TextEncoder]:
        return [encoder for encoder in self.encoders if isinstance(encoder, TextEncoder)]


def text_model(
    config: CLIPTextConfig, state: Mapping[str, Tensor], source: str | Path, *, pooled: bool, looks: str | None = None
) -> Any:
    """transformers' `CLIPTextModel`, or `CLIPTextModelWithProjection` where `pooled`, filled strictly from `state`.

    Names may have the prefix `text_model.` or not (files differ), and old files hold position ids, which are ignored.
    Raises InputError naming the first tensor that is missing, surplus, misshapen or not finite; `looks` is what the file
    is, in words, where `state` is a part of it.
    """
    import videogen.foreign

    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        model: Any = CLIPTextModelWithProjection(config) if pooled else CLIPTextModel(config)
    names = {name.removeprefix("text_model."): name for name in model.state_dict()}
    bare = {name.removeprefix("text_model."): v for name, v in state.items() if not name.endswith("position_ids")}
    if not pooled:
        bare.pop("text_projection.weight", None)
    looks = looks or recognise(shapes_of(state)).title
    load_state(model, {names.get(name, name): v for name, v in bare.items()}, source, looks=looks)
    embeddings = inner(model).embeddings
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # not in the state: still on meta
    return model.eval()


def text_side(encoders: Mapping[str, tuple[CLIPTokenizer, Any]], *, zero_null: bool) -> TextSide:
    """The text side of tokenizers and CLIP models by part name; a part `text_encoder_2` makes it of the SDXL kind.

    SDXL and its refiner read the last layer but one, without the final norm, and take weights in the prompt as they are.
    """
    sdxl = "text_encoder_2" in encoders
    emphasis: Emphasis = "plain" if sdxl else "original"
    return TextSide(
        [TextEncoder(t, m, skip=int(sdxl), final_norm=not sdxl, emphasis=emphasis) for t, m in encoders.values()],
        zero_null=zero_null,
    )


def load_text_side(folder: str | Path, *, dtype: torch.dtype = torch.float32, variant: str | None = None) -> TextSide:
    """The text side of a model folder in diffusers' layout. A folder with `text_encoder_2` is of the SDXL kind.

    Raises InputError where a part is missing or broken.
    """
    folder = Path(folder)
    sdxl = (folder / "text_encoder_2").is_dir()
    encoders = {}
    for suffix in ("", "_2") if sdxl else ("",):
        part = folder / f"text_encoder{suffix}"
        if sdxl and not suffix and not part.is_dir():
            continue  # the refiner reads the second encoder only
        model = _read_model(part, dtype, variant, pooled=bool(suffix))
        encoders[part.name] = (read_tokenizer(folder / f"tokenizer{suffix}"), model)
    index = folder / "model_index.json"
    settings = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    return text_side(encoders, zero_null=bool(settings.get("force_zeros_for_empty_prompt", sdxl)))


def read_tokenizer(folder: str | Path) -> CLIPTokenizer:
    """A CLIP tokenizer from its folder (`tokenizer.json`, or `vocab.json` and `merges.txt`).

    Raises InputError where that is missing or cannot be read.
    """
    import videogen.foreign

    from transformers import CLIPTokenizer

    folder = Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder} holds no tokenizer (tokenizer.json, or vocab.json and merges.txt)")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as problem:
        raise InputError(f"the tokenizer in {folder} cannot be read ({reason(problem)})") from problem


def save_text_side(side: TextSide, folder: str | Path) -> None:
    """Write `text_encoder/` and `tokenizer/` (and their `_2`) as diffusers and transformers read them.

    Tensor names carry `text_model.`, which every version of transformers reads.
    """
    for suffix, encoder in suffixed(side).items():
        part = Path(folder) / f"text_encoder{suffix}"
        config = copy.deepcopy(encoder.model.config)
        config.architectures = [type(encoder.model).__name__]
        config.save_pretrained(part)
        full = ("text_model.", "text_projection.")
        state = encoder.model.state_dict()
        files.write(
            part / "model.safetensors", {n if n.startswith(full) else f"text_model.{n}": v for n, v in state.items()}
        )
        encoder.tokenizer.save_pretrained(Path(folder) / f"tokenizer{suffix}")


def suffixed(side: TextSide) -> dict[str, TextEncoder]:
    """The encoders by the ending of their folders' names: "" and "_2"; SDXL's refiner has the second only, which pools."""
    encoders = [encoder for encoder in side.encoders if isinstance(encoder, TextEncoder)]
    endings = ("", "_2") if len(encoders) == 2 else ("",) if encoders[0].pooled is None else ("_2",)
    return dict(zip(endings, encoders, strict=True))


def _numbered(prompts: Mapping[Any, Any]) -> dict[int, Any]:
    """Prompts by frame with whole numbers as keys, which JSON has as text."""
    try:
        return {int(frame): text for frame, text in prompts.items()}
    except (TypeError, ValueError):
        raise InputError(f"prompts by frame begin at frames, which {', '.join(map(repr, prompts))} are not") from None


def _for_each(texts: Any, prompts: Sequence[Any], kind: str) -> list[Any]:
    """One text for each prompt, from one for all or a list of as many."""
    listed = [texts] if isinstance(texts, (str, Prompt)) else list(texts)
    listed = listed * len(prompts) if len(listed) == 1 else listed
    if not prompts or len(listed) != len(prompts):
        raise InputError(f"{len(prompts)} prompts but {len(listed)} {kind}; give one, or one for each")
    return listed


def _read_model(part: Path, dtype: torch.dtype, variant: str | None, *, pooled: bool) -> Any:
    import videogen.foreign

    from transformers import CLIPTextConfig

    if not (part / "config.json").is_file():
        raise InputError(f"{part}/config.json is missing; a model folder in diffusers' layout needs it")
    try:
        config = CLIPTextConfig.from_pretrained(part, local_files_only=True)
    except Exception as problem:
        raise InputError(f"{part}/config.json cannot be read ({reason(problem)})") from problem
    return text_model(config, {n: v.to(dtype) for n, v in files.read(part, variant).items()}, part, pooled=pooled)


def _by_frame(given: Conditioning, travels: Sequence[Mapping[int, Any]]) -> Conditioning:
    """From one row per key prompt to one row per item, with an axis of the key frames of all."""
    common = sorted({frame for keys in travels for frame in keys})
    ends = torch.tensor([len(keys) for keys in travels]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]

    def spread(value: Tensor) -> Tensor:
        return torch.stack(
            [travel(value[None, a:b], list(keys), common)[0] for keys, a, b in zip(travels, starts, ends, strict=True)]
        )

    return Conditioning(
        tokens={name: spread(v) for name, v in given.tokens.items()},
        vector={name: spread(v) for name, v in given.vector.items()},
        keys=dict.fromkeys({*given.tokens, *given.vector}, tuple(common)),
    )
