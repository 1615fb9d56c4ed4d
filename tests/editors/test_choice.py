"""Which method is chosen follows from what is given; what does not go together is refused in one line."""

from typing import Any

import pytest

from editors.choice import chosen
from videogen.editing import Request
from videogen.errors import InputError
from videogen.generation import Request as Base

TARGET, SOURCE = "a blue circle moving right", "a red circle moving right"


def request(
    prompt: str = TARGET,
    motion: str | None = None,
    negative: str | None = None,
    **changes: Any,
) -> Request:
    return Request("clip.mp4", Base(prompt, motion=motion, negative=negative), **changes)


BOTH = {"source_prompt": SOURCE}
CHOICES = [
    ({}, 16, False, "sdedit"),
    ({}, 1, False, "sdedit"),
    (BOTH, 16, False, "fatezero"),
    (BOTH, 1, False, "prompt_to_prompt"),
    ({"source_prompt": "an old house"}, 16, False, "sdedit"),
    ({"strength": 0.5}, 16, False, "sdedit"),
    ({**BOTH, "strength": 0.5}, 16, False, "fatezero"),
    ({**BOTH, "blend": ("circle",)}, 16, False, "fatezero"),
    ({**BOTH, "preset": "style"}, 1, False, "fatezero"),
    ({"source_prompt": TARGET, "weights": {"blue": 2.0}}, 1, False, "prompt_to_prompt"),
    ({}, 16, True, "tune_a_video"),
    (BOTH, 16, True, "fatezero"),
    ({"method": "DDIM-inversion"}, 16, False, "ddim_inversion"),
]


@pytest.mark.parametrize(("given", "frames", "tuned", "method"), CHOICES)
def test_the_choice(given: dict[str, Any], frames: int, tuned: bool, method: str) -> None:
    found, why = chosen(request(**given), frames, tuned)
    assert found == method
    assert why


REFUSED = [
    ({"method": "magic"}, "sdedit, ddim_inversion"),
    ({"method": "text2video-zero", **BOTH}, "from text alone"),
    ({"blend": ("circle",)}, "--source-prompt"),
    ({"method": "fatezero"}, "--source-prompt"),
    ({"method": "null_text"}, "--source-prompt"),
    ({"method": "tune_a_video"}, "--source-prompt"),
    ({"method": "sdedit", "blend": ("circle",)}, "--blend says nothing to sdedit"),
    ({"method": "sdedit", "settings": {"tuning_steps": 3}}, "--tuning-steps says nothing"),
    ({"method": "null_text", **BOTH, "negative": "red"}, "--negative says nothing"),
    ({"method": "ddim_inversion", **BOTH, "weights": {"blue": 2.0}}, "--weight says nothing"),
    ({"source_prompt": "A blue  circle moving right"}, "are equal"),
    ({**BOTH, "edit": "reweight"}, "prompt differ"),
    ({"method": "tune_a_video", **BOTH, "motion": "mm.ckpt"}, "--motion"),
    ({**BOTH, "preset": "style", "settings": {"fusion": {}}}, "--config"),
]


@pytest.mark.parametrize(("given", "says"), REFUSED)
def test_what_does_not_go_together(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        chosen(request(**given), 16, tuned=False)


TUNED = [
    ({"settings": {"tuning_steps": 500}}, "leave --tuning-steps and --learning-rate out"),
    ({"settings": {"learning_rate": 0.5}}, "leave --tuning-steps and --learning-rate out"),
    ({"settings": {"invert": False}, "strength": 0.5}, "--strength says nothing"),
]


@pytest.mark.parametrize(("given", "says"), TUNED)
def test_what_a_tuned_model_has_no_use_for_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        chosen(request(method="tune_a_video", **given), 16, tuned=True)


def test_a_strength_that_is_the_whole_way_is_no_contradiction() -> None:
    given = request(method="tune_a_video", settings={"invert": False}, strength=1.0)
    assert chosen(given, 16, tuned=True)[0] == "tune_a_video"


def test_a_file_that_tunes_is_followed_in_its_sampling_on_a_tuned_model() -> None:
    settings = {"tuning_steps": 500, "learning_rate": 3e-5, "tuned_on": 8, "invert": True}
    with pytest.warns(UserWarning, match="tuned already"):
        assert chosen(request(method="tune_a_video", settings=settings), 16, tuned=True)[0] == "tune_a_video"


def test_a_file_may_repeat_the_source_prompt() -> None:
    """The authors' check of the reconstruction, and words that a file lets count more."""
    given = request(method="fatezero", source_prompt=TARGET, settings={"fusion": {}})
    assert chosen(given, 16, tuned=False)[0] == "fatezero"


def test_unrelated_prompts_are_told_to_who_insists() -> None:
    with pytest.warns(UserWarning, match="share no word"):
        assert chosen(request(method="fatezero", source_prompt="an old house"), 16, tuned=False)[0] == "fatezero"
