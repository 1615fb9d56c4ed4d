"""`videogen generate`: text to a clip, or to a picture with `--frames 1`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from videogen import options
from videogen.cli import words
from videogen.errors import InputError

PROMPT = typer.Argument(help='What the clip shows; may be empty (""). Needed unless --prompt-map is given.')
PROMPT_2 = typer.Option("--prompt-2", help="For SDXL's second text encoder.")
NEGATIVE_2 = typer.Option("--negative-2", help="For SDXL's second text encoder.")
PROMPT_MAP = typer.Option(help="Prompts by frame: JSON {frame: text}, or lines `frame: text`.")
OUTPUT = typer.Option("-o", "--output", help="FILE.mp4, .mov, .mkv, .webm, .gif, .webp or .png.")
SIZE = typer.Option(help="WxH in pixels, multiples of 8; the model's own size by default.")
STEPS = typer.Option(min=1, help="Sampling steps; the model's own advice by default, else 25.")
GUIDANCE = typer.Option(help="Guidance scale, 1 is none; the model's own advice, else 7.5.")
CLIP_SKIP = typer.Option(min=0, help="Layers of the text encoder left out at its end, for the prompt.")
SAMPLER = typer.Option(help="ddim, ddpm, euler, euler_ancestral, heun, dpmpp_2m, unipc or lcm.")
LORA = typer.Option(help="FILE or FILE:WEIGHT; repeatable. MotionLoRA and domain adapters too.")
FREE_NOISE = typer.Option("--free-noise", help="FreeNoise for long clips, instead of windows.")
REFINER = typer.Option(help="A model that makes the last steps, as SDXL's refiner: a folder, a hub id or a file.")
REFINER_START = typer.Option(min=0, max=1, help="Share of the path after which the refiner takes over.")
SEED = typer.Option(
    help="Frame i has the same noise in a clip of any length. Several, such as 1,2,3, make NAME_seed1.mp4 and so on."
)
FPS = typer.Option(help="Frames per second, a number or a fraction such as 30000/1001.")


def generate(
    prompt: Annotated[str | None, PROMPT] = None,
    output: Annotated[Path, OUTPUT] = Path("clip.mp4"),
    model: Annotated[str, options.MODEL] = "shapes",
    motion: Annotated[str | None, options.MOTION] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of the clip; 1 makes a picture.")] = 16,
    size: Annotated[str | None, SIZE] = None,
    steps: Annotated[int | None, STEPS] = None,
    guidance: Annotated[float | None, GUIDANCE] = None,
    rescale: Annotated[float, typer.Option(min=0, max=1, help="Share of guidance rescaling.")] = 0.0,
    prompt_2: Annotated[str | None, PROMPT_2] = None,
    negative: Annotated[str | None, options.NEGATIVE] = None,
    negative_2: Annotated[str | None, NEGATIVE_2] = None,
    clip_skip: Annotated[int, CLIP_SKIP] = 0,
    prompt_map: Annotated[Path | None, PROMPT_MAP] = None,
    sampler: Annotated[str, SAMPLER] = "ddim",
    karras: Annotated[bool, typer.Option("--karras", help="Karras spacing, where the sampler has it.")] = False,
    eta: Annotated[float, typer.Option(min=0, max=1, help="Share of fresh noise, in ddim.")] = 0.0,
    seed: Annotated[str, SEED] = "0",
    lora: Annotated[list[str] | None, LORA] = None,
    motion_scale: Annotated[float, options.MOTION_SCALE] = 1.0,
    window: Annotated[int | None, typer.Option(min=1, help="Frames of a context window, for long clips.")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, help="Frames that neighbouring windows share.")] = None,
    free_noise: Annotated[bool, FREE_NOISE] = False,
    free_init: Annotated[int, typer.Option(min=1, help="Iterations of FreeInit; 1 is none.")] = 1,
    refiner: Annotated[str | None, REFINER] = None,
    refiner_start: Annotated[float, REFINER_START] = 0.8,
    fps: Annotated[str, FPS] = "8",
    tokenizer: Annotated[str | None, options.TOKENIZER] = None,
    prediction: Annotated[str | None, options.PREDICTION] = None,
    compile: Annotated[bool, options.COMPILE] = False,
    dtype: Annotated[str, options.DTYPE] = "float32",
    device: Annotated[str, options.DEVICE] = "cpu",
    explain: Annotated[bool, typer.Option("--explain", help="Say what would run, and run nothing.")] = False,
    overwrite: Annotated[bool, options.OVERWRITE] = False,
    quiet: Annotated[bool, options.QUIET] = False,
) -> None:
    """Make a clip from a text. It carries its recipe: `videogen reproduce FILE` makes it again."""
    from videogen import explanation, generation, video

    shown = shown_by(prompt, prompt_map)
    rate, targets = words.parse_fps(fps), targets_of(output, words.parse_seeds(seed))
    for target in targets.values():
        video.check_target(target, overwrite=overwrite, frames=frames, fps=rate)
    request = generation.Request(
        prompt=shown, model=model, motion=motion, prompt_2=prompt_2, negative=negative, negative_2=negative_2, clip_skip=clip_skip,
        frames=frames, size=words.parse_size(size), steps=steps, guidance=guidance, rescale=rescale, sampler=sampler, eta=eta,
        karras=karras, seed=next(iter(targets)), lora=words.parse_loras(lora), motion_scale=motion_scale, window=window, overlap=overlap,
        free_noise=free_noise, free_init=free_init, refiner=refiner, refiner_start=refiner_start, fps=rate,
        tokenizer=tokenizer, prediction_type=prediction, compile=compile, dtype=dtype, device=device,
    )  # fmt: skip
    requests = [dataclasses.replace(request, seed=number) for number in targets]
    for one in requests:
        one.check()
    pipe = generation.load(request)
    if explain:
        lines = explanation.explain(pipe, request)
        if len(targets) > 1:
            lines += [("seeds", ", ".join(f"{number} in {target}" for number, target in targets.items()))]
        typer.echo("\n".join(f"{name:<10} {text}" for name, text in lines))
        return
    if not quiet:
        typer.echo("\n".join((pipe.line, *pipe.loras.lines)), err=True)
    refining = generation.load_refiner(pipe, request)
    for one, target in zip(requests, targets.values(), strict=True):
        clip, recipe = generation.make(pipe, one, refiner=refining, progress=not quiet)
        for path in video.write(target, clip, recipe, overwrite=overwrite):
            typer.echo(str(path))


def targets_of(output: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """The file of each seed: the output itself for one, `NAME_seedN` beside it for each of several."""
    if len(seeds) == 1:
        return {seeds[0]: output}
    return {seed: output.parent / f"{output.stem}_seed{seed}{output.suffix}" for seed in seeds}


def shown_by(prompt: str | None, prompt_map: Path | None) -> str | Mapping[int, str]:
    """What the clip is to show: a text, or texts by frame. Raises InputError where not one of the two is given."""
    if prompt_map is not None and prompt is None:
        return words.read_prompt_map(prompt_map)
    if prompt is None or prompt_map is not None:
        raise InputError('give a prompt, such as "a red circle moving right", or --prompt-map FILE (one of the two)')
    return prompt
