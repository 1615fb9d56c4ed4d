"""Parts above the core that announce themselves in their package's metadata, the way plug-ins do: the core imports nothing above itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from videogen.errors import InputError
from videogen.models.folder import read_json


def needed(group: str, what: str) -> Any:
    """What announces itself in a group. Raises InputError where nothing does; `what` it would bring is said there."""
    found = list(entry_points(group=group))
    if not found:
        raise InputError(
            f"no {what} are installed beside videogen; install the whole distribution (pip install videogen)"
        )
    return found[0].load()


def motion_installer() -> Callable[[Any, Path], Any]:
    """What installs motion modules (group `videogen.motion`): called `(unet, source)`, it returns a `pipeline.Motion`."""
    return needed("videogen.motion", "motion modules")


def model_opener(folder: Path) -> Callable[[Path, Any], Any] | None:
    """What opens a model folder whose UNet is of a class that the core does not know, or None.

    Group `videogen.models`, by the name of the class; called `(folder, dtype)`, it returns a `Pipeline`.
    """
    config = folder / "unet" / "config.json"
    kind = read_json(config).get("_class_name") if config.is_file() else None
    found = [entry for entry in entry_points(group="videogen.models") if entry.name == kind]
    return found[0].load() if found else None
