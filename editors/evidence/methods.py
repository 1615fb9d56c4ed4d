"""The methods as they are measured: on which model, with which settings for which edit, and beside what.

Every method is held against the plain way, sampling the new prompt from the inverted noise, on the same model and frames. What a method finds for
a clip (a tuned model, null texts) is found once for all edits of that clip.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import textwrap
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import editors
import motion_modules
from editors.ddim_inversion import Inversion, invert_clip
from editors.edited import Edited
from editors.evidence.trials import EDITS, FROM_TEXT, RECONSTRUCTION, Trial
from editors.fatezero import RECONSTRUCTION as FAITHFUL
from editors.fatezero import SHAPE, Settings
from editors.map_fusion import Exchange
from editors.null_text import Descent, NullText, find_nulls, following
from editors.prompt_to_prompt import Blend
from editors.text2video_zero import translation
from editors.tune_a_video import sample, tune
from editors.workpiece import begin
from videogen.pipeline import Pipeline
from videogen.shapes import render, world

T = TypeVar("T")

FAITHFUL_GUIDANCE = 7.5  # of reconstructions
TRAVEL = 30.0  # pixels of 128 that Text2Video-Zero's flow goes over the clip; the world's own are 24 to 60
FIRST = 1 << 20  # every so-manieth frame is the first alone
SMALL = 32  # latents a side below which a model is a small one
LOCAL = ("colour", "adding", "shape")  # edits of one object: all but its place is kept by blending
# Shares of the steps in which text maps and self-attention are the source's, chosen on clips of seed 1.
SHARES = dict.fromkeys(EDITS, (0.2, 0.8)) | {"shape": (0.4, 0.4)}


@dataclass(eq=False)
class Workshop:
    """The models and numbers of a run.

    moving    the model with its motion modules, on clips of `frames` frames
    still     the image model, on every second frame
    steps, strength, guidance   of all methods; reconstructions have `faithful_steps`, all of them run, and FAITHFUL_GUIDANCE
    """

    moving: Pipeline
    still: Pipeline
    frames: int = world.FRAMES
    steps: int = 20
    faithful_steps: int = 50
    strength: float = 1.0
    guidance: float = 7.5
    tuning_steps: int = 200
    tuning_rate: float = 1e-3
    descent: Descent = field(default_factory=Descent)
    # By kind: key, what was found, and the seconds that it took. What the work at hand uses of it, in seconds: 0 of what it found itself.
    _found: dict[str, tuple[Hashable, object, float]] = field(default_factory=dict, init=False)
    _used: dict[str, float] = field(default_factory=dict, init=False)

    @property
    def small(self) -> bool:
        """Whether activations of whole clips may be kept, and the moments of Text2Video-Zero lie in the middle of the grid."""
        return max(self.still.parts.unet.config.sample_grid) < SMALL

    def scale(self, trial: Trial) -> float:
        """The guidance of a trial."""
        return FAITHFUL_GUIDANCE if trial.edit == RECONSTRUCTION else self.guidance

    def grid(self, trial: Trial) -> int:
        """The steps of a trial."""
        return self.faithful_steps if trial.edit == RECONSTRUCTION else self.steps

    def share(self, trial: Trial) -> float:
        """The strength of a trial."""
        return 1.0 if trial.edit == RECONSTRUCTION else self.strength

    @torch.no_grad()
    def round_trip(self, clip: Tensor) -> Tensor:
        """Frames `f 3 H W` in [0, 1] through the VAE and back."""
        return self.moving.decode(self.moving.encode(clip[None]))[0]

    def once(self, kind: str, key: Hashable, find: Callable[[], T]) -> T:
        """What `find` gives for a key; of each kind the last one is remembered."""
        if kind not in self._found or self._found[kind][0] != key:
            self._found.pop(kind, None)  # its memory goes before the next is made
            made, seconds = self.timed(find)
            self._found[kind] = (key, made, seconds)
            self._used.setdefault(kind, 0.0)  # the clock of the work at hand has them
        _, found, seconds = self._found[kind]
        self._used.setdefault(kind, seconds)
        return found  # type: ignore[return-value]

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What `work` gives, and the seconds that it takes alone: its own, and those of what was found before and it uses."""
        around, self._used = self._used, {}
        begun = time.monotonic()
        try:
            made = work()
            return made, time.monotonic() - begun + sum(self._used.values())
        finally:
            around.update({kind: seconds for kind, seconds in self._used.items() if kind not in around})
            self._used = around


Run = Callable[[Workshop, Trial, Tensor], Edited]


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    file     of `editors/` that holds the method; empty for what is no method
    run      (shop, trial, source `f 3 H W`) -> Edited
    against  the plain way it is held against; None for what is not held against anything
    every    takes every so-manieth frame
    tuned    something is found for each clip, which takes long: fewer clips are asked for
    """

    name: str
    title: str
    file: str
    edits: tuple[str, ...]
    run: Run
    against: str | None = "ddim_inversion"
    every: int = 1
    tuned: bool = False

    @property
    def code(self) -> str:
        """A hash of how it is run and of all that makes and judges clips, comments and layout apart: with another one, rows are made again."""
        return _hash([textwrap.dedent(inspect.getsource(self.run)), repr(_hash_of(deciding_files()))])


def deciding_files() -> tuple[Path, ...]:
    """The files that decide on a row: all editors, since they share most of their parts, Tune-A-Video's layers, and what draws and judges trials."""
    methods, layers = (Path(str(package.__file__)).parent for package in (editors, motion_modules))
    return (
        *sorted(methods.glob("*.py")),
        *(methods / "evidence" / f"{name}.py" for name in ("judging", "methods", "runs", "trials")),
        *(layers / f"{name}.py" for name in ("tune_a_video", "tune_a_video_folder", "tuning")),
    )


@functools.cache
def _hash_of(files: tuple[Path, ...]) -> str:
    return _hash([path.read_text(encoding="utf-8") for path in files])


def _hash(texts: Sequence[str]) -> str:
    parsed = [ast.dump(ast.parse(text)) for text in texts]
    return hashlib.sha256("\n".join(parsed).encode()).hexdigest()[:12]


def _source(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    return Edited(shop.round_trip(clip))


def _truth(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    return Edited(shop.round_trip(render(trial.changed, shop.frames, shop.moving.default_size[0]).frames[0]))


def told(shop: Workshop, trial: Trial) -> dict[str, Any]:
    """What all methods are told."""
    return {
        "steps": shop.grid(trial),
        "strength": shop.share(trial),
        "guidance_scale": shop.scale(trial),
        "progress": False,
    }


def _inversion(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    return editors.ddim_inversion(
        shop.moving, clip, trial.source, trial.target, trajectory=inversion(shop, shop.moving, trial, clip), **told(shop, trial)
    )  # fmt: skip


def inversion(shop: Workshop, pipe: Pipeline, trial: Trial, clip: Tensor) -> Inversion:
    """Of a clip by the model of the clips or of pictures, shared by all methods and edits."""

    def find() -> Inversion:
        return invert_clip(pipe, clip, trial.source, steps=shop.grid(trial), strength=shop.share(trial), progress=False)

    kind = f"{'still' if pipe is shop.still else 'moving'} inversion of {len(clip)} frames"
    return shop.once(kind, (trial.clip_name, trial.source, shop.grid(trial), shop.share(trial)), find)


def _inversion_of_pictures(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    return editors.ddim_inversion(
        shop.still, clip, trial.source, trial.target, trajectory=inversion(shop, shop.still, trial, clip), **told(shop, trial)
    )  # fmt: skip


def _sdedit(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    return editors.sdedit(
        shop.moving, clip, trial.source, trial.target, seed=trial.seed, **told(shop, trial)
    )  # fmt: skip


def _prompt_to_prompt(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    cross, selfs = SHARES[trial.edit]
    blend = Blend(nouns(trial), window=(0.0, 1.0)) if trial.edit in LOCAL else None
    return editors.prompt_to_prompt(
        shop.moving, clip, trial.source, trial.target, cross=cross, selfs=selfs, blend=blend,
        trajectory=inversion(shop, shop.moving, trial, clip), **told(shop, trial)
    )  # fmt: skip


def nouns(trial: Trial) -> tuple[str, ...]:
    """The words for the first object's shape, before and after."""
    return tuple(sorted({world.SHAPES[int(scene.shape[0, 0])] for scene in (trial.scene, trial.changed)}))


def _fatezero(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    """With the authors' settings where the source is to come back."""
    settings = FAITHFUL
    if trial.edit in SHARES:
        cross, selfs = SHARES[trial.edit]
        settings = Settings(Exchange("refine", cross, selfs), blend_attention=False, blend_window=(0.0, 1.0))
    if trial.edit in LOCAL:
        settings = dataclasses.replace(settings, blend=nouns(trial), blend_latents=True)
    # On an image model it reads other frames, in an inversion of its own.
    shared = None if shop.moving.motion is None else inversion(shop, shop.moving, trial, clip)
    return editors.fatezero(
        shop.moving, clip, trial.source, trial.target, settings=settings, trajectory=shared, **told(shop, trial)
    )  # fmt: skip


def _fatezero_tuned(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    return editors.fatezero(
        tuned_model(shop, trial, clip), clip, trial.source, trial.target, settings=SHAPE, **told(shop, trial)
    )  # fmt: skip


def _tune_a_video(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    """`editors.tune_a_video` with the tuning shared by the edits of a clip."""
    model = tuned_model(shop, trial, clip)
    return sample(
        model, clip, trial.target, steps=shop.grid(trial), strength=shop.share(trial), guidance_scale=shop.scale(trial),
        progress=False,
    )  # fmt: skip


def tuned_model(shop: Workshop, trial: Trial, clip: Tensor) -> Pipeline:
    """The image model, tuned on a clip and its prompt."""

    def find() -> Pipeline:
        return tune(
            shop.still, clip, trial.source, steps=shop.tuning_steps, learning_rate=shop.tuning_rate, seed=trial.number,
            progress=False,
        )[0]  # fmt: skip

    return shop.once("tuned", (trial.clip_name, trial.source), find)


def _null_text(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    """`editors.null_text` with the null texts shared by the edits of a clip."""
    scale = shop.scale(trial)

    work = begin(shop.moving, clip, shop.grid(trial), strength=shop.share(trial))
    described, wanted = work.conditions(trial.source, trial.target)

    def find() -> NullText:
        pivot = inversion(shop, shop.moving, trial, clip)
        descent = dataclasses.replace(shop.descent, recompute=not shop.small)
        return find_nulls(work, described, pivot, scale=scale, descent=descent, progress=False)

    found = shop.once(
        "nulls",
        (trial.clip_name, trial.source, scale, shop.grid(trial), shop.share(trial), described[0].tokens["text"].shape),
        find,
    )
    with torch.no_grad():
        x = work.sample(following(work, wanted, found.at, scale), found.trajectory.noise, progress=False)
    return work.edited(x, reconstruction_psnr=work.psnr(found.reached.clean))


def _null_text_of_a_picture(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    """The paper's own case: one picture, and the image model."""
    return _null_text(dataclasses.replace(shop, moving=shop.still), trial, clip)


def _frames_alone(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    """The image model's pictures of the prompt, each from its own noise."""
    made = shop.still(
        trial.target, num_frames=shop.frames // 2, num_inference_steps=shop.steps, guidance_scale=shop.guidance,
        seed=trial.seed, output_type="pt", progress=False,
    )  # fmt: skip
    return Edited(made.frames[0])


def _text2video_zero(shop: Workshop, trial: Trial, clip: Tensor) -> Edited:
    """With a flow in the direction that the prompt names."""
    count, steps = shop.frames // 2, shop.steps
    x, y = world.DIRECTIONS[world.MOTIONS[int(trial.scene.motion[0, 0])]]
    pace = TRAVEL / world.SIZE * 512 / (count - 1)
    upper = steps // 2 if shop.small else None
    lower = None if upper is None else upper - max(1, round(0.06 * steps))
    return editors.text2video_zero(
        shop.still, trial.target, num_frames=count, num_inference_steps=steps, guidance_scale=shop.guidance,
        flow=translation(-x * pace, -y * pace), t0=lower, t1=upper, seed=trial.seed,
    )  # fmt: skip


_ALL = (*EDITS, RECONSTRUCTION)
_AGAIN = (RECONSTRUCTION,)
_NOT_SHAPE = tuple(edit for edit in _ALL if edit != "shape")
SOURCE, TRUTH, PICTURE = "source", "truth", "ddim_inversion_of_a_picture"
# What all are held against comes first: it is measured first for every clip.
METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(SOURCE, "source after the VAE", "", _ALL, _source, None),
        Method(TRUTH, "true edit after the VAE", "", (*_ALL, FROM_TEXT), _truth, None),
        Method("ddim_inversion", "plain inversion", "ddim_inversion", _ALL, _inversion, None),
        Method("ddim_inversion_of_pictures", "plain inversion, image model", "ddim_inversion", _ALL, _inversion_of_pictures, None, 2),
        Method(PICTURE, "plain inversion, one picture", "ddim_inversion", _AGAIN, _inversion_of_pictures, None, FIRST),
        Method("frames_alone", "the image model, frame by frame", "", (FROM_TEXT,), _frames_alone, None, 2),
        Method("sdedit", "SDEdit", "sdedit", EDITS, _sdedit),
        Method("prompt_to_prompt", "Prompt-to-Prompt", "prompt_to_prompt", EDITS, _prompt_to_prompt),
        Method("fatezero", "FateZero", "fatezero", _NOT_SHAPE, _fatezero),
        Method("text2video_zero", "Text2Video-Zero", "text2video_zero", (FROM_TEXT,), _text2video_zero, "frames_alone", 2),
        Method("null_text", "Null-text inversion over frames", "null_text", _ALL, _null_text, tuned=True),
        Method("null_text_of_a_picture", "Null-text inversion of one picture", "null_text", _AGAIN, _null_text_of_a_picture, PICTURE, FIRST, True),
        Method("tune_a_video", "Tune-A-Video", "tune_a_video", EDITS, _tune_a_video, "ddim_inversion_of_pictures", 2, True),
        Method("fatezero_tuned", "FateZero on a tuned model", "fatezero", ("shape",), _fatezero_tuned, "ddim_inversion_of_pictures", 2, True),
    )
}  # fmt: skip
BOUNDS = (SOURCE, TRUTH)
BASELINES = tuple(sorted({method.against for method in METHODS.values() if method.against}))
MEASURED = tuple(name for name in METHODS if name not in BOUNDS and (name not in BASELINES or name == "ddim_inversion"))
"""Methods that can be asked for by name."""
