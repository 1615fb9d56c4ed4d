"""The recipe of the miniature's CLIP pair: a text and an image tower that agree (Radford et al. 2021), on stills and on clips.

With AnimateDiff only the frozen image layers tell the motion module what the text says, so the text tower must keep motion words apart. Four
losses: contrast of captions against stills; contrast of captions against clips, whose code is the average of the frames' codes plus a small head
on their differences; a masked word, read from the caption without it and the clip together; and recall, all telling words of a caption read from its
end token alone, without which "left" and "right" were told apart at their own token only. The heads are for training only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import videogen.foreign

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from videogen.shapes import render, sample
from videogen.shapes.captions import plain, vocabulary
from videogen.shapes.world import FRAMES, MOTIONS, SHAPES, SIZE, Scenes
from videogen.training.checkpoints import read
from videogen.training.config import Strict
from videogen.training.recipe import JUDGE_SEED, Draw, Thunk
from videogen.training.tokenizer import COMMON, write_tokenizer

MASK = "#"  # no caption has it
FUNCTION_WORDS = frozenset("a an and background getting in is moving not of on out the to video ,".split())

# The file of transformers' CLIPImageProcessor, written by hand: building one wants torchvision.
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": SIZE}, "resample": 3, "do_center_crop": True,
    "crop_size": {"height": SIZE, "width": SIZE}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_convert_rgb": True,
}  # fmt: skip


class Settings(Strict):
    """Sizes of the two towers, and the batch."""

    width: int = 128  # of the text tower, and of the common space
    layers: int = 3
    heads: int = 4
    image_width: int = 96
    image_layers: int = 4
    patch: int = 16
    stills: int = 64  # in a batch
    clips: int = 64
    captions: int = Field(128, gt=0)  # more captions in a batch, without pictures, for recall alone
    frames: tuple[int, ...] = (0, 7, 15)  # of a clip that are looked at
    start: Path | None = None  # a checkpoint of an earlier run whose averaged weights are the beginning
    judged: int = 256


class Batch(NamedTuple):
    """Pixels `b f 3 h w` in [-1, 1] (f = 1 for stills), captions' ids `b n`, the same with one word masked, that
    word's id `b`, captions without pictures, and which telling words they have, `c v` in {0, 1}.
    """

    stills: Tensor
    clips: Tensor
    still_ids: Tensor
    clip_ids: Tensor
    masked_ids: Tensor
    words: Tensor
    caption_ids: Tensor
    said: Tensor


class Towers(nn.Module):
    """The text and image towers, and the two heads that only training needs."""

    def __init__(self, text: CLIPTextModel, image: CLIPVisionModelWithProjection, differences: int) -> None:
        super().__init__()
        width, inner = text.config.hidden_size, image.config.hidden_size
        self.text, self.image = text, image
        self.moving = nn.Sequential(
            nn.Linear((1 + differences) * inner, 4 * inner), nn.GELU(), nn.Linear(4 * inner, width)
        )
        self.word = nn.Sequential(
            nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, text.config.vocab_size)
        )
        self.recall = nn.Linear(width, text.config.vocab_size)
        nn.init.constant_(self.recall.bias, -5.0)  # nearly no word is in a caption
        self.temperature = nn.Parameter(torch.tensor(2.3))

    def embed_text(self, ids: Tensor) -> Tensor:
        """ids `b n` -> the state at the end token, `b d`."""
        return self.text(input_ids=ids).pooler_output

    def embed_frames(self, clips: Tensor) -> Tensor:
        """`b f 3 h w` -> `b d`: the mean of the frames' codes; a clip's also has what the differences to its first frame tell."""
        b, f = clips.shape[:2]
        pooled = self.image.vision_model(clips.flatten(0, 1)).pooler_output.unflatten(0, (b, f))
        mean = pooled.mean(1)
        code = self.image.visual_projection(mean)
        if f == 1:
            return code
        return code + self.moving(torch.cat([mean, (pooled[:, 1:] - pooled[:, :1]).flatten(1)], 1))


def contrast(text: Tensor, image: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric cross-entropy of cosine similarities, `b d` each; pairs marked in `same` (`b b`, off the diagonal) are not told apart."""
    logits = scale * F.normalize(text.float(), dim=1) @ F.normalize(image.float(), dim=1).T
    logits = logits.masked_fill(same & ~torch.eye(len(text), dtype=torch.bool, device=text.device), float("-inf"))
    target = torch.arange(len(text), device=text.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


class TextImage:
    """Trains tokenizer's table, text tower and image tower; exports four folders."""

    root: Towers

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """A fresh tokenizer and fresh towers; everything trains."""
        s = self.settings
        with TemporaryDirectory() as folder:
            write_tokenizer(Path(folder), [*vocabulary(), *COMMON])
            self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        text = CLIPTextConfig(
            vocab_size=len(self.tokenizer), hidden_size=s.width, intermediate_size=4 * s.width, projection_dim=s.width,
            num_hidden_layers=s.layers, num_attention_heads=s.heads, max_position_embeddings=77, bos_token_id=start,
            eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        image = CLIPVisionConfig(
            hidden_size=s.image_width, intermediate_size=4 * s.image_width, num_hidden_layers=s.image_layers,
            num_attention_heads=4, image_size=SIZE, patch_size=s.patch, projection_dim=s.width,
        )  # fmt: skip
        self.device = device
        self.root = Towers(CLIPTextModel(text), CLIPVisionModelWithProjection(image), len(s.frames) - 1).to(device)
        self._mask = self.tokenizer.convert_tokens_to_ids(f"{MASK}</w>")
        self._plain_ids = {self.tokenizer.convert_tokens_to_ids(f"{word}</w>") for word in FUNCTION_WORDS} | {
            start,
            end,
        }
        if s.start:
            self.root.load_state_dict(read(s.start).averaged, strict=False)
        return {"towers": list(self.root.parameters())}

    def batches(self, draws: Iterator[Draw]) -> Iterator[Batch]:
        """Fresh scenes at every step: stills with any caption, clips with any caption."""
        s = self.settings
        for draw in draws:
            generator = draw.generator("captioned")
            still, clip = (sample(count, generator=generator) for count in (s.stills, s.clips))
            still_captions, clip_captions = still.captions(generator), clip.captions(generator)
            clip_ids = self.tokens(clip_captions)
            masked, words = self._hide(clip_ids, generator)
            still_ids = self.tokens(still_captions)
            more = self.tokens(sample(s.captions, generator=generator).captions(generator))
            more = more[draw.share(s.captions)]
            only = torch.randint(FRAMES, (s.stills, 1), generator=generator)
            a, b = draw.share(s.stills), draw.share(s.clips)
            yield Batch(
                self._pixels(still[a], only[a]),
                self._pixels(clip[b], torch.tensor(s.frames).expand(len(clip.count[b]), -1)),
                *(
                    ids.to(self.device)
                    for ids in (still_ids[a], clip_ids[b], masked[b], words[b], more, self._said(more))
                ),
            )

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """ids `b n`, padded to the longest: the tower is causal, so what stands behind the end changes nothing before it."""
        return self.tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt").input_ids

    def _pixels(self, scenes: Scenes, only: Tensor) -> Tensor:
        return render(scenes.to(self.device), only=only).frames * 2 - 1

    def _hide(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One telling word of each caption replaced by the mask: (ids `b n`, the hidden words' ids `b`)."""
        place = torch.multinomial(self._telling(ids).float() + 1e-9, 1, generator=generator)
        return ids.scatter(1, place, self._mask), ids.gather(1, place)[:, 0]

    def _said(self, ids: Tensor) -> Tensor:
        return torch.zeros(len(ids), len(self.tokenizer)).scatter_add_(1, ids, self._telling(ids).float()).clamp(max=1)

    def _telling(self, ids: Tensor) -> Tensor:
        return torch.tensor([[int(i) not in self._plain_ids for i in row] for row in ids.tolist()])

    def losses(self, batch: Batch) -> Iterator[tuple[str, Thunk]]:
        """The sum of the four losses."""

        def thunk() -> dict[str, Tensor]:
            towers = self.root
            scale = towers.temperature.exp().clamp(max=50)
            still_text, clip_text, masked = (
                towers.embed_text(ids) for ids in (batch.still_ids, batch.clip_ids, batch.masked_ids)
            )
            still, clip = towers.embed_frames(batch.stills), towers.embed_frames(batch.clips)
            stills = contrast(still_text, still, scale, _equal_rows(batch.still_ids))
            clips = contrast(clip_text, clip, scale, _equal_rows(batch.clip_ids))
            words = F.cross_entropy(towers.word(torch.cat([masked, clip], 1)).float(), batch.words)
            heard = towers.recall(towers.embed_text(batch.caption_ids)).float()
            recall = F.binary_cross_entropy_with_logits(heard, batch.said, reduction="sum") / len(heard)
            parts = {"stills": stills, "clips": clips, "words": words, "recall": recall}
            return {"loss": stills + clips + words + 0.2 * recall, **parts}

        yield "towers", thunk

    def judge(self) -> dict[str, float]:
        """On unseen scenes: top-1 among all captions for stills and clips, and the right one of eight motion words in the full caption."""
        s = self.settings
        scenes = sample(s.judged, generator=Draw(JUDGE_SEED, 0).generator("pairs"), split="test")
        captions = plain(scenes)
        clips = torch.cat(
            [self.root.embed_frames(self._pixels(part, torch.tensor(s.frames))) for part in _parts(scenes)]
        )
        stills = torch.cat([self.root.embed_frames(self._pixels(part, torch.tensor([8]))) for part in _parts(scenes)])
        text = self._code(captions)
        return {
            "top1_stills": _top1(text, stills, captions),
            "top1_clips": _top1(text, clips, captions),
            "motion_of_8": self._motion_of_8(scenes, clips),
        }

    def _code(self, captions: Sequence[str]) -> Tensor:
        return torch.cat(
            [
                self.root.embed_text(self.tokens(captions[i : i + 256]).to(self.device))
                for i in range(0, len(captions), 256)
            ]
        )

    def _motion_of_8(self, scenes: Scenes, clips: Tensor) -> float:
        """Over clips of one object: how often the true motion word fits best (a circle is never offered "rotating")."""
        one = (scenes.count == 1).nonzero()[:, 0]
        scenes, clips = scenes[one], F.normalize(clips[one.to(clips.device)], dim=1)
        scores = []
        for index in range(len(MOTIONS)):
            told = plain(scenes.change(motion=torch.full_like(scenes.motion, index)))
            scores.append((F.normalize(self._code(told), dim=1) * clips).sum(1))
        table = torch.stack(scores, 1).cpu()
        table[scenes.shape[:, 0] == SHAPES.index("circle"), MOTIONS.index("rotating")] = -2
        return float((table.argmax(1) == scenes.motion[:, 0]).float().mean())

    def export(self, folder: Path) -> None:
        """`tokenizer/`, `text_encoder/` (float32, the type transformers will take), `image_encoder/`, `feature_extractor/`."""
        write_tokenizer(folder / "tokenizer", [*vocabulary(), *COMMON])
        self.root.text.float().save_pretrained(folder / "text_encoder")
        self.root.image.float().save_pretrained(folder / "image_encoder")
        (folder / "feature_extractor").mkdir()
        (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2))


def _parts(scenes: Scenes) -> Iterator[Scenes]:
    for start in range(0, len(scenes), 64):
        yield scenes[start : start + 64]


def _equal_rows(ids: Tensor) -> Tensor:
    return (ids[:, None] == ids[None]).all(-1)


def _top1(text: Tensor, images: Tensor, captions: Sequence[str]) -> float:
    """Share of images whose nearest caption reads like their own."""
    nearest = (F.normalize(images, dim=1) @ F.normalize(text, dim=1).T).argmax(1).tolist()
    return sum(captions[i] == own for i, own in zip(nearest, captions, strict=True)) / len(captions)
