"""Rows to figures: shares and means with 95 % intervals, each beside the plain way on the same clips, and the targets that they are held against.

A method is better than the plain way where one of the two differences (the edit done; all else kept) is up and the other not worse. Up is an
interval that lies wholly above 0. Not worse is one that does not lie wholly below 0 around a difference of at least -MARGIN: of few clips the
interval alone takes in nearly anything, also a method that never does what plain does in a quarter of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editors.evidence.methods import SOURCE, TRUTH
from editors.evidence.runs import Key, Plan, Row, beside, of
from editors.evidence.trials import FROM_TEXT, RECONSTRUCTION, trial
from videogen.metrics.paired import Estimate, difference_of_shares, mean
from videogen.metrics.shares import Share

FULL = Plan(())  # the numbers of clips that the targets are meant for
DONE, CHANGE, POSITION, VELOCITY = 0.90, 0.05, 0.90, 0.20
MARGIN = 0.10  # that a share may be below plain's and count as not worse
GAIN = {
    "fatezero": 3.0,
    "null_text": 10.0,
    "null_text_of_a_picture": 10.0,
}  # dB of a reconstruction above plain inversion
FAITHFUL_STEPS = 50  # of the reconstructions that the gain is asked of


@dataclass(frozen=True)
class Figures:
    """One edit of one method; `plain_...` and the differences are of the way it is held against, on the clips that both have.

    of, asked       clips that are there, and that the run is to have
    done, kept      shares of clips; `done` is None where nothing was asked for
    stayed          by what had to stay
    change, change_of_vae   mean absolute difference where nothing was asked for, and what the VAE's round trip alone makes there
    distance, velocity, psnr, plain_psnr, gain   means over clips; see `Verdict` and `Row`
    kinds           (done, kept) by kind of scene
    """

    edit: str
    of: int
    asked: int
    done: Share | None
    kept: Share
    stayed: Mapping[str, Share]
    plain_done: Share | None
    plain_kept: Share | None
    done_more: Estimate | None
    kept_more: Estimate | None
    change: Estimate
    change_of_vae: Estimate
    distance: Estimate
    velocity: Estimate
    psnr: Estimate
    plain_psnr: Estimate
    gain: Estimate
    seconds: Estimate
    kinds: Mapping[str, tuple[Share | None, Share]]

    @property
    def better(self) -> bool | None:
        """Whether it is better than the plain way; None where there is nothing to compare."""
        if self.done_more is None or self.kept_more is None or not self.kept_more.of:
            return None
        one, other = self.done_more, self.kept_more
        return (one.low > 0 and _not_worse(other)) or (other.low > 0 and _not_worse(one))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = {"clips": self.of, "asked": self.asked, "better than plain": self.better}
        for name, value in vars(self).items():
            if isinstance(value, (Share, Estimate)):
                found[name] = value.to_dict()
        found["stayed"] = {name: share.to_dict() for name, share in self.stayed.items()}
        found["kinds"] = {
            kind: {"done": None if done is None else done.to_dict(), "kept": kept.to_dict()}
            for kind, (done, kept) in self.kinds.items()
        }
        return found


def figures(rows: Mapping[Key, Row], plan: Plan, method: str, edit: str) -> Figures | None:
    """The figures of an edit; None where there is no clip."""
    some = of(rows, plan, method, edit)
    if not some:
        return None
    against = plan.table[method].against
    pairs = [] if against is None else list(beside(rows, some, against))
    ours, plain = [a for a, _ in pairs], [b for _, b in pairs]
    asked = some[0].done is not None
    kinds = sorted({row.kind for row in some})
    return Figures(
        edit, len(some), plan.count(plan.table[method], edit),
        done=_done(some), kept=_kept(some),
        stayed={name: Share(sum(row.stayed[name] for row in having), len(having)) for name, having in _having(some).items()},
        plain_done=_done(plain), plain_kept=_kept(plain) if plain else None,
        done_more=difference_of_shares([bool(r.done) for r in ours], [bool(r.done) for r in plain]) if asked and pairs else None,
        kept_more=difference_of_shares([r.kept for r in ours], [r.kept for r in plain]) if pairs else None,
        change=_mean(some, "change"), change_of_vae=_mean([b for _, b in beside(rows, some, SOURCE)], "change"),
        distance=_mean(some, "distance"), velocity=_mean(some, "velocity"), psnr=_mean(some, "psnr"), plain_psnr=_mean(plain, "psnr"),
        gain=mean([a.values["psnr"] - b.values["psnr"] for a, b in pairs if "psnr" in a.values and "psnr" in b.values]),
        seconds=_mean(some, "seconds"),
        kinds={kind: (_done(part), _kept(part)) for kind in kinds if (part := [row for row in some if row.kind == kind])},
    )  # fmt: skip


def all_figures(rows: Mapping[Key, Row], plan: Plan) -> dict[str, list[Figures]]:
    """By method of the plan, those edits that have clips."""
    found = {name: [figures(rows, plan, name, edit) for edit in plan.table[name].edits] for name in plan.methods}
    return {name: [one for one in some if one is not None] for name, some in found.items() if any(some)}


def bounds(rows: Mapping[Key, Row]) -> dict[str, tuple[list[Row], list[Row]]]:
    """By edit: the rows of the source after the VAE, and of the true edit after the VAE: what measuring and VAE allow."""
    edits = dict.fromkeys(row.edit for row in rows.values() if row.method == TRUTH)
    return {
        edit: ([r for r in rows.values() if r.edit == edit and r.method == SOURCE],
               [r for r in rows.values() if r.edit == edit and r.method == TRUTH])
        for edit in edits
    }  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One target of one method: a figure (share, mean or difference), what it must reach, and over how many clips.

    met     None where no clip tells
    needed  clips that the target is meant for
    """

    method: str
    what: str
    figure: Share | Estimate | tuple[Estimate, Estimate]
    wanted: str
    met: bool | None
    of: int
    needed: int

    @property
    def verdict(self) -> str:
        """met, missed, or so far met or missed."""
        if self.met is None:
            return "not measured"
        word = "met" if self.met else "missed"
        return word if self.of >= self.needed else f"{word} so far"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        shown = [one.to_dict() for one in (self.figure if isinstance(self.figure, tuple) else (self.figure,))]
        return {
            "method": self.method, "what": self.what, "target": self.wanted, "met": self.met, "verdict": self.verdict,
            "clips": self.of, "needed": self.needed, "figure": shown,
        }  # fmt: skip


def targets(found: Mapping[str, Sequence[Figures]], plan: Plan, steps: int) -> list[Target]:
    """All targets that the figures can be held against."""
    made = []
    for name, some in found.items():
        method = plan.table[name]
        for one in some:
            needed = FULL.count(method, one.edit)

            def add(
                what: str, figure: Any, wanted: str, met: bool | None, of: int, needed: int = needed, name: str = name
            ) -> None:
                made.append(Target(name, what, figure, wanted, met, of, needed))  # fmt: skip

            if one.edit == FROM_TEXT:
                _from_text(one, add)
            elif one.edit == RECONSTRUCTION:
                if name in GAIN and steps == FAITHFUL_STEPS:
                    gain = GAIN[name]
                    add(
                        "reconstruction, dB above plain inversion",
                        one.gain,
                        f">= {gain:g}",
                        _reached(one.gain, gain),
                        one.gain.of,
                    )
                continue
            elif one.edit == "colour":
                _of_colour(one, add)
                if name == "tune_a_video":
                    going = sum(trial(one.edit, number, plan.seed).moves for number in range(needed))
                    _of_velocity(one.velocity, add, going)
            if method.against is not None and one.done_more is not None and one.kept_more is not None:
                pair = (one.done_more, one.kept_more)
                add(
                    f"{one.edit}: done and kept, beside plain",
                    pair,
                    "one up, the other not worse",
                    one.better,
                    one.kept_more.of,
                )
    return made


def _of_colour(one: Figures, add: Callable[..., None]) -> None:
    assert one.done is not None
    add("colour: done", one.done, f">= {DONE:.2f}", one.done.value >= DONE, one.of)
    add("colour: change elsewhere", one.change, f"< {CHANGE:.2f}", _below(one.change, CHANGE), one.change.of)
    place = one.stayed["position"]
    add("colour: centre within 3 px in every frame", place, f">= {POSITION:.2f}", place.value >= POSITION, one.of)


def _of_velocity(error: Estimate, add: Callable[..., None], needed: int) -> None:
    """Asked of the clips whose object goes somewhere."""
    add("colour: error of the velocity", error, f"< {VELOCITY:.2f}", _below(error, VELOCITY), error.of, needed)


def _from_text(one: Figures, add: Callable[..., None]) -> None:
    assert one.done is not None
    same = one.stayed["one colour"]
    add("one colour in all frames", same, "1.00", same.hits == same.of, one.of)
    add("motion as asked", one.done, f">= {DONE:.2f}", one.done.value >= DONE, one.of)


def _not_worse(difference: Estimate) -> bool:
    return difference.high >= 0 and round(difference.value, 9) >= -MARGIN  # a tenth is not below itself by rounding


def _done(rows: Sequence[Row]) -> Share | None:
    if not rows or rows[0].done is None:
        return None
    return Share(sum(bool(row.done) for row in rows), len(rows))


def _kept(rows: Sequence[Row]) -> Share:
    return Share(sum(row.kept for row in rows), len(rows))


def _having(rows: Sequence[Row]) -> dict[str, list[Row]]:
    names = dict.fromkeys(name for row in rows for name in row.stayed)
    return {name: [row for row in rows if name in row.stayed] for name in names}


def _mean(rows: Sequence[Row], name: str) -> Estimate:
    return mean([row.values[name] for row in rows if name in row.values])


def _reached(value: Estimate, least: float) -> bool | None:
    return value.value >= least if value.of else None


def _below(value: Estimate, most: float) -> bool | None:
    return value.value < most if value.of else None
