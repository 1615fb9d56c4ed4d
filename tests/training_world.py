"""What the recipes on users' data need, as small as it gets: a whole model folder, and a folder of captioned films."""

import json
from pathlib import Path
from typing import Any

from tests import tiny_world
from tests.videogen.data.films import film, picture
from videogen.training import recipes
from videogen.training.config import RunConfig
from videogen.training.denoising import Batch
from videogen.training.diffusion import Diffusion
from videogen.training.image import PARTS, SCHEDULER
from videogen.training.loop import Loop
from videogen.training.recipe import JUDGE_SEED, Draw

MODULES = {"modules": {"heads": 2}}
Worlds = tuple[Path, Path]
"""A model folder and a folder of films."""


def model(folder: Path, **scheduler: Any) -> Path:
    """The tiny world with the index of a Stable Diffusion folder; its schedule with some entries changed."""
    tiny_world.write(folder)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER | scheduler))
    parts = {name: PARTS[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"} | parts))
    return folder


def films(folder: Path, count: int = 3) -> Path:
    """Films of 20 frames with captions."""
    for i in range(count):
        film(folder / f"{i}.mp4", 20)
        (folder / f"{i}.txt").write_text(f"film {i}")
    return folder


def pictures(folder: Path, count: int = 3) -> Path:
    """Pictures with captions."""
    for i in range(count):
        picture(folder / f"{i}.png", 5 * i)
        (folder / f"{i}.txt").write_text(f"picture {i}")
    return folder


def data(folder: Path, **values: Any) -> dict[str, Any]:
    """A `data` section: two clips of four frames a step."""
    small = {
        "sources": [{"layout": "pairs", "folder": str(folder)}], "frames": 4, "size": "32x32", "batch_size": 2,
        "store": str(folder.parent / "store"),
    }  # fmt: skip
    return small | values


def run(recipe: str, model: Path, section: dict[str, Any], out: Path, **settings: Any) -> dict[str, Any]:
    """A configuration of three steps."""
    return {
        "recipe": recipe, "out": str(out / "run"), "export": str(out / "export"), "budget": {"steps": 3},
        "settings": {"model": str(model), "data": section} | settings,
    }  # fmt: skip


def looped(
    recipe: str, worlds: Worlds, out: Path, section: dict[str, Any] | None = None, **settings: Any
) -> tuple[Loop, Path]:
    """A loop of three steps on these worlds."""
    values = run(recipe, worlds[0], data(worlds[1], **(section or {})), out, **settings)
    offer = recipes()[recipe]()
    config = RunConfig[offer.settings].model_validate(values)  # type: ignore[name-defined]
    return Loop(config, offer.build(config if offer.takes_run else config.settings)), out


def recipe_of(recipe: str, worlds: Worlds, out: Path, section: dict[str, Any] | None = None, **settings: Any) -> Any:
    """A recipe that is prepared, without a loop."""
    made: Any = looped(recipe, worlds, out, section, **settings)[0].recipe
    return made


def sample(recipe: Diffusion) -> Batch:
    """What a recipe is judged on, as one batch."""
    return next(recipe.batches(iter([Draw(JUDGE_SEED, 0)])))
