"""`make demo-edit`: one source clip through every editing method, videos and one contact sheet under out/edit/. Needs no network."""

import sys
import time
from functools import partial
from pathlib import Path

from videogen.errors import exit_code

OUT = Path("out/edit")
NUMBER = 2  # of the trial: one object on a plain ground
FRAMES, STEPS, TUNING_STEPS, INNER_STEPS = 16, 10, 40, 2
REDUCED = f"{STEPS} steps instead of 50, tuning {TUNING_STEPS} instead of 200, null text {INNER_STEPS} inner steps instead of 10"


def main() -> None:
    """Make the demo. Raises InputError."""
    start = time.perf_counter()
    for path in demo(OUT):
        print(path)
    print(f"{time.perf_counter() - start:.0f} s")


def demo(folder: Path) -> list[Path]:
    """Write an mp4 for each method and `contact_sheet.png` into `folder`; return the paths. Raises InputError."""
    from editors.evidence.methods import MEASURED, METHODS, Workshop
    from editors.evidence.trials import FROM_TEXT, source_clip, trial
    from editors.null_text import Descent
    from videogen import video
    from videogen.clip import Clip, contact_sheet
    from videogen.files import replacing
    from videogen.pipeline import Pipeline

    folder.mkdir(parents=True, exist_ok=True)
    moving, still = Pipeline.from_pretrained("shapes"), Pipeline.from_pretrained("shapes", motion="none")
    shop = Workshop(
        moving, still, FRAMES, STEPS, strength=moving.advised_strength(1.0), guidance=moving.guidance, tuning_steps=TUNING_STEPS,
        descent=Descent(inner_steps=INNER_STEPS),
    )  # fmt: skip
    source = source_clip(trial("colour", NUMBER), folder, FRAMES, moving.default_size[0])
    clips, labels = [Clip(source)], [f"{trial('colour', NUMBER).source} (reduced for the demo: {REDUCED})"]
    made = []
    for name in MEASURED:
        method = METHODS[name]
        edit = next((edit for edit in ("colour", "shape", FROM_TEXT) if edit in method.edits), None)
        if edit is None:  # another one, measured by what it gives back alone
            continue
        asked = trial(edit, NUMBER)
        edited, seconds = shop.timed(partial(method.run, shop, asked, source[:: method.every]))
        told = f"{method.title}, {seconds:.0f} s: {asked.target}"
        print(told, flush=True)
        clips.append(Clip(edited.frames))
        labels.append(told)
        if edited.mask is not None:
            clips.append(Clip(edited.mask))
            labels.append(f"{method.title}: its mask, white may change")
        made += video.write(folder / f"{name}.mp4", clips[labels.index(told)], overwrite=True)
    made.append(folder / "contact_sheet.png")
    with replacing(made[-1]) as beside:
        contact_sheet(clips, labels, columns=8, width=128).save(beside)
    return made


if __name__ == "__main__":
    sys.exit(exit_code(main))
