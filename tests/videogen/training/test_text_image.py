"""The contrastive loss against its definition, what a caption's hiding does, and that transformers reads the export."""

from pathlib import Path

import pytest
import torch

from videogen.training.recipe import Draw
from videogen.training.text_image import Settings, TextImage, contrast


@pytest.fixture(scope="module")
def recipe() -> TextImage:
    made = TextImage(
        Settings(width=16, layers=1, heads=2, image_width=16, image_layers=1, stills=3, clips=2, captions=4)
    )
    made.prepare(torch.device("cpu"))
    return made


def test_contrast_of_agreeing_and_of_equal_pairs() -> None:
    codes = torch.eye(4)
    none = torch.zeros(4, 4, dtype=torch.bool)
    expected = -torch.log_softmax(torch.tensor([5.0, 0, 0, 0]), 0)[0]
    assert torch.allclose(contrast(codes, codes, torch.tensor(5.0), none), expected)
    # Captions that read alike are no negatives: where all do, nothing is left to tell apart.
    assert contrast(codes, codes.flip(0), torch.tensor(5.0), torch.ones(4, 4, dtype=torch.bool)) == 0


def test_exactly_one_telling_word_is_hidden_and_said_words_are_in_the_caption(recipe: TextImage) -> None:
    ids = recipe.tokens(["a red circle moving left on a black background", "a star"])
    masked, words = recipe._hide(ids, torch.Generator().manual_seed(0))
    assert ((masked != ids).sum(1) == 1).all()
    assert (masked[masked != ids] == recipe._mask).all()
    told = {recipe.tokenizer.convert_tokens_to_ids(f"{word}</w>") for word in ("red", "circle", "left", "black")}
    assert int(words[0]) in told
    assert set(recipe._said(ids)[0].nonzero()[:, 0].tolist()) == told


def test_padding_changes_nothing_before_the_end(recipe: TextImage) -> None:
    short = recipe.tokens(["a red star"])
    long = recipe.tokens(["a red star", "a video of a small blue circle growing on a gray background"])
    assert torch.allclose(recipe.root.embed_text(short), recipe.root.embed_text(long)[:1], atol=1e-5)


def test_all_parameters_learn_and_the_export_is_read_by_transformers(recipe: TextImage, tmp_path: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

    (batch,) = recipe.batches(iter([Draw(0, 0)]))
    ((group, thunk),) = recipe.losses(batch)
    thunk()["loss"].backward()
    assert group == "towers"
    silent = {name for name, p in recipe.root.named_parameters() if p.grad is None}
    assert silent == {"image.vision_model.embeddings.position_ids"} & silent
    recipe.export(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    image = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "image_encoder")
    ids = tokenizer(["a red star"], return_tensors="pt").input_ids
    assert text.dtype == torch.float32
    assert torch.allclose(text(ids).pooler_output, recipe.root.embed_text(ids))
    pixels = batch.stills[:, 0]
    assert torch.allclose(image(pixels).image_embeds, recipe.root.embed_frames(batch.stills), atol=1e-5)
