"""Options that several commands have, those of packages above the core too: how they are spelt and what `--help` says of them.

A command gives the type and its own default: `model: Annotated[str, MODEL] = "shapes"` in its signature is `--model`.
"""

import typer

# which model, and where it runs
MODEL = typer.Option(help="`shapes` (the miniature), a model folder, a hub id, or a checkpoint file.")
MOTION = typer.Option(help="Motion module: a file, a MotionAdapter folder, or `none`.")
TOKENIZER = typer.Option(help="Folder of CLIP's vocabulary, for single-file checkpoints.")
PREDICTION = typer.Option(help="epsilon or v_prediction, for files that cannot say it.")
DTYPE = typer.Option(help="float32, bfloat16 or float16.")
COMPILE = typer.Option(
    "--compile", help="torch.compile the UNet's blocks: a minute or so before the first step, then faster ones."
)
DEVICE = typer.Option(help="cpu, cuda, mps, ...")

# what it is told
NEGATIVE = typer.Option(help="Negative prompt.")
MOTION_SCALE = typer.Option(help="Strength of the motion modules.")
OVERRIDES = typer.Argument(help="a.b=value, in place of what the file says.")

# what is written
OVERWRITE = typer.Option("--overwrite", help="Replace the output if it exists.")
QUIET = typer.Option("--quiet", help="No progress bars.")
QUIET_BAR = typer.Option("--quiet", help="No progress bar.")

# how the commands `evaluate ...` measure
MEASURED_MODEL = typer.Option(help="`shapes` (the miniature), a model folder, a hub id or a file.")
MEASURED_STEPS = typer.Option(min=1, help="Sampling steps; the model's own advice by default.")
MEASURED_GUIDANCE = typer.Option(help="Guidance scale; the model's own by default.")
MEASURED_FRAMES = typer.Option(min=2, help="Frames of a clip.")
OTHER_SEED = typer.Option(help="Another seed draws other prompts.")
BATCH = typer.Option(min=1, help="Clips made together.")
REPORT = typer.Option(help="FILE.md whose section is written, with FILE.json and pictures beside it.")
PORTION = typer.Option(
    help="K/N: make only the K-th of N portions, and report nothing. Several processes so fill one folder; the same"
    " command without it makes what is missing, and reports."
)
MEASURED_CLIPS = typer.Option(help="Folder of the measured clips; the same command continues there.")
