"""Training: one loop, recipes, configurations, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from videogen.errors import InputError
from videogen.training.config import RunConfig, Strict, override, read, validate
from videogen.training.flags import spelt, translated
from videogen.training.recipe import Draw, Recipe

__all__ = ["Draw", "Offer", "Recipe", "built", "configured", "recipes", "train"]


class Offer(NamedTuple):
    """A recipe by name: its settings' class, and what builds it from them, or (`takes_run`) from the whole `RunConfig` that holds them."""

    settings: type[Strict]
    build: Callable[[Any], Recipe]
    takes_run: bool = False


def _autoencoder() -> Offer:
    from videogen.training.autoencoder import Autoencoder, Settings

    return Offer(Settings, Autoencoder)


def _text_image() -> Offer:
    from videogen.training.text_image import Settings, TextImage

    return Offer(Settings, TextImage)


def _shapes_image() -> Offer:
    from videogen.training.image import Image, Settings

    return Offer(Settings, Image)


def _image() -> Offer:
    from videogen.training.image_layers import image

    return image()


def _lora() -> Offer:
    from videogen.training.image_layers import lora

    return lora()


def _words() -> Offer:
    from videogen.training.words import offer

    return offer()


def recipes() -> Mapping[str, Callable[[], Offer]]:
    """Every recipe by name: the core's, and those that packages above it announce (entry points `videogen.recipes`)."""
    known = {
        "autoencoder": _autoencoder, "text_image": _text_image, "words": _words, "shapes_image": _shapes_image, "image": _image, "lora": _lora,
    }  # fmt: skip
    return known | {entry.name: _announced(entry) for entry in entry_points(group="videogen.recipes")}


def _announced(entry: Any) -> Callable[[], Offer]:
    return lambda: entry.load()()


def configured(config: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a training's YAML file with flags and overrides put in (see `train`); nothing is validated yet."""
    return override(translated(read(config)), spelt(overrides))


def built(
    values: Mapping[str, Any], offers: Mapping[str, Callable[[], Offer]] | None = None
) -> tuple[RunConfig[Any], Recipe]:
    """The run that a training's values describe, and its recipe, not prepared. Raises InputError for a wrong key or value."""
    offers = recipes() if offers is None else offers
    name = str(values.get("recipe"))
    if name not in offers:
        raise InputError(f"configuration: recipe is {name!r}; known are {', '.join(offers)}")
    offer = offers[name]()
    run = validate(RunConfig[offer.settings], values)  # type: ignore[name-defined]
    return run, offer.build(run if offer.takes_run else run.settings)


def train(
    config: str | Path,
    overrides: Sequence[str] = (),
    resume: str | None = None,
    *,
    offers: Mapping[str, Callable[[], Offer]] | None = None,
) -> Path:
    """Run the training that the YAML file `config` describes; return the last checkpoint's folder.

    overrides  `a.b=value`, put into the file's values; the common example scripts' flags do too (`max_train_steps=1000`), see `flags`
    resume     "latest", or a checkpoint folder
    offers     recipes by name, where not the installed ones

    Raises InputError for a wrong key or value, and where there is nothing, or something else, to resume.
    """
    from videogen.training.loop import Loop

    return Loop(*built(configured(config, overrides), offers)).run(resume)
