"""The recipe of a text tower whose states tell every word apart, from captions alone.

A tower that learnt from pictures gives its room to what pictures show first: in the miniature's, captions that differ in a colour were 13 apart at
that word's state (of a length of 11.6), those that differ in a shape 2.5, in "left" and "right" 2.2 at this word and 0.1 behind it. Layers that read
such states hear a colour in minutes and a direction not at all. Here every state has to show the words before it, its own and the two before it, and
the states behind a caption what it says of each object, all through directions of length one, so that nothing can do with less room.

A linear map from the new states to the old is learnt along and fitted at the end. Folded into what reads them (the UNet's keys and values of text,
the image tower's projection), it keeps those working as they did.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import videogen.foreign

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from videogen.models.folder import load_unet
from videogen.shapes import parse, sample, world
from videogen.shapes.captions import image_captions, plain
from videogen.training import Offer
from videogen.training.config import Strict
from videogen.training.recipe import JUDGE_SEED, Draw, Thunk

BACK = 3  # a state shows its own word and the two before it
SLOTS: dict[str, tuple[str, ...]] = {
    **{f"{name} {number}": values for number in (0, 1) for name, values in (
        ("shape", world.SHAPES), ("colour", tuple(world.COLOURS)), ("size", world.SIZES), ("motion", world.MOTIONS),
    )},
    "background": tuple(world.BACKGROUNDS), "relation": world.RELATIONS, "style": world.STYLES, "camera": world.CAMERAS,
}  # fmt: skip
PAIRS = {"colour": (0, 1), "shape": (0, 1), "motion": (1, 2)}  # indices of two values that are one word each


class Settings(Strict):
    """The model whose tower goes on, and the batch."""

    model: Path = Path("videogen/shapes/miniature")
    captions: int = 96
    scale: float = 1.5  # of logits: the larger, the less room a word needs
    keep: float = 4.0  # how much it counts that the old states can be told
    judged: int = 256


class Batch(NamedTuple):
    """Ids `b 77`, which words stand at or before each place `b 77 v`, which places lie behind the caption's words `b 77`, slots' classes `b s`."""

    ids: Tensor
    said: Tensor
    behind: Tensor
    slots: Tensor


class Tower(nn.Module):
    """The tower, and the heads that only training needs: unit directions of words at several distances, of words said, of slots' values."""

    def __init__(self, text: CLIPTextModel, width: int, vocabulary: int) -> None:
        super().__init__()
        self.text = text
        self.words = nn.Parameter(torch.randn(BACK, vocabulary, width))
        self.said = nn.Parameter(torch.randn(vocabulary, width))
        self.rare = nn.Parameter(torch.full((vocabulary,), -3.0))
        self.slots = nn.ParameterList([torch.randn(len(values) + 1, width) for values in SLOTS.values()])
        self.old = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.old.weight)

    def states(self, ids: Tensor) -> Tensor:
        """`b n` -> `b n d`, as cross-attention reads them."""
        found: Tensor = self.text(input_ids=ids).last_hidden_state
        return found


class Words:
    """Trains the text tower of a model on captions; exports it, and the parts that read it, translated."""

    root: Tower
    before: nn.Module

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, device: torch.device) -> Mapping[str, Sequence[nn.Parameter]]:
        """The model's tower, to go on from, and a frozen copy of it."""
        self.device, folder = device, self.settings.model
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.before = copy.deepcopy(text).to(device).requires_grad_(False)
        self.root = Tower(text, text.config.hidden_size, len(self.tokenizer)).to(device)
        return {"tower": list(self.root.parameters())}

    def batches(self, draws: Iterator[Draw]) -> Iterator[Batch]:
        """Captions of clips and of stills, half each."""
        for draw in draws:
            generator = draw.generator("captions")
            half = self.settings.captions // 2
            told = sample(half, generator=generator).captions(generator)
            told += image_captions(sample(half, generator=generator), generator)
            yield self.batch(told[draw.share(2 * half)])

    def batch(self, captions: Sequence[str]) -> Batch:
        """What the states of captions are to show."""
        ids = self.tokens(captions)
        said = F.one_hot(ids, len(self.tokenizer)).cummax(1).values
        ends = ids == self.tokenizer.eos_token_id
        slots = torch.tensor([_classes(caption) for caption in captions])
        return Batch(ids, said.float(), ends, slots.to(self.device))

    def tokens(self, captions: Sequence[str]) -> Tensor:
        """Ids `b 77`, padded with the end token as they are for a UNet."""
        ids: Tensor = self.tokenizer(
            list(captions), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        return ids.to(self.device)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Thunk]]:
        """Words said, words near, slots, and the error of the old states, as a share of their variance."""

        def thunk() -> dict[str, Tensor]:
            states = self.root.states(batch.ids).float()
            inside = ~batch.behind
            said = F.binary_cross_entropy_with_logits(
                self._shown(states, self.root.said) + self.root.rare, batch.said, reduction="none"
            ).sum(-1)
            said = said[inside].mean() + said[batch.behind].mean()
            near = states.new_zeros(())
            for back in range(BACK):
                logits = self._shown(states[:, back:], self.root.words[back])
                there = inside[:, back:]
                near = near + F.cross_entropy(logits[there], batch.ids[:, : states.shape[1] - back][there])
            slots = torch.stack([
                F.cross_entropy(self._shown(states[batch.behind], head), batch.slots[:, number, None].expand_as(batch.ids)[batch.behind])
                for number, head in enumerate(self.root.slots)
            ]).sum()  # fmt: skip
            old = self.before(input_ids=batch.ids).last_hidden_state.float()
            kept = (self.root.old(states).float() - old).square().mean() / old.var(0).mean()
            parts = {"said": said, "near": near, "slots": slots, "kept": kept}
            return {"loss": said + near + slots + self.settings.keep * kept, **parts}

        yield "tower", thunk

    def _shown(self, states: Tensor, directions: Tensor) -> Tensor:
        return self.settings.scale * states @ F.normalize(directions.float(), dim=-1).T

    def judge(self) -> dict[str, float]:
        """How far apart two captions' states are that differ in one word: on average at the word, and behind the caption; and what is kept."""
        scenes = sample(
            self.settings.judged, generator=Draw(JUDGE_SEED, 0).generator("captions"), split="test", objects=1
        )
        figures = {}
        for name, (first, second) in PAIRS.items():
            ids, other = (
                self.tokens(plain(scenes.change(**{name: torch.full_like(getattr(scenes, name), value)})))
                for value in (first, second)
            )
            apart = (self.root.states(ids) - self.root.states(other)).float().norm(dim=-1)
            figures[f"{name}_at_the_word"] = float(apart[ids != other].mean())
            figures[f"{name}_behind"] = float(apart[ids == self.tokenizer.eos_token_id].mean())
        return figures | {"lost": self._lost(self.fitted(512), 512)}

    @torch.no_grad()
    def fitted(self, count: int) -> Tensor:
        """The linear map from new to old states, `d d`, that fits best over so many captions."""
        width = self.root.old.weight.shape[0]
        square, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for new, old in self._pairs(count, 1):
            square += new.T @ new
            cross += new.T @ old
        ridge = 1e-6 * square.diagonal().mean() * torch.eye(width, dtype=torch.float64)
        return torch.linalg.solve(square + ridge, cross).T.float()

    def _lost(self, translate: Tensor, count: int) -> float:
        """The share of the old states' variance that the map does not tell, over other captions."""
        error, spread = 0.0, 0.0
        for new, old in self._pairs(count, 2):
            error += float((new @ translate.double().T - old).square().sum())
            spread += float((old.unflatten(0, (-1, 77)) - old.unflatten(0, (-1, 77)).mean(0)).square().sum())
        return error / spread

    def _pairs(self, count: int, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = Draw(JUDGE_SEED, number).generator("captions")
        for _ in range(count // 64):
            ids = self.tokens(sample(64, generator=generator).captions(generator))
            new, old = self.root.states(ids), self.before(input_ids=ids).last_hidden_state
            yield new.flatten(0, 1).double().cpu(), old.flatten(0, 1).double().cpu()

    def export(self, folder: Path) -> None:
        """`text_encoder/`; and, where the model has them, `unet/` and `image_encoder/`, which read the new states as they read the old."""
        from videogen.training.image import write_unet

        self.root.text.float().save_pretrained(folder / "text_encoder")
        translate, model = self.fitted(2048).to(self.device), self.settings.model
        if (model / "unet").is_dir():
            unet = load_unet(model / "unet", torch.float32).to(self.device)
            with torch.no_grad():
                for name, weight in unet.named_parameters():
                    if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
                        weight.copy_(weight @ translate)
            write_unet(unet, folder / "unet")
        if (model / "image_encoder").is_dir():
            image = CLIPVisionModelWithProjection.from_pretrained(model / "image_encoder", dtype=torch.float32)
            with torch.no_grad():
                projection = image.visual_projection.weight
                projection.copy_(translate.cpu().T @ projection)
            image.save_pretrained(folder / "image_encoder")


def offer() -> Offer:
    """The recipe `words`, as `videogen train` finds it (entry point group `videogen.recipes`)."""
    return Offer(Settings, Words)


def _classes(caption: str) -> list[int]:
    """The class of every slot; 0 where the caption says nothing."""
    wanted = parse(caption)
    said: dict[str, str | None] = {
        "background": wanted.background, "relation": wanted.relation, "style": wanted.style, "camera": wanted.camera,
    }  # fmt: skip
    for number, one in enumerate(wanted.objects):
        said |= {f"{name} {number}": getattr(one, name) for name in ("shape", "colour", "size", "motion")}
    return [0 if (value := said.get(slot)) is None else 1 + values.index(value) for slot, values in SLOTS.items()]
