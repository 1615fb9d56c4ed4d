"""Configuration files of two families are told apart, and the command line wins over them."""

from pathlib import Path

import pytest

from editors.config_files import configured
from tests.editors.test_fatezero_config import TEXT, written
from videogen.errors import InputError
from videogen.recipe import Recipe

ROOT = Path(__file__).parents[2]
TUNED = """
pretrained_model_path: models/sd
output_dir: runs/somewhere
train_data: {video_path: boat.mp4, prompt: a boat crosses a lake, n_sample_frames: 6, width: 64, height: 64}
validation_data: {prompts: [a paper boat crosses a lake], video_length: 4, num_inference_steps: 7, guidance_scale: 9.5}
max_train_steps: 30
learning_rate: 1.0e-4
seed: 33
"""


def test_a_fatezero_file(tmp_path: Path) -> None:
    found = configured(written(tmp_path, TEXT), None, "a blue box, rolling", None, None)
    assert (found.method, found.clip, found.model, found.source_prompt) == (
        "fatezero", "data/ball", "./ckpt/some-model", "a red ball, rolling",
    )  # fmt: skip
    assert (found.steps, found.guidance, found.seed, found.chunk) == (30, 7.5, 3, 8)
    assert found.settings["entries"] == ["middle", -1]
    assert (found.settings["least"], found.settings["hold"]) == (640, "disk")
    assert found.settings["fusion"]["blend"] == ("red", "ball", "box")
    # what a recipe takes along is JSON
    Recipe("edit", "", 0, 1, 1, 1, "8", "ddim", 1, 1.0, options=dict(found.settings)).to_json()


def test_the_prompt_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"several prompts.*'a drawing of a red ball, rolling', 'a blue box, rolling'"):
        configured(written(tmp_path, TEXT), None, None, None, None)
    alone = TEXT.replace('"a drawing of a red ball, rolling", "a blue box, rolling"', '"a blue box, rolling"')
    assert configured(written(tmp_path, alone), None, None, None, None).prompt == "a blue box, rolling"


def test_settings_are_those_of_the_source_prompt_that_is_given(tmp_path: Path) -> None:
    """Words are paired, and blend words looked for, in the prompts of the command line."""
    path = written(tmp_path, TEXT)
    for source, edit, blend in (
        ("one red dot", "refine", ("red", "box")),
        ("a ball, rolling fast", "replace", ("ball", "box")),
    ):
        found = configured(path, None, "a blue box, rolling", source, None)
        assert found.source_prompt == source
        assert (found.settings["fusion"]["exchange"]["edit"], found.settings["fusion"]["blend"]) == (edit, blend)
    # Prompt 0 is the file's own source, whatever the clip is said to show.
    alone = TEXT.replace('"a drawing of a red ball, rolling", "a blue box, rolling"', '"a blue box, rolling"')
    assert configured(written(tmp_path, alone), None, None, "one red dot", None).prompt == "a blue box, rolling"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("sampling_rate: 4", ["sampling_rate"]),
        ("sampling_rate: 1\n    start_sample_frame: 0", []),
        ("sampling_rate: 1\n    start_sample_frame: 1", ["start_sample_frame"]),
        ("start_sample_frame: 5\n    sampling_rate: 2", ["start_sample_frame", "sampling_rate"]),
    ],
)
def test_frames_that_the_authors_leave_out_are_told(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, lines: str, told: list[str]
) -> None:
    text = TEXT.replace("sampling_rate: 1", lines)
    configured(written(tmp_path, text), None, "a blue box, rolling", None, None)
    said = [str(one.message).split(":")[0] for one in recwarn]
    assert said == [f"dataset_config.{key} does nothing here" for key in told]


def test_a_cut_that_the_authors_make_is_told(tmp_path: Path) -> None:
    text = TEXT.replace("left: 0", "left: 3")
    with pytest.warns(UserWarning, match="offset does nothing here"):
        configured(written(tmp_path, text), None, "a blue box, rolling", None, None)


def test_without_a_model_config_the_file_says_nothing_of_frames(tmp_path: Path) -> None:
    start, rest = TEXT.split("model_config:\n")
    text = start + rest[rest.index("test_pipeline_config") :]
    assert not configured(written(tmp_path, text), None, "a blue box, rolling", None, None).settings.keys() & {
        "entries",
        "least",
    }


@pytest.mark.parametrize(("times", "told"), [("4", 1), ("2", 1), ("1", 0), ("0", 0), ("null", 0)])
def test_a_network_that_would_halve_the_frames_is_told(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, times: str, told: int
) -> None:
    text = TEXT.replace("    lora: 160\n", f"    lora: 160\n    temporal_downsample_time: {times}\n")
    configured(written(tmp_path, text), None, "a blue box, rolling", None, None)
    said = [str(one.message) for one in recwarn]
    assert len(said) == told
    assert all(line.startswith("model_config.temporal_downsample_time does nothing here") for line in said)


def test_a_tune_a_video_file(tmp_path: Path) -> None:
    found = configured(written(tmp_path, TUNED), None, None, None, None)
    assert (found.method, found.clip, found.model, found.prompt, found.source_prompt) == (
        "tune_a_video", "boat.mp4", "models/sd", "a paper boat crosses a lake", "a boat crosses a lake",
    )  # fmt: skip
    assert (found.steps, found.guidance, found.seed, found.chunk) == (7, 9.5, 33, 4)
    assert found.settings == {"tuning_steps": 30, "learning_rate": 1e-4, "tuned_on": 6, "invert": True}
    mine = configured(written(tmp_path, TUNED), "other.mp4", "a raft", "a boat", "models/other")
    assert (mine.clip, mine.model, mine.prompt, mine.source_prompt) == ("other.mp4", "models/other", "a raft", "a boat")


def test_what_is_not_followed_of_a_tune_a_video_file_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="train_batch_size: .*scripts/tune_a_video.py"):
        configured(written(tmp_path, TUNED + "train_batch_size: 2\n"), None, None, None, None)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("sample_frame_rate: 4, sample_start_idx: 10", {"sample_frame_rate", "sample_start_idx"}),
        ("sample_frame_rate: 1, sample_start_idx: 0", set()),
        ("width: 64, height: 64", {"width", "height"}),
        ("width: 512, height: 512", set()),
    ],
)
def test_frames_and_sizes_that_are_not_followed_are_told(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, setting: str, told: set[str]
) -> None:
    configured(written(tmp_path, TUNED.replace("width: 64, height: 64", setting)), None, None, None, None)
    assert {str(one.message).split(";")[0] for one in recwarn} == {
        f"train_data.{key} does nothing here" for key in told
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TUNED.replace("max_train_steps", "max_train_step"), "did you mean max_train_steps"),
        (TUNED.replace("train_data", "train_date"), "did you mean train_data"),
        ("recipe: image\nout: runs\n", "videogen train"),
        ("editing_config: 5\n", "pretrained_model_path is missing"),
        ("editing_config: 5\ntrain_steps: 2\n", "tunes a model"),
        ("a: 1\n", r"editing_config \(FateZero\)"),
        ("- a\n", "mapping"),
        (TUNED.replace("prompts: [a paper boat crosses a lake], ", ""), "names no prompt"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        configured(written(tmp_path, text), None, None, None, None)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "fatezero").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_files_of_this_project_are_read(path: Path) -> None:
    assert configured(path, None, None, None, None).method == "fatezero"
