"""The text side equals diffusers' and transformers' own where they have the thing, and states its own laws where they
have not.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from videogen.conditioning import stack, travel
from videogen.errors import InputError
from videogen.models.text import TextSide, load_text_side, save_text_side
from videogen.models.text_encoder import TextEncoder
from videogen.models.weights import files

PROMPTS = ["a red circle", "a blue square, green cat"]


def config(tokenizer: CLIPTokenizer, width: int = 32) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Random biases and norms too: a fresh model's are 0 and 1 and would hide a missing one."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(0)
    return shaken(CLIPTextModel(config(tokenizer)))


@pytest.fixture(scope="module")
def sd(tokenizer: CLIPTokenizer, model: CLIPTextModel) -> TextSide:
    return TextSide([TextEncoder(tokenizer, model)])


@pytest.fixture(scope="module")
def sdxl(tokenizer: CLIPTokenizer, model: CLIPTextModel, make_tokenizer: Callable[..., CLIPTokenizer]) -> TextSide:
    second = make_tokenizer("!")
    torch.manual_seed(1)
    pooling = shaken(CLIPTextModelWithProjection(config(second, width=40)))
    encoders = [
        TextEncoder(t, m, skip=1, final_norm=False, emphasis="plain")
        for t, m in ((tokenizer, model), (second, pooling))
    ]
    return TextSide(encoders, zero_null=True)


def empty_pipeline(kind: type, side: TextSide, **parts: object):
    """diffusers' pipeline with nothing but its text side."""
    first, last = side.encoders[0], side.encoders[-1]
    if kind is StableDiffusionXLPipeline:
        parts |= {"text_encoder_2": last.model, "tokenizer_2": last.tokenizer}
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return kind(text_encoder=first.model, tokenizer=first.tokenizer, vae=None, unet=None, scheduler=None, **parts)


@pytest.mark.parametrize("negative", [None, "a green cat"])
def test_stable_diffusion_equals_diffusers(sd: TextSide, negative: str | None) -> None:
    pipe = empty_pipeline(StableDiffusionPipeline, sd)
    theirs = pipe.encode_prompt(PROMPTS, "cpu", 1, True, None if negative is None else [negative] * 2)
    given, null = sd(PROMPTS, negative)
    torch.testing.assert_close(given.tokens["text"], theirs[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(null.tokens["text"], theirs[1], rtol=0, atol=1e-6)
    assert given.tokens["text"].shape == (2, 77, 32)
    assert not given.vector


def assert_equals_sdxl(side: TextSide, ours: dict[str, object], **theirs: object) -> None:
    """Tokens and pooled vectors of both sides are those of diffusers' SDXL pipeline."""
    pipe = empty_pipeline(StableDiffusionXLPipeline, side, force_zeros_for_empty_prompt=True)
    expected = pipe.encode_prompt(PROMPTS, device="cpu", **theirs)
    given, null = side(PROMPTS, **ours)
    mine = (given.tokens["text"], null.tokens["text"], given.vector["text"], null.vector["text"])
    for found, wanted in zip(mine, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("negative", [None, "", "a green cat"])
def test_sdxl_equals_diffusers(sdxl: TextSide, negative: str | None) -> None:
    assert_equals_sdxl(sdxl, {"negatives": negative}, negative_prompt=negative)
    given, _ = sdxl(PROMPTS, negative)
    assert given.tokens["text"].shape == (2, 77, 72)
    assert given.vector["text"].shape == (2, 24)


@pytest.mark.parametrize("skip", [1, 2])
def test_skipped_layers_are_those_of_the_prompt_as_in_diffusers(
    sd: TextSide, sdxl: TextSide, skip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers' `clip_skip` leaves the negative prompt and the pooled vector alone."""
    # diffusers 0.42 looks for the name that transformers 5 has dropped
    monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda model: model), raising=False)
    theirs = empty_pipeline(StableDiffusionPipeline, sd).encode_prompt(
        PROMPTS, "cpu", 1, True, ["a green cat"] * 2, clip_skip=skip
    )
    given, null = sd(PROMPTS, "a green cat", clip_skip=skip)
    for mine, other in zip((given.tokens["text"], null.tokens["text"]), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    assert torch.equal(null.tokens["text"], sd(PROMPTS, "a green cat")[1].tokens["text"])
    assert not torch.equal(given.tokens["text"], sd(PROMPTS)[0].tokens["text"])
    ours = {"negatives": "a green cat", "clip_skip": skip}
    assert_equals_sdxl(sdxl, ours, negative_prompt="a green cat", clip_skip=skip)


@pytest.mark.parametrize("second", ["a cat", ["a cat", ""], ""])
@pytest.mark.parametrize("negative_second", [None, "grey", ["grey", "green"]])
def test_second_prompts_equal_diffusers(sdxl: TextSide, second: str | list[str], negative_second: str | None) -> None:
    theirs = {"prompt_2": second, "negative_prompt": "a green cat", "negative_prompt_2": negative_second}
    # diffusers takes lists only beside lists
    theirs = {name: [text] * 2 if isinstance(text, str) and text else text for name, text in theirs.items()}
    ours = {"negatives": "a green cat", "second": second, "negative_second": negative_second}
    assert_equals_sdxl(sdxl, ours, **theirs)


def test_a_second_negative_prompt_alone_is_not_zeros(sdxl: TextSide) -> None:
    alone, both = sdxl("a cat", negative_second="grey")[1], sdxl("a cat", "", negative_second="grey")[1]
    assert torch.equal(alone.tokens["text"], both.tokens["text"])
    assert not sdxl("a cat")[1].tokens["text"].any()


def test_a_second_prompt_stays_while_the_first_travels(sdxl: TextSide) -> None:
    given = sdxl({0: "a red circle", 2: "a blue circle"}, second="a cat")[0].at(0, range(3))
    width = sdxl.encoders[0].width
    for frame, text in ((0, "a red circle"), (2, "a blue circle")):
        assert torch.equal(given.tokens["text"][:, frame, :, :width], sdxl(text)[0].tokens["text"][..., :width])
        torch.testing.assert_close(
            given.tokens["text"][:, frame, :, width:], sdxl("a cat")[0].tokens["text"][..., width:], rtol=0, atol=1e-6
        )


def test_what_a_text_side_cannot_do_is_refused(sd: TextSide, sdxl: TextSide) -> None:
    for options in ({"second": "a"}, {"negative_second": "a"}):
        with pytest.raises(InputError, match="one text encoder"):
            sd("a cat", **options)
    with pytest.raises(InputError, match="1 prompts but 2 second prompts"):
        sdxl("a cat", second=["a", "b"])
    with pytest.raises(InputError, match="3 layers, 4 of them"):
        sdxl("a cat", clip_skip=3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("skip", [0, 1, 3])
def test_skipped_layers_are_the_models_hidden_states(tokenizer: CLIPTokenizer, attention: str, skip: int) -> None:
    torch.manual_seed(0)
    model = shaken(CLIPTextModel._from_config(config(tokenizer), attn_implementation=attention))
    ids = tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    expected = model.final_layer_norm(model(ids, output_hidden_states=True).hidden_states[-(skip + 1)])
    given, _ = TextSide([TextEncoder(tokenizer, model, skip=skip)])(PROMPTS)
    torch.testing.assert_close(given.tokens["text"], expected, rtol=0, atol=1e-6)


def test_more_layers_than_there_are_cannot_be_skipped(tokenizer: CLIPTokenizer, model: CLIPTextModel) -> None:
    with pytest.raises(InputError, match="3 layers"):
        TextEncoder(tokenizer, model, skip=4)


def test_chunks_are_ordinary_encodings_side_by_side(sd: TextSide, sdxl: TextSide) -> None:
    long = "red " * 75 + "blue circle"
    for side in (sd, sdxl):
        given, null = side(long, "a green cat")
        parts = torch.cat([side(text)[0].tokens["text"] for text in ("red " * 75, "blue circle")], dim=1)
        torch.testing.assert_close(given.tokens["text"], parts, rtol=0, atol=1e-6)
        parts = torch.cat([side(text)[0].tokens["text"] for text in ("a green cat", "")], dim=1)
        torch.testing.assert_close(null.tokens["text"], parts, rtol=0, atol=1e-6)
    assert torch.equal(sdxl(long)[0].vector["text"], sdxl("red " * 75)[0].vector["text"])


def weigh(tokens: Tensor, positions: tuple[int, ...], weight: float) -> Tensor:
    weights = torch.ones(tokens.shape[1])
    weights[list(positions)] = weight
    return tokens * weights[None, :, None]


def test_plain_weights_multiply_the_encoded_tokens(sdxl: TextSide) -> None:
    base, weighted = sdxl("a red circle")[0], sdxl("a (red:1.5) circle")[0]
    torch.testing.assert_close(
        weighted.tokens["text"], weigh(base.tokens["text"], base.words[0].where("red"), 1.5), rtol=0, atol=1e-6
    )
    assert torch.equal(weighted.vector["text"], base.vector["text"])


def test_original_weights_keep_the_mean_of_each_chunk(sd: TextSide) -> None:
    text = "red " * 75 + "blue circle"
    base, weighted = sd(text)[0], sd("red " * 75 + "(blue:3) circle")[0]
    before, after = base.tokens["text"].double(), weighted.tokens["text"].double()
    assert torch.equal(before[:, :77], after[:, :77])
    assert (after[:, 77:].mean() / before[:, 77:].mean()).item() == pytest.approx(1, abs=1e-4)
    direction = after[:, 77:] / weigh(before, base.words[0].where("blue"), 3.0)[:, 77:]
    torch.testing.assert_close(direction, direction.mean().expand_as(direction), rtol=1e-4, atol=0)


def test_weights_of_one_are_the_identity_to_the_bit(sd: TextSide) -> None:
    base = sd([PROMPTS[0], PROMPTS[1]])[0].tokens["text"]
    assert torch.equal(sd(["a (red:1.0) circle", PROMPTS[1]])[0].tokens["text"], base)
    assert torch.equal(sd([PROMPTS[0], "a (blue:1.4) square, green cat"])[0].tokens["text"][0], base[0])


def test_embed_and_encode_can_be_stepped_between(sd: TextSide) -> None:
    words = sd.tokenize(PROMPTS)
    embedded = sd.embed(words)
    assert torch.equal(sd.encode(embedded, words).tokens["text"], sd(PROMPTS)[0].tokens["text"])
    (at,) = words[0][0].where("red")
    learned = embedded[0].clone()
    learned[0, at] = sd.embed(sd.tokenize(["blue"]))[0][0, 1]
    swapped = sd.encode((learned,), words).tokens["text"]
    torch.testing.assert_close(swapped[:1], sd("a blue circle")[0].tokens["text"], rtol=0, atol=1e-6)
    leaf = embedded[0].detach().requires_grad_()
    sd.encode((leaf,), words).tokens["text"].square().sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad.abs().sum(-1) > 0).all()


def test_travel_is_exact_at_keys_linear_between_and_held_outside() -> None:
    a, b, c = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    (out,) = travel(torch.stack([a, b, c])[None], [4, 8, 10], [0, 4, 5, 7, 8, 9, 10, 30])
    for i, expected in ((0, a), (1, a), (4, b), (6, c), (7, c)):
        assert torch.equal(out[i], expected)
    torch.testing.assert_close(out[2], 0.75 * a + 0.25 * b)
    torch.testing.assert_close(out[3], 0.25 * a + 0.75 * b)
    torch.testing.assert_close(out[5], 0.5 * b + 0.5 * c)


def test_prompts_by_frame(sdxl: TextSide) -> None:
    keyed, null = sdxl({0: "a red circle", 8: "a blue circle"})
    assert keyed.tokens["text"].shape == (1, 2, 77, 72)  # however long the clip is
    given = keyed.at(0, range(12))
    red, blue = (sdxl(text)[0] for text in ("a red circle", "a blue circle"))
    assert given.tokens["text"].shape == (1, 12, 77, 72)
    assert given.vector["text"].shape == (1, 12, 24)
    assert null.tokens["text"].shape == (1, 77, 72)
    torch.testing.assert_close(given.tokens["text"][:, 0], red.tokens["text"], rtol=0, atol=1e-6)
    torch.testing.assert_close(given.tokens["text"][:, 11], blue.tokens["text"], rtol=0, atol=1e-6)
    torch.testing.assert_close(
        given.vector["text"][:, 4], (red.vector["text"] + blue.vector["text"]) / 2, rtol=0, atol=1e-6
    )
    later = sdxl({0: "a red circle", 8: "a blue circle", 10: "green " * 80})[0].at(0, range(12))
    assert torch.equal(
        later.tokens["text"][:, :9, :77], given.tokens["text"][:, :9]
    )  # a later prompt does not reach back
    both = stack(uncond=null, cond=keyed).at(0, (4, 5, 6)).tokens["text"]
    assert torch.equal(both[1], given.tokens["text"][0, 4:7])
    assert torch.equal(both[0], null.tokens["text"].expand(3, -1, -1))
    with pytest.raises(InputError, match="different frames"):
        stack(uncond=sdxl({0: "a cat", 3: "a dog"})[0], cond=keyed)
    with pytest.raises(InputError, match="prompts by frame are empty"):
        sdxl({})


def test_batches_mix_plain_prompts_and_prompts_by_frame(sd: TextSide) -> None:
    given, null = sd(["a cat", {0: "a red circle", 2: "a blue circle"}], ["green", "red"])
    given = given.at(0, range(3))
    assert given.tokens["text"].shape == (2, 3, 77, 32)
    assert null.batch == 2
    assert torch.equal(given.tokens["text"][0, 0], given.tokens["text"][0, 2])
    with pytest.raises(InputError, match="2 prompts but 3 negative"):
        sd(PROMPTS, ["a", "b", "c"])


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_saved_and_loaded_is_the_same(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    side: TextSide = request.getfixturevalue(kind)
    save_text_side(side, tmp_path)
    loaded = load_text_side(tmp_path)
    assert all(torch.equal(v, side.state_dict()[n]) for n, v in loaded.state_dict().items())
    assert loaded.tokenize(PROMPTS) == side.tokenize(PROMPTS)
    for mine, theirs in zip(loaded("a (red:1.2) circle"), side("a (red:1.2) circle"), strict=True):
        torch.testing.assert_close({**mine.tokens}, {**theirs.tokens}, rtol=0, atol=1e-6)
        torch.testing.assert_close({**mine.vector}, {**theirs.vector}, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prefixed", [True, False])
def test_files_of_every_naming_load_and_ours_load_in_transformers(sd: TextSide, tmp_path: Path, prefixed: bool) -> None:
    save_text_side(sd, tmp_path)
    theirs = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    assert all(torch.equal(v, theirs.state_dict()[n]) for n, v in sd.encoders[0].model.state_dict().items())
    state = {("text_model." if prefixed else "") + n: v for n, v in theirs.state_dict().items()}
    state[("text_model." if prefixed else "") + "embeddings.position_ids"] = torch.arange(77.0)[None]
    files.write(tmp_path / "text_encoder" / "model.safetensors", state)
    given, _ = load_text_side(tmp_path)(PROMPTS)
    torch.testing.assert_close(given.tokens["text"], sd(PROMPTS)[0].tokens["text"], rtol=0, atol=1e-6)


def spoil_missing(state: dict[str, Tensor]) -> None:
    state.pop("text_model.final_layer_norm.bias")


def spoil_surplus(state: dict[str, Tensor]) -> None:
    state["text_model.extra"] = torch.zeros(1)


def spoil_shape(state: dict[str, Tensor]) -> None:
    state["text_model.embeddings.token_embedding.weight"] = torch.zeros(3, 32)


def spoil_value(state: dict[str, Tensor]) -> None:
    state["text_model.encoder.layers.1.mlp.fc1.weight"] = torch.full((64, 32), torch.nan)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_missing, "lacks .*final_layer_norm.bias"),
        (spoil_surplus, "it has 'extra', which the model does not know"),
        (spoil_shape, r"it has \(3, 32\) where \(.*\) is needed, at '.*token_embedding.weight'"),
        (spoil_value, "layers.1.mlp.fc1.weight holds NaN"),
    ],
)
def test_a_broken_encoder_is_refused_by_the_tensors_name(
    sd: TextSide, tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], says: str
) -> None:
    save_text_side(sd, tmp_path)
    file = tmp_path / "text_encoder" / "model.safetensors"
    state = {n: v.clone() for n, v in files.read(file).items()}
    spoil(state)
    files.write(file, state)
    with pytest.raises(InputError, match=says) as raised:
        load_text_side(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text_encoder/config.json", None, "config.json is missing"),
        ("text_encoder/config.json", "{", "config.json cannot be read"),
        ("tokenizer/tokenizer.json", None, "holds no tokenizer"),
        ("tokenizer/tokenizer.json", "{", "tokenizer in .* cannot be read"),
    ],
)
def test_a_folder_with_a_part_missing_or_broken_is_refused(
    sd: TextSide, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    save_text_side(sd, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says) as raised:
        load_text_side(tmp_path)
    assert "\n" not in str(raised.value)
