"""One of CLIP's text encoders (Radford et al. 2021) as transformers has it: words to token vectors, and these through its layers.

Stable Diffusion 1.x and 2.x (Rombach et al. 2022) read the last layer behind the final norm, SDXL (Podell et al. 2023) the last layer but one of two
encoders, and the second one's pooled vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from videogen.errors import InputError
from videogen.models.prompt import Prompt
from videogen.models.words import Words, equal_chunks, tokenize

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

Emphasis = Literal["original", "plain"]
Batch = tuple[Words, ...]


class TextEncoder(nn.Module):
    """One tokenizer and its CLIP text model.

    model       `CLIPTextModel`, or `CLIPTextModelWithProjection` where a pooled vector is wanted
    skip        how many layers from the end are left out (SD: 0, SDXL: 1)
    final_norm  whether the model's final layer norm is applied to the layer that is read (SD: yes, SDXL: no)
    emphasis    how weights act on the encoded tokens: "original" keeps each chunk's mean, "plain" only multiplies
    """

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        model: CLIPTextModel | CLIPTextModelWithProjection,
        *,
        skip: int = 0,
        final_norm: bool = True,
        emphasis: Emphasis = "original",
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.model = model
        self.skip = self._skipped(skip)
        self.final_norm = final_norm
        self.emphasis: Emphasis = emphasis
        self.length = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))

    @property
    def width(self) -> int:
        """The width of the encoded tokens."""
        return int(self.model.config.hidden_size)

    def tokenize(self, prompts: Sequence[str | Prompt]) -> Batch:
        """One `Words` per prompt, all of the same number of chunks."""
        return equal_chunks([tokenize(prompt, self.tokenizer, self.length) for prompt in prompts])

    def embed(self, words: Sequence[Words]) -> Tensor:
        """The token vectors, positions not yet added: `b n d`, n = chunks * length."""
        table: Any = self.model.get_input_embeddings()
        return table(_ids(words).to(table.weight.device))

    @property
    def pooled(self) -> int | None:
        """The width of the pooled vector, None where the model has no projection."""
        return int(self.model.config.projection_dim) if hasattr(self.model, "text_projection") else None

    def encode(self, embedded: Tensor, words: Sequence[Words], clip_skip: int = 0) -> tuple[Tensor, Tensor | None]:
        """Run the encoder over every chunk by itself: the tokens `b n d`, and the first chunk's pooled vector `b d`.

        The vector is None where the model has no projection. `clip_skip` leaves out so many layers more for the tokens;
        the vector is of the last in any case.
        """
        skip = self._skipped(self.skip + clip_skip)
        layers = self._layers(rearrange(embedded, "b (k n) d -> (b k) n d", n=self.length))
        norm = inner(self.model).final_layer_norm
        read = layers[len(layers) - 1 - skip]
        tokens = rearrange(norm(read) if self.final_norm else read, "(b k) n d -> b k n d", b=len(words))
        tokens = rearrange(self._emphasize(tokens, words), "b k n d -> b (k n) d")
        projection = getattr(self.model, "text_projection", None)
        if projection is None:
            return tokens, None
        first = rearrange(layers[-1], "(b k) n d -> b k n d", b=len(words))[:, 0]
        ends = torch.tensor([w.ids[0].index(w.blank[1]) for w in words], device=first.device)
        return tokens, projection(norm(first[torch.arange(len(words), device=first.device), ends]))

    def _skipped(self, skip: int) -> int:
        layers = self.model.config.num_hidden_layers
        if not 0 <= skip <= layers:
            raise InputError(f"the text encoder has {layers} layers, {skip} of them cannot be skipped")
        return skip

    def _layers(self, embedded: Tensor) -> list[Tensor]:
        """The embeddings and every layer's output for chunks `b n d`.

        This is the model's own forward from the token vectors on; its `forward` takes ids only.
        """
        import videogen.foreign

        from transformers.masking_utils import create_causal_mask

        model = inner(self.model)
        h = model.embeddings(inputs_embeds=embedded)
        mask = create_causal_mask(config=model.config, inputs_embeds=h, attention_mask=None, past_key_values=None)
        layers = [h]
        for layer in model.encoder.layers:
            layers.append(layer(layers[-1], mask, is_causal=True))
        return layers

    def _emphasize(self, tokens: Tensor, words: Sequence[Words]) -> Tensor:
        """Weigh the encoded tokens `b k n d`. A prompt without weights stays as it is, bit for bit, in any batch."""
        rows = [i for i, w in enumerate(words) if w.weighted]
        if not rows:
            return tokens
        weights = torch.tensor([words[i].weights for i in rows], dtype=tokens.dtype, device=tokens.device)
        before = tokens[rows]
        after = before * weights[..., None]
        if self.emphasis == "original":
            changed = (weights != 1).any(-1)[..., None, None]
            kept = before.mean((-2, -1), keepdim=True) / after.mean((-2, -1), keepdim=True)
            after = torch.where(changed, after * kept, before)
        tokens = tokens.clone()
        tokens[rows] = after
        return tokens


def _ids(words: Sequence[Words]) -> Tensor:
    return torch.tensor([[i for row in w.ids for i in row] for w in words])


def inner(model: Any) -> Any:
    """The part with embeddings, layers and final norm: the model, or what a model with a projection wraps."""
    return model.text_model if hasattr(model, "text_model") else model
