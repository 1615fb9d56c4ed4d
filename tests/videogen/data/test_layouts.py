"""Every layout gives the rows that lie in it; what is no row is rejected by name, what is no such layout is refused at once."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.videogen.data.films import picture, shard
from videogen.data.captions import sided
from videogen.data.listing import Listing, all_listed, listed
from videogen.data.rows import File, Member, Series, inside
from videogen.data.settings import Data
from videogen.data.shards import expanded
from videogen.errors import InputError
from videogen.training.config import validate


def source(**values: Any) -> Listing:
    """The rows of one source, given as its configuration."""
    (listing,) = map(listed, data(**values).sources)
    return listing


def data(**values: Any) -> Data:
    return validate(Data, {"sources": [{k: str(v) if isinstance(v, Path) else v for k, v in values.items()}]})


def told(listing: Listing) -> dict[str, str]:
    """Why each rejected row was."""
    return {wrong.key: wrong.reason for wrong in listing.rejected}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"film")


def table(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


WEBVID = ("videoid", "name", "page_dir", "duration", "contentUrl")
ODD = 'a "quoted", long\nline, 🎬 émoji'


@pytest.fixture
def webvid(tmp_path: Path) -> dict[str, Any]:
    """A WebVid folder with one clip flat, one by page_dir, and rows that cannot be used."""
    touch(tmp_path / "v" / "1.mp4", tmp_path / "v" / "00001_00050" / "2.mp4", tmp_path / "outside.mp4")
    rows = [
        WEBVID,
        ("1", ODD, "00001_00050", "PT00H00M10S", "u"),
        ("2", "plain", "00001_00050", "", ""),
        ("3", "no file", "00001_00050", "", ""),
        ("../outside", "leaves", "", "", ""),
        ("2b", "leaves", "/etc", "", ""),
        ("4", "  ", "", "", ""),
        ("short", "row"),
        ("1", "again", "", "", ""),
    ]
    return {"layout": "webvid", "csv": table(tmp_path / "t.csv", *rows), "videos": tmp_path / "v"}


def test_webvid(webvid: dict[str, Any], tmp_path: Path) -> None:
    listing = source(**webvid)
    assert [(row.key, row.place, row.captions) for row in listing.rows] == [
        ("1", File(str(tmp_path / "v" / "1.mp4")), ('a "quoted", long line, 🎬 émoji',)),
        ("2", File(str(tmp_path / "v" / "00001_00050" / "2.mp4")), ("plain",)),
    ]
    reasons = told(listing)
    assert reasons["3"] == "there is no file"
    assert "no path inside the folder" in reasons["../outside"]
    assert "no path inside the folder" in reasons["2b"]
    assert reasons["4"] == "no caption"
    assert reasons["line 9"] == "2 columns, the header has 5"
    assert reasons["1"] == "a second row of this name"
    assert len(source(**webvid, missing="leave_out").rejected) == len(listing.rejected) - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"1,a caption,p,,\n2,another,p,,\n", "has no column 'videoid': its first line must be a header"),
        (b"videoid,text\n1,a\n", "has no column 'name'"),
        (b"videoid,videoid,name\n", "names a column twice"),
        (b"videoid,name\n\xff\xfe,a\n", "is not UTF-8"),
        (b"videoid,name\n", "has no rows"),
        (b'videoid,name\n1,"never closed\n2,b\n', "none that can be used"),
    ],
)
def test_a_wrong_table_is_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    touch(tmp_path / "v" / "1.mp4")
    with pytest.raises(InputError, match=message) as problem:
        source(layout="webvid", csv=tmp_path / "t.csv", videos=tmp_path / "v")
    assert "\n" not in str(problem.value)


def test_rows_rejected_beyond_the_limit_stop_a_run_before_it_begins(webvid: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="6 of 8 rows cannot be used, more than the share broken"):
        all_listed(data(**webvid))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata(tmp_path: Path, kind: str) -> None:
    touch(tmp_path / "sub" / "a.mp4", tmp_path / "b.mp4", tmp_path / "e.mp4")
    picture(tmp_path / "frames" / "10.png")
    picture(tmp_path / "frames" / "9.png")
    rows: list[tuple[str, Any]] = [
        ("sub/a.mp4", ODD), ("b.mp4", "two"), ("frames", "three"), ("../c.mp4", "out"), ("d.mp4", "gone"), ("e.mp4", ""),
    ]  # fmt: skip
    if kind == "csv":
        table(tmp_path / "metadata.csv", ("file_name", "text"), *rows)
    else:
        rows[1] = ("b.mp4", ["two", "deux"])
        lines = [json.dumps({"file_name": name, "text": text}) for name, text in rows]
        (tmp_path / "metadata.jsonl").write_text("\n".join([*lines, "{broken", "[1]"]), encoding="utf-8")
    listing = source(layout="metadata", folder=tmp_path)
    assert [row.captions for row in listing.rows] == [
        (" ".join(ODD.split()),), ("two",) if kind == "csv" else ("two", "deux"), ("three",),
    ]  # fmt: skip
    assert listing.rows[2].place == Series(
        (str(tmp_path / "frames" / "9.png"), str(tmp_path / "frames" / "10.png")), "8"
    )
    assert told(listing)["d.mp4"] == "there is no file"
    assert told(listing)["e.mp4"] == "no caption"
    assert sum("no path inside the folder" in why for why in told(listing).values()) == 1
    assert len(listing.rejected) == (3 if kind == "csv" else 5)


def test_metadata_needs_a_table_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metadata.csv and no metadata.jsonl"):
        source(layout="metadata", folder=tmp_path)
    table(tmp_path / "metadata.csv", ("file", "text"), ("a", "b"))
    with pytest.raises(InputError, match="no column 'file_name'"):
        source(layout="metadata", folder=tmp_path)
    table(tmp_path / "metadata.csv", ("file_name", "words"), ("a", "b"))
    with pytest.raises(InputError, match=r"no column of captions .*its columns are 'file_name', 'words'"):
        source(layout="metadata", folder=tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        source(layout="metadata", folder=tmp_path / "nowhere")


def test_pairs(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "deep" / "b.MOV", tmp_path / "c.mp4", tmp_path / "d.odd", tmp_path / "e.mp4")
    picture(tmp_path / "f.png")
    for name, text in {"a": ODD, "deep/b": "b", "d": "d", "f": "f", "lone": "x", "e": ""}.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    listing = source(layout="pairs", folder=tmp_path)
    assert [row.key for row in listing.rows] == ["a.mp4", "d.odd", "f.png", "deep/b.MOV"]
    assert told(listing) == {"c.mp4": "no caption", "e.mp4": "no caption", "lone.txt": "a caption without a clip"}
    kept = source(layout="pairs", folder=tmp_path, prompt="a film")
    assert {row.key: row.captions for row in kept.rows}["c.mp4"] == ("a film",)


def test_what_lies_beside_a_pair_is_no_clip(tmp_path: Path) -> None:
    """As video2dataset and img2dataset write folders."""
    for name in ("0", "1"):
        (tmp_path / f"{name}.txt").write_text("a film")
    touch(*(tmp_path / f"0.{suffix}" for suffix in ("mp4", "json", "npz", "m4a", "vtt")), tmp_path / "1.json")
    listing = source(layout="pairs", folder=tmp_path)
    assert [row.key for row in listing.rows] == ["0.mp4"]
    assert told(listing) == {"1.txt": "a caption without a clip"}


def test_folders_of_frames(tmp_path: Path) -> None:
    for i in (1, 2, 10):
        picture(tmp_path / "walk" / f"f{i}.png", i)
        picture(tmp_path / "run" / f"f{i}.jpg", i)
    (tmp_path / "empty").mkdir()
    (tmp_path / "walk.txt").write_text("walking")
    (tmp_path / "run" / "caption.txt").write_text("running")
    listing = source(layout="frames", folder=tmp_path, prompt="else", rate="25/2")
    assert {row.key: row.captions for row in listing.rows} == {"run": ("running",), "walk": ("walking",)}
    assert listing.rows[1].place == Series(tuple(str(tmp_path / "walk" / f"f{i}.png") for i in (1, 2, 10)), "25/2")
    assert told(listing) == {"empty": "a folder without pictures"}


@pytest.mark.parametrize("layout", ["pairs", "frames", "metadata"])
def test_an_empty_folder_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(InputError, match=r"holds no|no metadata"):
        source(layout=layout, folder=tmp_path)


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shard(
        tmp_path / "0.tar",
        {"a.mp4": b"film", "a.txt": ODD.encode(), "b.json": b'{"caption": ["one", "two"]}', "b.mp4": b"films"},
    )
    shard(
        tmp_path / "1.tar",
        {
            "sub/c.v2.mp4": b"f",
            "sub/c.txt": b"c",
            "../d.mp4": b"f",
            "e.txt": b"lone",
            "f.mp4": b"f",
            "g.mp4": b"g",
            "g.json": b"{",
        },
    )
    listing = source(layout="shards", shards="{0..1}.tar")
    assert [(row.key, row.captions) for row in listing.rows] == [
        ("0.tar/a", (" ".join(ODD.split()),)), ("0.tar/b", ("one", "two")), ("1.tar/sub/c", ("c",)),
    ]  # fmt: skip
    place = listing.rows[1].place
    assert isinstance(place, Member)
    assert (tmp_path / "0.tar").read_bytes()[place.offset : place.offset + place.size] == b"films"
    reasons = told(listing)
    assert reasons["1.tar/../d.mp4"] == "its name leads out of the shard"
    assert reasons["1.tar/e"] == "no clip beside the caption"
    assert reasons["1.tar/f"] == "no caption"
    assert reasons["1.tar/g"].startswith("g.json: ")


def test_shards_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        shard(tmp_path / folder / "0.tar", {"a.mp4": b"film", "a.txt": folder.encode()})
    listing = source(layout="shards", shards=str(tmp_path / "{a,b}" / "0.tar"))
    assert [(row.key, row.captions) for row in listing.rows] == [
        (f"{(tmp_path / folder).as_posix()}/0.tar/a", (folder,)) for folder in "ab"
    ]
    assert not listing.rejected


def test_a_thumbnail_in_a_shard_is_not_its_clip(tmp_path: Path) -> None:
    two = {"b.jpg": b"x", "b.png": b"x", "b.txt": b"b"}
    shard(tmp_path / "0.tar", {"a.jpg": b"thumb", "a.mp4": b"film", "a.txt": b"a"} | two)
    listing = source(layout="shards", shards=str(tmp_path / "0.tar"))
    ((name, size),) = ((row.place.name, row.place.size) for row in listing.rows if isinstance(row.place, Member))
    assert (name, size) == ("a.mp4", 4)
    assert list(told(listing).values()) == ["2 clips of one key"]


def test_what_a_mac_puts_into_a_shard_is_passed_over(tmp_path: Path) -> None:
    files = {"a.mp4": b"film", "a.txt": b"a", "sub/b.mp4": b"films", "sub/b.txt": b"b"}
    members = {}
    for name, content in files.items():
        folder, _, last = f"./{name}".rpartition("/")
        members |= {f"{folder}/._{last}": b"\0\5\26\7", f"./{name}": content}
    shard(tmp_path / "0.tar", {"./.DS_Store": b"x", **members})
    listing = source(layout="shards", shards=str(tmp_path / "0.tar"))
    at = (tmp_path / "0.tar").as_posix()
    assert [(row.key, row.captions) for row in listing.rows] == [(f"{at}/a", ("a",)), (f"{at}/sub/b", ("b",))]
    assert not listing.rejected


def test_links_in_a_shard_lead_nowhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        link = tarfile.TarInfo("a.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name in ("a.txt", "b.mp4", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    listing = source(layout="shards", shards=str(tmp_path / "0.tar"))
    assert [row.key for row in listing.rows] == [f"{tmp_path.as_posix()}/0.tar/b"]
    assert told(listing)[f"{tmp_path.as_posix()}/0.tar/a.mp4"] == "no file but a link or a device"


@pytest.mark.parametrize("where", ["header", "data"])
def test_a_shard_cut_in_the_middle_gives_what_lies_before_the_cut(tmp_path: Path, where: str) -> None:
    path = shard(tmp_path / "0.tar", {f"{k}.{s}": b"x" * 3000 for k in "abc" for s in ("mp4", "txt")})
    members = tarfile.open(path).getmembers()  # noqa: SIM115
    cut = members[4].offset + 200 if where == "header" else members[4].offset_data + 1000
    path.write_bytes(path.read_bytes()[:cut])
    listing = source(layout="shards", shards=str(path))
    assert [row.key for row in listing.rows] == [f"{path.as_posix()}/{key}" for key in "ab"]
    assert [wrong.key for wrong in listing.rejected] == [path.as_posix()]
    assert "breaks off" in listing.rejected[0].reason


def test_shards_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"no tar" * 300)
    with pytest.raises(InputError, match="is no tar file"):
        source(layout="shards", shards=str(tmp_path / "0.tar"))
    with pytest.raises(InputError, match="2 of 2 shards are not there"):
        source(layout="shards", shards=str(tmp_path / "{5..6}.tar"))


def test_braces() -> None:
    assert expanded("a{08..11}.tar") == ["a08.tar", "a09.tar", "a10.tar", "a11.tar"]
    assert expanded("{a,b}{2..1}") == ["a2", "a1", "b2", "b1"]
    assert expanded("plain{}.tar") == ["plain{}.tar"]
    with pytest.raises(InputError, match="more than"):
        expanded("{0..99999999}")


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/x", "C:\\x", "\\\\host\\x", "..\\x", "", " ", "a\0b"])
def test_names_that_leave_their_folder_are_no_paths(name: str) -> None:
    assert inside(name) is None


def test_sides() -> None:
    assert sided(["a car turns Left", "a bird"])
    assert sided(["right-hand side"])
    assert sided(["it spins counter-clockwise"])
    assert not sided(["a bright copyright upright"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"framez": 16}, "framez"),
        ({"frames": 0}, "frames"),
        ({"size": "256"}, "size"),
        ({"size": "250x256"}, "multiple of 8"),
        ({"stride": 2, "fps": 8}, "stride or fps"),
        ({"window": "all", "starts": 3}, "starts belongs to"),
        ({"cache": {"folder": "x"}, "crop": "random"}, "cut one way"),
        ({"sources": []}, "sources"),
        ({"sources": [{"layout": "zip"}]}, "layout|zip"),
        ({"drop": 1.5}, "drop"),
        ({"frames": [16, 16]}, "twice"),
    ],
)
def test_a_wrong_configuration_names_its_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(Data, {"sources": [{"layout": "pairs", "folder": "x"}]} | values)


def test_every_line_that_an_open_quote_takes_with_it_is_told(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{i}.mp4" for i in range(9)))
    (tmp_path / "t.csv").write_text(
        'videoid,name\n0,first\n1,"open\n2,lost\n3,lost\n4,"closed, too late"\n5,last\n6,"never\n7,lost\n'
    )
    found = source(layout="webvid", csv=tmp_path / "t.csv", videos=tmp_path)
    assert [row.key for row in found.rows] == ["0", "5"]
    assert list(told(found)) == [f"line {number}" for number in (3, 4, 5, 6, 8, 9)]
    assert [reason.partition(", ")[2] for reason in told(found).values()] == [
        "",
        *["from line 3 on"] * 3,
        "",
        "from line 8 on",
    ]
