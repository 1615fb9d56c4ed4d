"""What `editing.py` measures: for each side of a pair, a call made ready, and a shorter one that warms it up.

Every function takes the setting of a row and returns (call, warm); a call returns what is compared with the other side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Setting = Mapping[str, Any]
Side = tuple[Callable[[], Tensor], Callable[[], object]]

SOURCE, TARGET = "a red circle moving right", "a blue circle moving right"
DRAWS = 5  # the seed of fresh noise, which both libraries draw from a generator alike


def clip(setting: Setting) -> Tensor:
    """Frames `f 3 H W` in [0, 1] of the shapes world."""
    from videogen.shapes import render, sample

    scenes = sample(1, generator=torch.Generator().manual_seed(0))
    return render(scenes, frames=setting["frames"], size=setting["side"]).frames[0]


def _pipe(setting: Setting) -> Any:
    from videogen.pipeline import Pipeline

    return Pipeline.from_pretrained(setting["folder"], device=setting["device"])


def _moments(steps: int) -> tuple[int, int]:
    """The places 44 and 47 of 50, in a grid of so many steps."""
    return round(44 / 49 * (steps - 1)), round(47 / 49 * (steps - 1))


def _noise(setting: Setting) -> Tensor:
    side = setting["side"] // 8
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(3))


def zero_diffusers(setting: Setting) -> Side:
    """Text2Video-Zero by diffusers' pipeline: frames `f 3 H W`."""
    import videogen.foreign

    from diffusers import StableDiffusionPipeline, TextToVideoZeroPipeline

    loaded = StableDiffusionPipeline.from_pretrained(setting["folder"], local_files_only=True, safety_checker=None)
    parts = {name: part for name, part in loaded.components.items() if name != "image_encoder"}
    pipe = TextToVideoZeroPipeline(**parts, requires_safety_checker=False).to(setting["device"])
    pipe.set_progress_bar_config(disable=True)
    t0, t1 = _moments(setting["steps"])

    def call() -> Tensor:
        made = pipe(
            TARGET, video_length=setting["frames"], height=setting["side"], width=setting["side"], latents=_noise(setting),
            num_inference_steps=setting["steps"], generator=torch.Generator().manual_seed(DRAWS), output_type="np",
            t0=t0, t1=t1,
        )  # fmt: skip
        return torch.from_numpy(made.images).permute(0, 3, 1, 2)

    return call, call


def zero_videogen(setting: Setting) -> Side:
    """The same by ours."""
    from editors import text2video_zero

    pipe = _pipe(setting)
    t0, t1 = _moments(setting["steps"])

    def call() -> Tensor:
        made = text2video_zero(
            pipe, TARGET, num_frames=setting["frames"], height=setting["side"], width=setting["side"], latents=_noise(setting)[None],
            num_inference_steps=setting["steps"], generator=torch.Generator().manual_seed(DRAWS), early=True,
            t0=t0, t1=t1,
        )  # fmt: skip
        frames: Tensor = made.frames
        return frames

    return call, call


def _fatezero(setting: Setting, hold: Any) -> Side:
    from editors import fatezero

    pipe, source = _pipe(setting), clip(setting)

    def edit(steps: int) -> Tensor:
        frames: Tensor = fatezero(pipe, source, SOURCE, TARGET, hold=hold, steps=steps, progress=False).frames
        return frames

    return lambda: edit(setting["steps"]), lambda: edit(1)


def fate_memory(setting: Setting) -> Side:
    """FateZero with the inversion's maps of all steps in memory."""
    return _fatezero(setting, "memory")


def fate_recomputed(setting: Setting) -> Side:
    """FateZero whose source branch runs again at each step."""
    return _fatezero(setting, "recomputed")


def fate_counted(setting: Setting) -> Side:
    """The bytes that maps of all steps take: of each step those that its edit needs, with the sizes that one call gives them."""
    from editors.fatezero import ATTRIBUTE, default_frames, settled
    from editors.map_levels import attention_sites
    from editors.workpiece import begin
    from videogen.control import Keep

    pipe = _pipe(setting)
    unet, source = pipe.parts.unet, clip(setting)

    @torch.no_grad()
    def call() -> Tensor:
        work = begin(pipe, source, setting["steps"], frames=default_frames(pipe))
        given, other = work.conditions(SOURCE, TARGET)
        plan = settled(unet, given[0].words[0], other[0].words[0], ATTRIBUTE)
        times = tuple(work.times.t.tolist())
        sites = [site for site in attention_sites(unet) if any(plan.sites(t, times)(site) for t in times)]
        places = {site.place for site in sites}
        kept = work.ask(given, 1.0, Keep(lambda site: site.place in places))(work.latents, times[-1]).kept
        sizes = {place: probs.numel() * probs.element_size() for place, probs in kept.items()}
        total = sum(sizes[site.place] for t in times for site in sites if plan.sites(t, times)(site))
        return torch.tensor(total / 2**20, dtype=torch.float64)

    return call, call


def tune_plain(setting: Setting) -> Side:
    """A step of Tune-A-Video as a plain loop whose attention writes its maps out and keeps them: its first loss."""
    from videogen.control import Control
    from videogen.frame_choice import SPARSE_CAUSAL

    class WrittenOut(Control):
        """Changes nothing and has every map made."""

        def wants_maps(self, site: Any, p: Any) -> bool:
            return True

    recipe, batch = _tuning(setting, checkpointing=False)
    denoiser, control = recipe.about.pipe.denoiser, SPARSE_CAUSAL >> WrittenOut()

    def error() -> Tensor:
        alpha, sigma = (
            value.to(batch.noise) for value in (denoiser.path.alpha(batch.times), denoiser.path.sigma(batch.times))
        )
        x = alpha * batch.latents + sigma * batch.noise
        return (denoiser.given(recipe.told, control)(x, batch.times).out - batch.noise).square().mean()

    return _steps(recipe, error)


def tune_videogen(setting: Setting) -> Side:
    """The same step of the recipe."""
    recipe, batch = _tuning(setting, checkpointing=setting["checkpointing"])
    return _steps(recipe, lambda: recipe.error(batch))


def _tuning(setting: Setting, checkpointing: bool) -> tuple[Any, Any]:
    """The recipe made ready, and one batch."""
    from motion_modules import tuning
    from motion_modules.tune_a_video_folder import animated, pipeline

    torch.manual_seed(0)
    tuned = pipeline(animated(_pipe(setting).parts)).to(setting["device"])
    recipe = tuning.Tuning(
        tuning.How(gradient_checkpointing=checkpointing), lambda device: tuning.Subject(tuned, clip(setting), SOURCE)
    )
    tuned.parts.unet.requires_grad_(False)
    for value in recipe.prepare(torch.device(setting["device"]))["tuned"]:
        value.requires_grad_(True)
    noise = torch.randn(1, *recipe.mean.shape, generator=torch.Generator().manual_seed(DRAWS)).to(recipe.device)
    return recipe, tuning.Batch(recipe.mean[None], torch.tensor([500]), noise)


def _steps(recipe: Any, error: Callable[[], Tensor]) -> Side:
    """Loss, gradients, AdamW; what a call returns is the loss before the first step."""
    optimizer = torch.optim.AdamW([value for value in recipe.root.parameters() if value.requires_grad], lr=3e-5)
    with torch.no_grad():
        first = error()

    def step() -> Tensor:
        error().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return first

    return step, step


def chunks(setting: Setting) -> Side:
    """`videogen edit` of a file by FateZero, in chunks of eight frames, by the miniature; what is returned says nothing."""
    from videogen import chunked, editing, generation, video
    from videogen.clip import Clip

    holder = tempfile.TemporaryDirectory()

    def edit(frames: int) -> Tensor:
        source = Path(holder.name) / f"{frames}.mp4"
        if not source.exists():
            video.write(source, Clip(clip({**setting, "frames": frames})))
        base = generation.Request(prompt=TARGET, model="shapes", steps=setting["steps"], device=setting["device"])
        asked = editing.Request(str(source), base, source_prompt=SOURCE, method="fatezero", chunk=8, overlap=2)
        targets = chunked.Targets((source.with_name("edited.mp4"),), overwrite=True)
        chunked.edit_file(asked, targets, progress=False)
        return torch.zeros(())

    video.write(Path(holder.name) / f"{setting['frames']}.mp4", Clip(clip(setting)))
    return lambda: edit(setting["frames"]), lambda: edit(8)


SIDES: dict[str, Callable[[Setting], Side]] = {
    "zero.diffusers": zero_diffusers,
    "zero.videogen": zero_videogen,
    "fate.memory": fate_memory,
    "fate.recomputed": fate_recomputed,
    "fate.counted": fate_counted,
    "tune.plain": tune_plain,
    "tune.videogen": tune_videogen,
    "chunks": chunks,
}
