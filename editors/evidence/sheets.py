"""One picture sheet a method: for each edit the source, the edit, the plain way's, and the mask that was used."""

from __future__ import annotations

from pathlib import Path

from editors.evidence.runs import SHOWN, Key, Plan, Row, Rows
from editors.evidence.trials import FROM_TEXT, RECONSTRUCTION, trial
from videogen import video
from videogen.clip import Clip
from videogen.metrics import pictures

COLUMNS = 6


def write_sheet(path: Path, rows: Rows, plan: Plan, method: str) -> bool:
    """Write the sheet of a method; False where no clip of it was kept for people.

    Which trials are shown is settled beforehand: the first, a plain scene, and the second, a hard one, by turns.
    """
    clips: list[Clip] = []
    labels: list[str] = []
    for place, edit in enumerate(plan.table[method].edits):
        for clip, label in _group(rows, plan, (method, edit, place % SHOWN)) or _group(rows, plan, (method, edit, 0)):
            clips.append(clip)
            labels.append(label)
    if not clips:
        return False
    pictures.sheet(path, clips, labels, columns=COLUMNS)
    return True


def _group(rows: Rows, plan: Plan, key: Key) -> list[tuple[Clip, str]]:
    """The lines of one edit: clips and what stands above them."""
    name, edit, number = key
    if key not in rows.rows or not rows.shown(key).exists():
        return []
    method, row = plan.table[name], rows.rows[key]
    found: list[tuple[Clip, str]] = []
    if edit == FROM_TEXT:
        found.append((video.read(rows.shown(key)), f"{row.target}: {verdict(row)}"))
    else:
        source = video.read(rows.folder / "sources" / f"{trial(edit, number, plan.seed).clip_name}.mp4")
        wish = row.source if edit == RECONSTRUCTION else f"{row.source} -> {row.target}"
        found.append((Clip(source.frames[:: method.every]), f"{edit}: {wish}"))
        found.append((video.read(rows.shown(key)), f"{method.title}: {verdict(row)}"))
    other = (method.against or "", edit, number)
    if other in rows.rows and rows.shown(other).exists():
        found.append((video.read(rows.shown(other)), f"{plan.table[other[0]].title}: {verdict(rows.rows[other])}"))
    if rows.shown(key, mask=True).exists():
        found.append((video.read(rows.shown(key, mask=True)), "the mask that was used: white may change"))
    return found


def verdict(row: Row) -> str:
    """What became of a clip, in a few words."""
    lost = [name for name, stayed in row.stayed.items() if not stayed]
    kept = f"lost {', '.join(lost)}" if lost else "all else kept"
    if "psnr" in row.values:
        return f"{row.values['psnr']:.1f} dB, {kept}"
    return kept if row.done is None else f"{'done' if row.done else 'not done'}, {kept}"
