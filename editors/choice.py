"""Which method suits what was given to `videogen edit`, and what a method cannot take, refused before it runs.

The choice follows from what there is to go by: without a source prompt only the clip itself, with one also which words stay. It says nothing
of quality, which is measured elsewhere.
"""

from __future__ import annotations

import warnings

from editors.alignment import content_words
from videogen.editing import Request
from videogen.errors import InputError

METHODS = ("sdedit", "ddim_inversion", "null_text", "prompt_to_prompt", "fatezero", "tune_a_video")
"""Those that edit a clip. Text2Video-Zero makes one from text."""

# Options that some methods have; the others refuse them.
TAKES = {
    "edit": ("prompt_to_prompt", "fatezero"),
    "blend": ("prompt_to_prompt", "fatezero"),
    "weights": ("prompt_to_prompt", "fatezero"),
    "preset": ("fatezero",),
    "tuning_steps": ("tune_a_video",),
    "learning_rate": ("tune_a_video",),
    "negative": tuple(method for method in METHODS if method != "null_text"),
}
_SPELT = {"weights": "--weight"}

TUNING = {"tuning_steps", "learning_rate", "tuned_on"}
"""Settings of a tuning; the last one is a configuration file's alone."""


def chosen(request: Request, frames: int, tuned: bool) -> tuple[str, str]:
    """The method and, in a few words, why. tuned: whether the model is one that Tune-A-Video made.

    Raises InputError for a method that is not known, and for options that do not go together.
    """
    method, why = _choice(request, frames, tuned)
    _check_options(request, method)
    _check_tuning(request, method, tuned)
    _check_prompts(request, method, tuned)
    return method, why


def _choice(request: Request, frames: int, tuned: bool) -> tuple[str, str]:
    if request.method is not None:
        return _known(request.method), "as asked"
    described = bool(request.source_prompt.strip())
    local = bool(request.blend or request.weights or request.edit != "auto")
    if local and not described:
        raise InputError(
            "--edit, --blend and --weight compare two prompts; say with --source-prompt what the clip shows"
        )
    if tuned:
        return ("fatezero", "a tuned model and both prompts") if described else ("tune_a_video", "a tuned model")
    if request.preset is not None:
        return "fatezero", "a preset is given"
    if not described:
        return "sdedit", "no source prompt, so only the clip itself to go by"
    if not local and not content_words(request.source_prompt) & content_words(request.prompt):
        return "sdedit", "the two prompts share no word"
    if frames == 1:
        return "prompt_to_prompt", "a picture and both prompts"
    return "fatezero", "a clip and both prompts"


def _known(name: str) -> str:
    method = name.replace("-", "_").casefold()
    if method == "text2video_zero":
        raise InputError(
            "text2video_zero makes a clip from text alone and follows no source clip; see `editors.text2video_zero`"
        )
    if method not in METHODS:
        raise InputError(f"the method {name!r} is not known; choose one of {', '.join(METHODS)}")
    return method


def _check_options(request: Request, method: str) -> None:
    given = {
        "edit": request.edit != "auto",
        "blend": bool(request.blend),
        "weights": bool(request.weights),
        "preset": request.preset is not None,
        "negative": request.base.negative is not None,
        **{name: name in request.settings for name in ("tuning_steps", "learning_rate")},
    }
    if request.preset is not None and "fusion" in request.settings:
        raise InputError("--preset and --config both say what is fused; give one of them")
    for name, present in given.items():
        if present and method not in TAKES[name]:
            option = _SPELT.get(name, f"--{name.replace('_', '-')}")
            raise InputError(f"{option} says nothing to {method}; it is for {', '.join(TAKES[name])}")


def _check_tuning(request: Request, method: str, tuned: bool) -> None:
    """Refuse what a tuning has no use for; of what a whole file brings along it is told."""
    if method != "tune_a_video":
        return
    if not tuned and request.base.motion not in (None, "none"):
        raise InputError("tune_a_video brings temporal layers of its own; leave --motion out")
    if tuned and "tuned_on" in request.settings:
        warnings.warn("the model is tuned already, so of the file the sampling alone is followed", stacklevel=2)
    elif tuned and request.settings.keys() & TUNING:
        raise InputError("the model is tuned already; leave --tuning-steps and --learning-rate out")
    if not request.settings.get("invert", True) and request.strength not in (None, 1):
        raise InputError(
            "--strength says nothing to a clip that begins from a seed's noise (use_inv_latent: false); leave it out"
        )


def _check_prompts(request: Request, method: str, tuned: bool) -> None:
    """Refuse prompts that leave a method nothing to do, and tell of those that leave it little."""
    source, target = (" ".join(text.split()).casefold() for text in (request.source_prompt, request.prompt))
    needed = method in ("null_text", "prompt_to_prompt", "fatezero") or (method == "tune_a_video" and not tuned)
    if needed and not source:
        raise InputError(f"{method} needs to know what the clip shows; give --source-prompt")
    if method == "sdedit" or not source:
        return
    # A file may repeat the prompt: as a check of the reconstruction, or with words that count more (eq_params).
    if source == target and not request.weights and "fusion" not in request.settings:
        raise InputError(
            "source and target prompt are equal, so nothing would change; change a word, or say how much one counts (--weight WORD=2)"
        )
    if request.edit == "reweight" and source != target:
        raise InputError(
            "--edit reweight changes how much the words of one prompt count; source and target prompt differ"
        )
    if not content_words(source) & content_words(target):
        warnings.warn(
            "source and target prompt share no word, so hardly anything of the source can be held", stacklevel=2
        )
