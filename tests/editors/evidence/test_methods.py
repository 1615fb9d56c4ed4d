"""The methods as they are measured: every edit is one that its method takes, and what is shared between edits changes nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import editors
from editors.evidence import methods
from editors.evidence.methods import METHODS, Workshop
from editors.evidence.trials import FROM_TEXT, RECONSTRUCTION, Trial, source_clip, trial
from editors.null_text import Descent
from videogen.models.unet import UNet, UNetConfig
from videogen.pipeline import Pipeline

FRAMES = 4


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    """The miniature's VAE and text side around a tiny random image model."""
    torch.manual_seed(0)
    config = UNetConfig(channels=(8, 16), depths=(1, 1), heads=(2, 2), context=128, layers=1, groups=4, sample_size=16)
    parts = Pipeline.from_pretrained("shapes", motion="none").parts
    return Pipeline(dataclasses.replace(parts, unet=UNet(config)))


@pytest.fixture
def shop(pipe: Pipeline) -> Workshop:
    descent = Descent(inner_steps=1)
    return Workshop(
        pipe, pipe, FRAMES, steps=4, faithful_steps=4, strength=0.5, guidance=3.0, tuning_steps=1, descent=descent
    )


def clip_of(asked: Trial, folder: Path) -> Tensor:
    return source_clip(asked, folder, FRAMES, 128)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_edit_is_taken_by_its_method(name: str, shop: Workshop, tmp_path: Path) -> None:
    """Two objects, where prompts are longest and words come twice."""
    method = METHODS[name]
    for edit in method.edits:
        asked = trial(edit, 3)
        clip = clip_of(asked, tmp_path)[:: method.every]
        made = method.run(shop, asked, clip)
        frames = FRAMES // 2 if edit == FROM_TEXT and name != "truth" else len(clip)
        assert made.frames.shape == (frames, 3, 128, 128)
        assert bool(torch.isfinite(made.frames).all())
        assert made.mask is None or made.mask.shape == (frames, 1, 128, 128)


def test_null_texts_that_are_shared_are_those_of_the_method(shop: Workshop, tmp_path: Path) -> None:
    for edit in ("colour", "shape"):
        asked = trial(edit, 0)
        clip = clip_of(asked, tmp_path)
        ours = METHODS["null_text"].run(shop, asked, clip)
        alone = editors.null_text(
            shop.moving, clip, asked.source, asked.target, steps=4, strength=shop.strength, guidance_scale=3.0,
            descent=shop.descent, progress=False,
        )  # fmt: skip
        assert torch.equal(ours.frames, alone.frames)


def test_a_tuning_that_is_shared_is_that_of_the_method_and_is_done_once(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editors.evidence import methods

    tunings = []
    tune = methods.tune
    monkeypatch.setattr(methods, "tune", lambda *a, **k: tunings.append(a[2]) or tune(*a, **k))
    for edit in ("colour", "shape", "background"):
        asked = trial(edit, 2)
        clip = clip_of(asked, tmp_path)[::2]
        ours = METHODS["tune_a_video"].run(shop, asked, clip)
        if edit == "shape":
            METHODS["fatezero_tuned"].run(shop, asked, clip)
    alone = editors.tune_a_video(
        shop.still, clip, asked.source, asked.target, tuning_steps=1, learning_rate=1e-3, steps=4,
        strength=shop.strength, guidance_scale=3.0, seed=2,
    )  # fmt: skip
    assert torch.equal(ours.frames, alone.frames)
    assert tunings == [asked.source]


def test_text2video_zero_is_given_a_flow_in_the_direction_of_its_prompt(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A positive flow moves content left and up; the whole way is thirty pixels of 128, 120 of 512."""
    told = {}
    monkeypatch.setattr(editors, "text2video_zero", lambda *a, **k: told.update(k), raising=False)
    ways = {"moving left": (120, 0), "moving right": (-120, 0), "moving up": (0, 120), "moving down": (0, -120)}
    for number in range(6):
        asked = trial(FROM_TEXT, number)
        METHODS["text2video_zero"].run(dataclasses.replace(shop, frames=16), asked, torch.zeros(0))
        (way,) = [w for words, w in ways.items() if words in asked.target]
        assert told["num_frames"] == 8
        assert (told["flow"](7) * 512).tolist() == pytest.approx(way)
        assert 0 <= told["t0"] < told["t1"] == 2


def test_reconstructions_have_the_guidance_they_are_judged_at(shop: Workshop) -> None:
    assert shop.scale(trial("reconstruction", 0)) == 7.5
    assert shop.scale(trial("colour", 0)) == 3.0


def test_the_code_of_a_method_is_known_by_what_it_does() -> None:
    assert METHODS["fatezero"].code != METHODS["fatezero_tuned"].code  # one file, run in two ways
    assert METHODS["sdedit"].code == dataclasses.replace(METHODS["sdedit"], title="another").code


def test_only_reconstructions_go_all_the_way_in_the_faithful_steps(shop: Workshop) -> None:
    some = dataclasses.replace(shop, faithful_steps=7, strength=0.5)
    asked = [trial(edit, 0) for edit in ("colour", RECONSTRUCTION)]
    assert [some.grid(one) for one in asked] == [4, 7]
    assert [some.share(one) for one in asked] == [0.5, 1.0]


def test_edits_of_one_object_keep_all_else_by_blending(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the object's noun is, before and after; edits of the whole picture blend nothing."""
    told: dict[str, Any] = {}
    for name in ("prompt_to_prompt", "fatezero"):
        monkeypatch.setattr(editors, name, lambda *a, **k: told.update(k), raising=False)
    monkeypatch.setattr(methods, "inversion", lambda *a: None)
    asked = trial("shape", 0)
    METHODS["prompt_to_prompt"].run(shop, asked, torch.zeros(0))
    assert len(told["blend"].words) == 2
    assert all(word in asked.source + asked.target for word in told["blend"].words)
    METHODS["fatezero"].run(shop, trial("colour", 0), torch.zeros(0))
    assert told["settings"].blend_latents
    assert told["settings"].blend[0] in trial("colour", 0).source
    for edit in ("style", "background", RECONSTRUCTION):
        METHODS["fatezero"].run(shop, trial(edit, 0), torch.zeros(0))
        assert not told["settings"].blend


def test_all_that_makes_or_judges_clips_decides_on_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another constant in a file and rows are made again; another comment and they are kept."""
    files = methods.deciding_files()
    names = {path.name for path in files}
    assert {path.name for path in Path(str(editors.__file__)).parent.glob("*.py")} <= names
    assert {"judging.py", "trials.py", "methods.py", "map_fusion.py", "workpiece.py", "tuning.py"} <= names
    before = {name: method.code for name, method in METHODS.items()}

    def with_more(index: int, text: str) -> dict[str, str]:
        changed = tmp_path / str(index) / text.strip()[:1] / files[index].name
        changed.parent.mkdir(parents=True)
        changed.write_text(files[index].read_text(encoding="utf-8") + text, encoding="utf-8")
        monkeypatch.setattr(methods, "deciding_files", lambda: (*files[:index], changed, *files[index + 1 :]))
        return {name: method.code for name, method in METHODS.items()}

    some = [files[0].parent / "map_fusion.py", files[0].parent / "evidence" / "judging.py", files[-1]]
    for index in map(files.index, some):
        assert with_more(index, "\n# a word\n") == before
        after = with_more(index, "\nMORE = 1\n")
        assert all(after[name] != before[name] for name in METHODS), files[index]
