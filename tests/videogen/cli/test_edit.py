"""`videogen edit`: what the clip was it stays, in count, rate, size and sound; the recipe makes it again; a mistake is one line."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.videogen.cli.calls import Run, contents, error_line
from tests.videogen.data.films import film
from tests.videogen.test_sound import packets, source  # noqa: F401  a clip with sound
from tests.videogen.test_video import shapes
from videogen import video
from videogen.clip import Clip
from videogen.pipeline import Pipeline

SOURCE, TARGET = "a red circle moving right", "a blue circle moving right"


@pytest.fixture
def edit(run: Run, animated: Path, tmp_path: Path) -> Run:
    """Calls `videogen edit` with two steps of the tiny model on a lossless clip of 6 frames; further words come after and win."""
    video.write(tmp_path / "clip.webp", shapes(6, 45, 67, Fraction(30000, 1001)))
    standing = ("--model", animated, "--steps", "2", "--quiet", "-o", tmp_path / "out.webp")
    return lambda *words: run("edit", tmp_path / "clip.webp", TARGET, *standing, *words)


def test_a_clip_with_sound(run: Run, animated: Path, tmp_path: Path, source: Path) -> None:  # noqa: F811
    out, beside, mask = (tmp_path / name for name in ("out.mp4", "beside.mp4", "mask.mp4"))
    words = ("--source-prompt", SOURCE, "--blend", "circle", "--model", animated, "--steps", "2", "--chunk", "8")
    done = run("edit", source, TARGET, *words, "-o", out, "--compare", beside, "--show-mask", mask)
    assert (done.code, done.out.split()) == (0, [str(out), str(beside), str(mask)])
    assert "fatezero (a clip and both prompts): 2 steps" in done.err
    before, after = video.read(source), video.read(out)
    assert (len(after), after.fps, after.height, after.width) == (len(before), before.fps, 16, 16)
    copied, original = packets(out), packets(source)
    assert copied == original[: len(copied)]
    assert len(original) - len(copied) <= 2  # what would sound after the last frame
    both = video.read(beside)
    assert (both.height, both.width, len(both)) == (16, 32, 20)
    seen = video.read(mask).to_uint8()
    assert seen.shape == (20, 3, 16, 16)
    assert torch.equal(seen[:, 0], seen[:, 1])
    assert run("reproduce", out, "--quiet").out == "largest difference: 0\n"


def test_a_picture_is_a_clip_of_one_frame(
    run: Run, animated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    video.write("photo.png", shapes(1, 45, 67))
    done = run("edit", "photo.png", TARGET, "--source-prompt", SOURCE, "--model", animated, "--steps", "2")
    assert (done.code, done.out) == (0, "edited.png\n")
    assert "prompt_to_prompt" in done.err
    assert video.read("edited.png").frames.shape == (1, 3, 45, 67)
    assert run("reproduce", "edited.png", "--quiet").out == "largest difference: 0\n"


@pytest.mark.parametrize("name", ["photo.bmp", "photo.TIF", "photo.tiff"])
def test_pictures_of_every_kind_become_pictures(
    run: Run, animated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(name)
    assert run("edit", name, TARGET, "--model", animated, "--steps", "2", "--strength", "0").out == "edited.png\n"


def test_at_strength_0_the_vae_alone_has_touched_it(edit: Run, animated: Path, tmp_path: Path) -> None:
    """In chunks or in one piece, since the VAE looks at one frame at a time."""
    for chunk in ("99", "4"):
        assert edit("--strength", "0", "--size", "64x48", "--chunk", chunk, "--overwrite").code == 0
        pipe, clip = Pipeline.from_pretrained(animated), video.read(tmp_path / "clip.webp").to_float()
        small = torch.nn.functional.interpolate(clip, (48, 64), mode="bicubic", antialias=True).clamp(0, 1)
        passed = pipe.decode(pipe.encode(small[None])).detach()[0]
        back = torch.nn.functional.interpolate(passed, (45, 67), mode="bicubic", antialias=True).clamp(0, 1)
        made = video.read(tmp_path / "out.webp").to_float()
        assert float((made - back).abs().max()) < 1 / 255


def test_only_a_range_is_edited(edit: Run, tmp_path: Path) -> None:
    """Frame i of 30000/1001 a second begins at i 1.001 / 30 s."""
    assert edit("--range", "0.05-0.1").code == 0
    before, after = (video.read(tmp_path / name).to_uint8() for name in ("clip.webp", "out.webp"))
    assert [bool(torch.equal(a, b)) for a, b in zip(before, after)] == [True, True, False, True, True, True]


def test_what_was_measured_is_told_of_each_chunk(run: Run, animated: Path, tmp_path: Path) -> None:
    video.write(tmp_path / "clip.webp", shapes(6, 45, 67))
    words = (
        "--source-prompt",
        SOURCE,
        "--method",
        "ddim-inversion",
        "--model",
        animated,
        "--steps",
        "2",
        "--chunk",
        "4",
    )
    done = run("edit", tmp_path / "clip.webp", TARGET, *words, "-o", tmp_path / "out.webp")
    lines = [line.split("\r")[-1] for line in done.err.splitlines()]
    chunks = [i for i, line in enumerate(lines) if re.fullmatch(r"frames \d to \d", line)]
    told = [
        i
        for i, line in enumerate(lines)
        if re.fullmatch(r"  reconstruction rms [\d.e-]+, reconstruction psnr [\d.e-]+", line)
    ]
    assert len(chunks) == len(told) == 2
    assert chunks[0] < told[0] < chunks[1] < told[1]


@pytest.mark.parametrize(
    "words", [(), ("--source-prompt", SOURCE, "--method", "ddim-inversion"), ("--strength", "0.5", "--seed", "3")]
)
def test_it_can_be_made_again_while_its_source_is_the_same(
    edit: Run, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert edit(*words, "--range", "-0.11").code == 0
    recipe = video.read_recipe(tmp_path / "out.webp")
    assert (recipe.command, recipe.prompt, recipe.steps) == ("edit", TARGET, 2)
    assert run("reproduce", tmp_path / "out.webp", "--quiet").out == "largest difference: 0\n"
    video.write(tmp_path / "clip.webp", shapes(6, 45, 69), overwrite=True)
    assert "the source clip" in error_line(run("reproduce", tmp_path / "out.webp"))


CONFIG = """
pretrained_model_path: {model}
dataset_config: {{path: {clip}, prompt: a red circle moving right, n_sample_frame: 4}}
editing_config:
  use_inversion_attention: true
  num_inference_steps: 2
  editing_prompts: [a blue circle moving right]
  p2p_config: {{0: {{cross_replace_steps: {{default_: 0.5}}, self_replace_steps: 0.5}}}}
"""


def test_a_configuration_of_the_authors_is_enough(run: Run, animated: Path, tmp_path: Path) -> None:
    video.write(tmp_path / "clip.webp", shapes(6, 45, 67))
    (tmp_path / "a.yaml").write_text(CONFIG.format(model=animated, clip=tmp_path / "clip.webp"))
    out = tmp_path / "out.webp"
    assert run("edit", "--config", tmp_path / "a.yaml", "-o", out, "--quiet").code == 0
    recipe = video.read_recipe(out)
    assert (recipe.prompt, recipe.steps, recipe.options["edit"]["chunk"]) == (TARGET, 2, 4)
    assert run("reproduce", out, "--quiet").out == "largest difference: 0\n"
    (tmp_path / "c.yaml").write_text(
        (tmp_path / "a.yaml").read_text().replace("0: {cross", "0: {blend_words: [[circle], [square]], cross")
    )
    words = ("--source-prompt", "a red dot moving right", "-o", tmp_path / "dot.webp", "--quiet")
    assert run("edit", "--config", tmp_path / "c.yaml", *words).code == 0  # the file's circle is no word of this source
    assert video.read_recipe(tmp_path / "dot.webp").options["edit"]["source_prompt"] == "a red dot moving right"
    (tmp_path / "b.yaml").write_text((tmp_path / "a.yaml").read_text().replace("self_replace_steps", "self_replace"))
    assert "did you mean editing_config.p2p_config.0.self_replace_steps?" in error_line(
        run("edit", "--config", tmp_path / "b.yaml")
    )


def test_what_has_no_effect_without_guidance_is_told(edit: Run) -> None:
    words = ("--strength", "0.5", "--negative", "blue", "--guidance")
    assert edit(*words, "2").err == ""
    assert "negative prompt has no effect" in edit(*words, "1", "--overwrite").err


@pytest.fixture
def refused(edit: Run, tmp_path: Path) -> Callable[..., str]:
    """Calls `edit`, which must refuse: exit code 2, one line on stderr, and the folder as it was. Gives the line."""

    def call(*words: str | Path) -> str:
        before = contents(tmp_path)
        line = error_line(edit(*words))
        assert contents(tmp_path) == before
        return line

    return call


BAD = {
    "no such method": (["--method", "magic"], "choose one of"),
    "a blend word in neither prompt": (["--source-prompt", SOURCE, "--blend", "dog"], "'dog'"),
    "a weight on a word that is not there": (["--source-prompt", SOURCE, "--weight", "dog=2"], "dog"),
    "unequal word counts": (["--source-prompt", "a circle", "--edit", "replace"], "use refine"),
    "equal prompts": (["--source-prompt", TARGET], "are equal"),
    "an unknown edit": (["--source-prompt", SOURCE, "--edit", "swap"], "replace"),
    "an unknown preset": (["--source-prompt", SOURCE, "--preset", "magic"], "attribute"),
    "a mask where there is none": (["--show-mask", "m.mp4"], "--blend"),
    "a size that does not fit": (["--size", "65x48"], "multiple of 8"),
    "a range behind the end": (["--range", "5-6"], "the clip lasts"),
    "a range that runs back": (["--range", "2-1"], "FROM-TO"),
    "too great an overlap": (["--chunk", "4", "--overlap", "4"], "--overlap"),
    "an output that is the source": (["-o", "clip.webp", "--overwrite"], "source"),
    "an output of no kind": (["-o", "out.txt"], "extension"),
    "a strength above 1": (["--strength", "1.5"], "--strength"),
    "a strength that is no whole step": (["--strength", "0.4"], "nothing would change"),
    "a learning rate of 0": (
        ["--source-prompt", SOURCE, "--method", "tune_a_video", "--learning-rate", "0"],
        "learning rate of 0",
    ),
    "a mask of tune_a_video": (
        ["--source-prompt", SOURCE, "--method", "tune_a_video", "--motion", "none", "--show-mask", "m.mp4"],
        "--blend",
    ),
    "no configuration": (["--config", "none.yaml"], "none.yaml"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_one_line(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, says = BAD[name]
    assert says in refused(*words)


def test_bad_clips_are_one_line(run: Run, animated: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    content = film(tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        sound = output.add_stream("aac", rate=48000, layout="mono")
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        part.sample_rate = 48000
        output.mux(sound.encode(part))
        output.mux(sound.encode(None))
    before = contents(tmp_path)
    assert "is empty" in error_line(run("edit", tmp_path / "empty.mp4", TARGET))
    for name in ("missing.mp4", "text.mp4", "sound.mp4", "cut.mp4"):
        words = (tmp_path / name, TARGET, "--model", animated, "-o", tmp_path / "out.mp4")
        assert name in error_line(run("edit", *words))
    assert "give a clip and a prompt" in error_line(run("edit"))
    assert "prompt is empty" in error_line(run("edit", tmp_path / "text.mp4", " "))
    assert contents(tmp_path) == before


def test_a_clip_that_ends_before_its_announced_length_is_told(run: Run, animated: Path, tmp_path: Path) -> None:
    """Matroska announces a length and no number of frames, and decodes up to the cut."""
    content = film(tmp_path / "cut.mkv", 24).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    words = ("--model", animated, "--steps", "2", "--quiet", "-o", tmp_path / "out.mp4")
    done = run("edit", tmp_path / "cut.mkv", TARGET, *words)
    assert done.code == 0
    assert "warning" in done.err
    assert "announces 2.0 s" in done.err


def test_a_black_clip_of_one_frame_in_a_video_passes(run: Run, animated: Path, tmp_path: Path) -> None:
    video.write(tmp_path / "one.mp4", Clip(torch.zeros(1, 3, 33, 31)))
    words = ("--model", animated, "--steps", "2", "--quiet", "-o", tmp_path / "out.mp4")
    assert run("edit", tmp_path / "one.mp4", TARGET, *words).code == 0
    assert video.read(tmp_path / "out.mp4").frames.shape == (1, 3, 33, 31)
