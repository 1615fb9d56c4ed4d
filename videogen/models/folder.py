"""Model folders in diffusers' layout, and hub ids: what they hold, read strictly, and written so that diffusers loads them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videogen.errors import InputError, reason
from videogen.models import sizes
from videogen.models.autoencoder import present_name, shift_scale
from videogen.models.text import TextSide, load_text_side, save_text_side, suffixed
from videogen.models.text_encoder import TextEncoder
from videogen.models.unet import UNet, UNetConfig
from videogen.models.weights import files
from videogen.models.weights.strict import load_state
from videogen.path import Path as NoisePath
from videogen.prediction import kind_from_config

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# What a pipeline of this family may need of a hub repository: a part's folder, or a motion adapter's own at the top.
CONFIGS = ("*.json", "*/*.json", "*/*.txt", "*/*.model")
WEIGHTS = tuple(
    f"{place}{stem}*{ending}"
    for place in ("", "*/")
    for stem in files.FOLDER_NAMES
    for ending in (".safetensors", ".bin")
)
SCHEDULER = "scheduler_config.json"
# Beside it where motion modules have a schedule of their own, which the other then is: diffusers has one for clips and pictures.
SCHEDULER_OF_PICTURES = "scheduler_config_of_pictures.json"
LEFT_OUT = ("safety_checker/*", "feature_extractor/*", "image_encoder/*")


@dataclasses.dataclass
class Parts:
    """The parts of a model, before they are a pipeline.

    scheduler  the content of a `scheduler_config.json`
    motion     the folder of a motion adapter that came along
    pictures_apart  whether `scheduler` is that of pictures alone, and the adapter brings another
    advice     what the model's makers advise, from its `videogen.json`: `steps`, `guidance`, `strength` of edits
    """

    unet: UNet
    vae: AutoencoderKL
    text: TextSide
    scheduler: dict[str, Any]
    line: str
    motion: Path | None = None
    pictures_apart: bool = False
    advice: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Parts:
        """Move all parts; returns itself.

        SDXL's VAE overflows in float16. Where its config says so (`force_upcast`) it stays in float32, as diffusers'
        SDXL pipelines run it. VAEs of other families have that key by their class's default alone.
        """
        self.unet.to(device, dtype)
        self.text.to(device, dtype)
        upcast = dtype == torch.float16 and self.unet.config.size_width is not None and self.vae.config["force_upcast"]
        torch.nn.Module.to(self.vae, device, torch.float32 if upcast else dtype)  # diffusers' own warns of any dtype
        return self


def find(
    source: str | Path,
    variant: str | None = None,
    subfolder: str | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """A folder or file on disk, or a hub id through the ordinary cache (HF_HUB_OFFLINE is honoured); `shapes` is the miniature in this package.

    variant    of the weights that are fetched from a hub, where a part has it
    subfolder  of the folder that is meant

    Raises InputError where there is neither.
    """
    place = _found(source, variant, subfolder, revision, local_files_only)
    if subfolder is None:
        return place
    if Path(subfolder).is_absolute() or ".." in Path(subfolder).parts or not (place / subfolder).is_dir():
        raise InputError(f"{source} has no folder {subfolder}; name one of its own")
    return place / subfolder


def _found(
    source: str | Path, variant: str | None, subfolder: str | None, revision: str | None, local_files_only: bool
) -> Path:
    if str(source) == "shapes":
        return miniature()
    if not str(source).strip():
        raise InputError("an empty name was given for a model or motion module; give a folder, a file or a hub id")
    try:
        path = Path(source).expanduser()
    except RuntimeError:  # of a user that this machine does not know
        path = Path(source)
    if path.exists():
        return path
    text = str(source)
    if text.count("/") != 1 or text.startswith((".", "/", "~")) or path.suffix in files.SUFFIXES:
        raise InputError(
            f"{text} does not exist; give a model folder, a .safetensors or .ckpt file, or a hub id such as owner/name"
        )
    return _from_hub(text, variant, subfolder, revision, local_files_only)


def _from_hub(
    text: str, variant: str | None, subfolder: str | None, revision: str | None, local_files_only: bool
) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    within = "" if subfolder is None else f"{subfolder.strip('/')}/"
    patterns = [within + pattern for pattern in (*CONFIGS, *WEIGHTS)]
    if not local_files_only:
        # Without an answer, what is in the cache may do; what it is that fails is told below.
        with contextlib.suppress(Exception):
            names = HfApi().list_repo_files(text, revision=revision)
            inside = [name.removeprefix(within) for name in names if name.startswith(within)]
            patterns = [within + name for name in needed(inside, variant)]
    try:
        return Path(
            snapshot_download(
                text,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=[within + pattern for pattern in LEFT_OUT],
            )
        )
    except Exception as problem:
        raise InputError(
            f"{text} is neither a folder here nor a model in the cache, and it cannot be downloaded ({reason(problem)})"
        ) from problem


def needed(names: Sequence[str], variant: str | None = None) -> list[str]:
    """Which files of a hub repository a pipeline reads: configs, and of each part one set of weights, in the order in which `files.read` looks."""
    kept = [name for name in names if name.count("/") < 2 and not any(fnmatch(name, pattern) for pattern in LEFT_OUT)]
    wanted = {name for name in kept if ".index." not in name and any(fnmatch(name, pattern) for pattern in CONFIGS)}
    for place in {name.rpartition("/")[0] for name in kept}:
        inside = {name.rpartition("/")[2]: name for name in kept if name.rpartition("/")[0] == place}
        wanted |= {inside[name] for name in files.chosen(inside, variant)}
    return sorted(wanted)


def miniature() -> Path:
    """The folder of the trained miniature of the shapes world. Raises InputError where this installation lacks it."""
    place = Path(__file__).parents[1] / "shapes" / "miniature"
    if not (place / "model_index.json").is_file():
        raise InputError(
            "this installation lacks the miniature model (videogen/shapes/miniature); install the whole package, or give --model"
        )
    return place


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError, with the path, where it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; a model folder in diffusers' layout needs it") from None
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{path} is not readable JSON ({problem})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return content


def load_unet(folder: Path, dtype: torch.dtype, variant: str | None = None) -> UNet:
    """A UNet from `config.json` and its weights."""
    content = read_json(folder / "config.json")
    with describing(folder / "config.json"), torch.device("meta"):
        unet = UNet(UNetConfig.from_diffusers(content))
    # diffusers saves an animated UNet (UNetMotionModel) with its motion modules inside; they are installed as a part of their own.
    state = {n: v.to(dtype) for n, v in files.read(folder, variant).items() if "motion_modules." not in n}
    load_state(unet, state, folder)
    return unet.eval()


def load_vae(folder: Path, dtype: torch.dtype, variant: str | None = None) -> AutoencoderKL:
    """diffusers' `AutoencoderKL` from `config.json` and its weights, as strictly as the other parts."""
    from videogen.foreign import set_broken_torchvision_aside

    set_broken_torchvision_aside()
    from diffusers import AutoencoderKL

    config = read_json(folder / "config.json")
    kind = config.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise InputError(f"{folder} is a {kind}; only AutoencoderKL, the VAE of Stable Diffusion, can be used")
    with describing(folder / "config.json"), torch.device("meta"):
        vae: AutoencoderKL = AutoencoderKL.from_config(config)
        shift_scale(vae.config, torch.device("cpu"))  # numbers that cannot be used are told now
    state = {present_name(n): v.to(dtype) for n, v in files.read(folder, variant).items()}
    load_state(vae, state, folder)
    return vae.eval()


def load_folder(folder: Path, dtype: torch.dtype = torch.float32, variant: str | None = None) -> Parts:
    """All parts of a model folder. Raises InputError for what is missing."""
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"{folder} is no model folder (it has no model_index.json); give the one that holds unet/, vae/ and text_encoder/"
        )
    index = read_json(folder / "model_index.json")
    if not (folder / "unet").is_dir():
        raise InputError(
            f"{folder} has no unet/, though its model_index.json says {index.get('_class_name')}; give a complete Stable Diffusion folder"
        )
    places = [place for place in folder.iterdir() if place.is_dir()]
    if variant and not any(
        f".{variant}" in name for place in places for name in files.chosen(files.names_in(place), variant)
    ):
        raise InputError(f"no part of {folder} has weights of variant {variant}; leave variant out")
    unet = load_unet(folder / "unet", dtype, variant)
    vae = load_vae(folder / "vae", torch.float32, variant)
    text = load_text_side(folder, dtype=dtype, variant=variant)
    animated = read_json(folder / "unet" / "config.json").get("_class_name") == "UNetMotionModel"
    motion = folder / "unet" if animated else folder / "motion_adapter"
    apart = (folder / "scheduler" / SCHEDULER_OF_PICTURES).is_file()
    scheduler_file = folder / "scheduler" / (SCHEDULER_OF_PICTURES if apart else SCHEDULER)
    scheduler = read_json(scheduler_file)
    with describing(scheduler_file):
        NoisePath.from_config(scheduler)
        kind_from_config(scheduler)
    _check_fit(unet, vae, text, folder)
    line = f"{folder.name}: {index.get('_class_name', 'model folder')}, text width {unet.config.context}"
    advice = read_advice(folder / files.ADVICE)
    brought = motion if motion.is_dir() else None
    return Parts(unet, vae, text, scheduler, line, brought, apart, advice).to(dtype=dtype)


def read_advice(path: Path) -> dict[str, float]:
    """`steps`, `guidance` and `strength` from a model's `videogen.json`, if there is one. Raises InputError for anything else in it."""
    advice = read_json(path) if path.is_file() else {}
    for name, value in advice.items():
        if name not in ("steps", "guidance", "strength") or not isinstance(value, (int, float)):
            raise InputError(f"{path} says {name}: {value!r}; it may give numbers for steps, guidance and strength")
    return advice


def write_advice(folder: Path, advice: Mapping[str, float]) -> None:
    """The inverse of `read_advice`: `videogen.json` in a model's folder; no file where nothing is advised."""
    if advice:
        write_json(folder / files.ADVICE, advice)


def _check_fit(unet: UNet, vae: AutoencoderKL, text: TextSide, folder: Path) -> None:
    """Refuse parts that are sound by themselves and do not belong together, or to a plain text-to-image model."""
    latent, taken = vae.config.latent_channels, unet.config.in_channels
    if taken != latent:
        raise InputError(
            f"the UNet in {folder} takes {taken} channels and the VAE has {latent}: an inpainting or other special model; give a plain one"
        )
    width = sum(encoder.width for encoder in text.encoders if isinstance(encoder, TextEncoder))
    if width != unet.config.context:
        raise InputError(
            f"the UNet in {folder} reads text of width {unet.config.context} and the text encoder gives {width}; they are of different models"
        )
    if unet.config.added_width is not None:
        with describing(folder):
            sizes.count(unet.config.added_width, unet.config.size_width, text.pooled or 0)


@contextlib.contextmanager
def describing(file: Path) -> Iterator[None]:
    """Whatever goes wrong while something is built from a config file becomes an InputError that names the file."""
    try:
        yield
    except InputError as problem:
        raise InputError(f"{file}: {problem}") from problem
    except Exception as problem:  # the file is foreign, and so may be the class: nothing tells what it raises
        said = f"{type(problem).__name__}: {reason(problem)}"
        raise InputError(f"{file} cannot be used ({said}); get the file again") from problem


def save_folder(
    parts: Parts,
    folder: Path,
    scheduler: Mapping[str, Any],
    motion: tuple[Mapping[str, Any], Mapping[str, Tensor], Mapping[str, str]] | None = None,
) -> None:
    """Write diffusers' layout into an existing empty folder.

    scheduler  of clips, which may be another than the pictures' in `parts`
    motion     a MotionAdapter's config, state dict and header
    """
    encoders = suffixed(parts.text)
    sdxl, refiner = "_2" in encoders, tuple(encoders) == ("_2",)
    name = "StableDiffusionXLImg2Img" if refiner else "StableDiffusionXL" if sdxl else "StableDiffusion"
    kind = ("AnimateDiffSDXL" if sdxl else "AnimateDiff") if motion else name
    index: dict[str, Any] = {"_class_name": f"{kind}Pipeline", "_diffusers_version": "0.42.1"}
    if sdxl:
        index["force_zeros_for_empty_prompt"] = parts.text.zero_null
    if refiner:
        index |= {"requires_aesthetics_score": True, "text_encoder": [None, None], "tokenizer": [None, None]}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index["scheduler"] = ["diffusers", scheduler.get("_class_name", "DDIMScheduler")]
    for suffix, encoder in encoders.items():
        index[f"text_encoder{suffix}"] = ["transformers", type(encoder.model).__name__]
        index[f"tokenizer{suffix}"] = ["transformers", "CLIPTokenizer"]
    if motion:
        index["motion_adapter"] = ["diffusers", "MotionAdapter"]
    if not sdxl:
        index |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    write_json(folder / "model_index.json", index)
    state = {n: v for n, v in parts.unet.state_dict().items() if "motion_modules." not in n}
    write_part(folder / "unet", parts.unet.config.to_diffusers(), state)
    if motion:
        write_part(folder / "motion_adapter", *motion)
    parts.vae.save_pretrained(folder / "vae")
    save_text_side(parts.text, folder)
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / SCHEDULER, scheduler)
    if scheduler != parts.scheduler:
        write_json(folder / "scheduler" / SCHEDULER_OF_PICTURES, parts.scheduler)
    write_advice(folder, parts.advice)


def write_part(
    folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """One network as diffusers stores it: `config.json` and `diffusion_pytorch_model.safetensors`; metadata joins the weights' header."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    files.write(folder / "diffusion_pytorch_model.safetensors", state, metadata)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
