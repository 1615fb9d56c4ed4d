"""Where the configurations are: beside the packages in a checkout, inside the package in a wheel."""

from difflib import get_close_matches
from pathlib import Path

import videogen
from videogen.errors import InputError


def configs_folder() -> Path:
    """The folder of the YAML files, one per experiment. Raises InputError where the installation has none."""
    package = Path(videogen.__file__).parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise InputError("this installation of videogen has no configs folder; install it again")


def config_file(name: str) -> Path:
    """The file that `videogen train NAME` means: a path that exists, else a name under `configs_folder()`.

    A name is given as it stands there, with or without `.yaml`, e.g. `miniature/image`. Raises InputError, with the
    nearest names, where there is no such file.
    """
    if Path(name).is_file():
        return Path(name)
    folder = configs_folder()
    known = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    wanted = name.removesuffix(".yaml").removeprefix("configs/")
    if wanted in known:
        return folder / f"{wanted}.yaml"
    near = get_close_matches(wanted, known, n=3, cutoff=0.4)
    told = f"the nearest: {', '.join(near)}" if near else f"there are: {', '.join(known) or 'none'}"
    raise InputError(f"there is no configuration {name!r}; {told}")
