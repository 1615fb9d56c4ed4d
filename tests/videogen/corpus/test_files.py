"""A corpus in files: what is broken is what its list says, the rest plays as planned, and an interrupted corpus ends up the same."""

import csv
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from videogen import video
from videogen.corpus import files
from videogen.corpus.films import FLAWS, RATES, Corpus, films
from videogen.data import listing
from videogen.data.check import check
from videogen.data.settings import Data
from videogen.errors import InputError
from videogen.shapes import parse, world
from videogen.shapes.middle import box
from videogen.shapes.world import concatenate

SMALL = Corpus(seed=5, size=128, seconds=0.5)
COUNT, BROKEN = 12, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shapes") / "corpus"
    assert files.make(made, SMALL, COUNT, BROKEN) == COUNT + BROKEN
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_check_of_a_training_rejects_exactly_what_the_list_of_broken_files_names(folder: Path, tmp_path: Path):
    source = {"layout": "webvid", "csv": folder / "results.csv", "videos": folder / "videos"}
    data = Data.model_validate(
        {"sources": [source], "frames": 4, "fps": 8, "size": "32x32", "store": tmp_path / "store"}
    )
    (found,) = check(data, [listing.listed(source) for source in data.sources], 0, tmp_path / "report")
    listed = dict(line.split(": ") for line in (folder / "broken.txt").read_text().splitlines())
    assert {f"videos/broken/{wrong.key}.mp4" for wrong in found.rejected} == listed.keys()
    assert (found.rows, found.usable, set(listed.values())) == (COUNT + BROKEN, COUNT, set(FLAWS))


def test_whole_files_have_the_frames_the_rate_and_the_sound_that_were_planned(folder: Path):
    planned = [film for film in films(SMALL, COUNT, BROKEN) if film.flaw is None]
    for film in planned:
        clip = video.read(folder / "videos" / film.path)
        assert (len(clip), clip.fps, clip.audio is not None) == (film.frames, film.rate, film.sound)
    assert {film.sound for film in planned} == {False, True}
    assert {film.rate for film in films(SMALL, 400, 0)} == {*RATES, Fraction(8)}


def test_the_table_has_the_columns_of_webvid_and_captions_that_are_true(folder: Path):
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["videoid", "name", "page_dir", "duration", "contentUrl"]
    for row, film in zip(rows, films(SMALL, COUNT, BROKEN), strict=True):
        assert (row["videoid"], row["page_dir"], row["name"]) == (film.videoid, film.page_dir, film.caption)
        assert len(parse(row["name"]).objects) == int(film.scene.count)


def test_a_corpus_that_was_stopped_or_is_to_grow_comes_out_as_in_one_go(folder: Path, tmp_path: Path):
    made = tmp_path / "corpus"

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.make(made, SMALL, COUNT // 2, 0, tell=interrupt)
    assert not (made / "results.csv").exists()
    assert all(path.name in ("corpus.json",) or path.suffix == ".mp4" for path in made.rglob("*") if path.is_file())
    files.make(made, SMALL, COUNT // 2, 0)
    assert files.make(made, SMALL, COUNT, BROKEN) == COUNT // 2 + BROKEN
    assert contents(made) == contents(folder)


def test_what_is_left_untold_is_there_all_the_same():
    corpus = Corpus(camera="pans right", styles=("outlined",), untold=("camera", "style"))
    for film in films(corpus, 50, 0):
        assert world.CAMERAS[int(film.scene.camera)] == "pans right"
        assert world.STYLES[int(film.scene.style)] == "outlined"
        wanted = parse(film.caption)
        assert (wanted.camera, wanted.style) == ("none", "flat")


def test_usual_clips_are_near_the_middle_and_stay_in_the_frame_while_the_camera_pans():
    scenes = concatenate([film.scene for film in films(Corpus(camera="pans right", usual=1.0), 200, 0)])
    middle, half = box(scenes)
    assert float((middle - world.SIZE / 2).std()) == pytest.approx(5.0, rel=0.2)
    assert bool(((middle - half >= -1e-2) & (middle + half <= world.SIZE + 1e-2)).all())
    sizes = scenes.radius[(scenes.count == 1) & (scenes.size[:, 0] == world.SIZES.index("large")), 0]
    assert float((sizes - 18.5).abs().max()) <= 0.25 * 3.5 + 1e-3


def test_paint_changes_the_colours_that_it_names_and_nothing_else():
    plain, painted = (
        [film.scene for film in films(corpus, 50, 0)] for corpus in (Corpus(), Corpus(paint=(("red", 0, 0, 128),)))
    )
    red = list(world.COLOURS).index("red")
    for before, after in zip(plain, painted, strict=True):
        named = before.colour == red
        jitter = (after.rgb * 255 - torch.tensor([0.0, 0.0, 128.0]))[named]
        assert (jitter.abs() <= world.JITTER + 1e-3).all()
        assert torch.equal(after.rgb[~named], before.rgb[~named])
        assert all(torch.equal(a, b) for a, b in zip(before.tensors(), after.tensors()) if a is not before.rgb)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: Corpus(size=129), "even"),
        (lambda: Corpus(seconds=0), "seconds"),
        (lambda: Corpus(usual=1.5), "0 to 1"),
        (lambda: Corpus(usual=0.5, camera="zooms in"), "zooms"),
        (lambda: Corpus(camera="pan"), "pans left"),
        (lambda: Corpus(styles=("oil",)), "outlined"),
        (lambda: Corpus(paint=(("pink", 0, 0, 0),)), "purple"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(change: Callable[[], Corpus], told: str):
    with pytest.raises(InputError, match=told):
        change()
