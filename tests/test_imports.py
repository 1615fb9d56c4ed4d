"""Law 8: the import directions hold, and importing the package is fast and needs no optional dependency."""

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("videogen", "motion_modules", "editors")
# package -> what it may import of ours
ABOVE = {
    "videogen": {"videogen"},
    "motion_modules": {"videogen", "motion_modules"},
    "editors": {"videogen", "motion_modules", "editors"},
    "scripts": {"videogen", "motion_modules", "editors", "scripts"},
    "benchmarks": {"videogen", "motion_modules", "editors", "benchmarks"},
}
# Inside videogen: room -> the rooms it may import. Rooms without a row may import everything but the command line.
WORDS = {"errors", "mixing"}
NOUNS = WORDS | {"path", "prediction", "conditioning"}
NET = NOUNS | {"control", "attention", "files", "foreign"}
ROOMS = {
    "errors": set(),
    "applied": {"errors"},
    "foreign": set(),
    "mixing": {"errors"},
    "files": {"errors"},
    "path": WORDS,
    "prediction": WORDS,
    "conditioning": WORDS,
    "control": WORDS | {"conditioning"},  # what a control does is dialled as a condition is
    "attention": NOUNS | {"control"},
    "models": NET | {"models"},
    "adapters": NET | {"models", "adapters", "denoiser"},
    "denoiser": NOUNS | {"control", "applied"},
    "times": NOUNS,
    "noise": NOUNS,
    "guidance": NOUNS,
    "energy": NOUNS,
    "branches": NOUNS | {"control", "denoiser", "guidance"},
    "windows": NOUNS,
    "sampling": NOUNS | {"times", "noise"},
    "inversion": NOUNS | {"times", "noise", "sampling"},
    "clip": WORDS,
    "sound": WORDS | {"files", "clip"},
    "pictures": WORDS | {"clip"},
    "movie": WORDS | {"files", "clip", "sound"},
    "recipe": WORDS | {"models"},
    "video": WORDS | {"files", "clip", "sound", "pictures", "movie", "recipe"},
    "shapes": WORDS | {"files", "clip", "shapes"},
    "data": WORDS | {"files", "clip", "pictures", "movie", "models", "data"},  # models: what a cache is filled with
    "corpus": WORDS | {"files", "clip", "movie", "data", "shapes", "corpus"},
}
# libraries that trip over a broken torchvision; `import videogen.foreign` comes before them
TRIPPING = {"diffusers", "transformers", "peft"}


def python_files() -> list[Path]:
    """Every Python file of the project that can be imported or run, tests apart."""
    return sorted(path for top in ABOVE for path in (ROOT / top).rglob("*.py"))


def module_of(path: Path) -> str:
    """`videogen/models/unet.py` -> `videogen.models.unet`; a package's `__init__.py` keeps its last part."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def known_modules() -> set[str]:
    """Modules and packages of ours, by dotted name."""
    names = {module_of(path).removesuffix(".__init__") for path in python_files()}
    return names | {name.rpartition(".")[0] for name in names if "." in name}


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that `source`, being `module`, imports, wherever in the file it does so."""
    known = known_modules()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*parent, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                deeper = f"{origin}.{alias.name}"
                yield node.lineno, deeper if deeper in known else origin
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            literal = node.args[0] if node.args else None
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                yield node.lineno, literal.value


def room_of(module: str) -> str:
    """The first part below `videogen`; empty for the package itself."""
    return module.removesuffix(".__init__").partition(".")[2].partition(".")[0]


def violations(source: str, module: str) -> list[str]:
    """What `source`, being `module`, imports against the directions."""
    package, room = module.split(".")[0], room_of(module)
    wrong = []
    for line, name in imported(source, module):
        head, target = name.split(".")[0], room_of(name)
        if head in ("tests", "scripts", "benchmarks", *PACKAGES) and head not in ABOVE[package]:
            wrong.append(f"{module}:{line} imports {name}: {package} may know only {sorted(ABOVE[package])}")
        elif head != "videogen":
            continue
        elif package == "videogen" and room in ROOMS and target not in ROOMS[room]:
            wrong.append(f"{module}:{line} imports {name}: {room} may know only {sorted(ROOMS[room])}")
        elif target == "cli" and package != "scripts" and room not in ("cli", "__main__"):
            wrong.append(f"{module}:{line} imports {name}: nothing stands above the command line but scripts")
    return wrong


def test_import_directions_hold_in_every_file() -> None:
    files = python_files()
    assert len(files) > 10
    wrong = [text for path in files for text in violations(path.read_text(encoding="utf-8"), module_of(path))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("videogen.pipeline", "from motion_modules.animatediff import add_motion"),
        ("videogen.cli.generate", "import editors.fatezero"),
        ("motion_modules.loading", "from editors import fatezero"),
        ("editors.fatezero", "import scripts.demo"),
        ("videogen.path", "from videogen.prediction import Prediction"),
        ("videogen.path", "from .prediction import Prediction"),
        ("videogen.path", "from . import prediction"),
        ("videogen.path", "import videogen.prediction as p"),
        ("videogen.path", "from videogen import Prediction"),
        ("videogen.path", "from importlib import import_module\nimport_module('videogen.models.unet')"),
        ("videogen.control", "def late():\n    from videogen.attention import spatial"),
        ("videogen.guidance", "from videogen.denoiser import Denoiser"),
        ("videogen.sampling", "if True:\n    import videogen.models.unet"),
        ("videogen.models.unet", "from videogen.denoiser import Denoiser"),
        ("videogen.models.unet", "from ..denoiser import Denoiser"),
        ("videogen.models.weights.files", "from ...pipeline import Pipeline"),
        ("videogen.training.loop", "from videogen.cli.app import main"),
        ("motion_modules.loading", "from videogen.cli import app"),
        ("videogen.shapes.render", "from videogen.models import unet"),
    ],
)
def test_the_checker_sees_a_planted_violation(module: str, line: str) -> None:
    assert len(violations(f'"""A file."""\n\n{line}\n', module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("videogen.path", "from videogen.errors import InputError"),
        ("videogen.models.__init__", "from .unet import UNet"),
        ("videogen.models.unet", "from . import blocks\nfrom ..control import Pass\nimport torch"),
        ("videogen.cli.app", "from videogen import __version__"),
        ("motion_modules.loading", "from videogen.models.unet import UNet"),
        ("editors.fatezero", "import motion_modules.animatediff\nimport videogen"),
        ("scripts.demo", "from videogen.cli.app import main"),
    ],
)
def test_the_checker_lets_the_right_direction_pass(module: str, line: str) -> None:
    assert violations(line, module) == []


def trips(source: str) -> bool:
    """Whether a file imports a library that trips over a broken torchvision without setting that aside."""
    tree = ast.parse(source)
    for node in ast.walk(tree):  # what stands under `if TYPE_CHECKING:` never runs
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = [ast.Pass()]
    names = {name for _, name in imported(ast.unparse(tree), "a.module")}
    return any(name.split(".")[0] in TRIPPING for name in names) and "videogen.foreign" not in names


def test_files_that_need_transformers_or_diffusers_set_a_broken_torchvision_aside() -> None:
    paths = [path for path in python_files() if path.relative_to(ROOT).parts[0] in PACKAGES]
    wrong = [module_of(path) for path in paths if trips(path.read_text(encoding="utf-8"))]
    assert not wrong, f"these need `import videogen.foreign` before diffusers, transformers or peft: {wrong}"


def test_a_planted_unguarded_import_is_seen() -> None:
    assert trips("def load():\n    from transformers import CLIPTextModel")
    assert not trips("import videogen.foreign\nfrom diffusers import AutoencoderKL")
    assert not trips("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import diffusers")


def python(code: str, *path: Path) -> str:
    """What a fresh interpreter prints that runs `code` with `path` before everything else."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_ALL = f"""
import importlib, warnings
warnings.simplefilter("ignore")
for name in {sorted(name for name in known_modules() if name.split(".")[0] in PACKAGES and not name.endswith("__main__"))}:
    importlib.import_module(name)
import diffusers, transformers
transformers.CLIPTextModel, transformers.CLIPVisionModelWithProjection, diffusers.AutoencoderKL
print("imported")
"""


def test_everything_imports_where_torchvision_is_missing() -> None:
    assert python("import sys; sys.modules['torchvision'] = None\n" + IMPORT_ALL).strip() == "imported"


def test_everything_imports_where_torchvision_is_broken(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    metadata = tmp_path / "torchvision-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.0\n")
    with pytest.raises(AssertionError, match="torchvision"):  # it really is broken
        python("import torchvision", tmp_path)
    assert python(IMPORT_ALL, tmp_path).strip() == "imported"


def test_training_on_the_world_needs_no_video_library() -> None:
    """Clips are drawn, and the loop and the recipes of the miniature are imported, where no library can open a video."""
    recipes = [f"videogen.training.{name}" for name in ("autoencoder", "text_image", "image", "words")]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys(("av", "decord", "cv2"), None))
for name in ("videogen.cli.train", "videogen.training.loop", "motion_modules.training", *{recipes}):
    importlib.import_module(name)
import torch
from videogen.shapes import render, sample
print(tuple(render(sample(2, generator=torch.Generator()), frames=4).frames.shape))
"""
    assert python(code).strip() == "(2, 4, 3, 128, 128)"


def test_importing_videogen_pulls_in_no_heavy_library() -> None:
    heavy = {"accelerate", "av", "decord", "diffusers", "matplotlib", "peft", "PIL", "pydantic"}
    heavy |= {"torchvision", "transformers", "typer", "xformers", "yaml"}
    loaded = set(python("import videogen, sys; print(*{name.split('.')[0] for name in sys.modules})").split())
    assert "videogen" in loaded
    assert not loaded & heavy


def test_importing_videogen_takes_under_half_a_second_beyond_torch() -> None:
    code = "import time, torch; start = time.perf_counter(); import videogen; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(3)) < 0.5


def test_every_public_name_resolves_and_no_other() -> None:
    import videogen

    assert all(getattr(videogen, name) is not None for name in videogen.__all__)
    assert set(videogen.__all__) <= set(dir(videogen))
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = videogen.Nonsense  # type: ignore[attr-defined]


def test_what_scripts_and_benchmarks_import_of_ours_exists() -> None:
    """Also inside functions, which no other test may run: a name that moved is seen here."""
    missing = []
    for path in python_files():
        if path.relative_to(ROOT).parts[0] not in ("benchmarks", "scripts"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                module = importlib.import_module(str(node.module))
                missing += [
                    f"{path.name}: {node.module}.{alias.name}"
                    for alias in node.names
                    if not hasattr(module, alias.name) and f"{node.module}.{alias.name}" not in known_modules()
                ]
    assert missing == []
