"""What a training is fed with: the `data` section of a configuration."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from videogen.clip import frame_rate


class Strict(BaseModel):
    """A part of the section: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


def _size(value: object) -> object:
    """`WIDTHxHEIGHT` as a pair."""
    found = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", value) if isinstance(value, str) else None
    if isinstance(value, str) and found is None:
        raise ValueError(f"{value!r} is no size; write WIDTHxHEIGHT, such as 256x256")
    return (int(found[1]), int(found[2])) if found else value


Side = Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_size)]
Frames = Annotated[int, Field(ge=1, le=1024)]
Columns = Annotated[tuple[str, ...], BeforeValidator(_several)]
Rate = Annotated[Fraction, BeforeValidator(frame_rate)]


class Source(Strict):
    """What all layouts share.

    weight   how often this source is drawn from, beside the others: in proportion
    prompt   the caption of clips that have none; without it such clips are rejected
    missing  whether rows whose file is not there are rejected and count as broken, or are left out of the list
    """

    weight: float = Field(1.0, gt=0)
    prompt: str | None = None
    missing: Literal["reject", "leave_out"] = "reject"


class WebVid(Source):
    """WebVid's table `videoid,name,page_dir,duration,contentUrl`; clips lie at `videos/{videoid}.mp4` or `videos/{page_dir}/{videoid}.mp4`."""

    layout: Literal["webvid"]
    csv: Path
    videos: Path
    caption: Columns = ("name",)


class Metadata(Source):
    """A folder with `metadata.csv` or `metadata.jsonl`: a column `file_name` and one or several of captions."""

    layout: Literal["metadata"]
    folder: Path
    caption: Columns | None = None  # text, caption or prompt, whichever is there


class Pairs(Source):
    """A folder, at any depth, of clips or pictures, each beside a text of its name: `a.mp4` and `a.txt`."""

    layout: Literal["pairs"]
    folder: Path


class Shards(Source):
    """Tar files in webdataset's naming, `key.mp4` beside `key.txt` or `key.json`; braces give ranges: `{00000..00099}.tar`."""

    layout: Literal["shards"]
    shards: Annotated[tuple[str, ...], BeforeValidator(_several)]
    caption: Columns | None = None  # the entries of a json that are captions: text, caption or prompt


class Folders(Source):
    """A folder of folders, each the pictures of one clip; `NAME.txt` beside the folder NAME, or `caption.txt` in it, tells the caption."""

    layout: Literal["frames"]
    folder: Path
    rate: Rate = Fraction(8)  # frames a second


AnySource = Annotated[WebVid | Metadata | Pairs | Shards | Folders, Field(discriminator="layout")]


class Cache(Strict):
    """Where encoded clips lie. `text`: captions are encoded too."""

    folder: Path
    dtype: Literal["float32", "float16"] = "float32"
    text: bool = True


class Data(Strict):
    """Which clips, and how they are cut, sized and put together."""

    sources: tuple[AnySource, ...] = Field(min_length=1)
    frames: Annotated[tuple[Frames, ...], BeforeValidator(_several), Field(min_length=1)] = (16,)  # several: buckets
    stride: int | None = Field(None, ge=1)  # every n-th frame; 4 where fps is not given either
    fps: Rate | None = None  # so many frames a second, whatever the file's own rate
    window: Literal["random", "head", "uniform", "all"] = "random"
    starts: int | None = Field(None, ge=1)  # random windows begin at one of so many places; None: anywhere
    short: Literal["spread", "reject"] = (
        "spread"  # clips too short for the stride: frames evenly over them, or rejected
    )
    size: Annotated[tuple[Size, ...], BeforeValidator(_several), Field(min_length=1)] = (
        (256, 256),
    )  # several: buckets by aspect
    crop: Literal["center", "random"] = "center"
    flip: bool = True  # half of the draws mirrored, where no caption says left or right
    drop: float = Field(0.1, ge=0, le=1)  # share of captions left empty, for guidance
    chunks: int = Field(1, ge=1, le=64)  # of a caption, 75 tokens each: longer ones are cut, shorter ones filled up
    batch_size: int = Field(4, ge=1)  # over all processes together
    workers: int = Field(2, ge=1, le=256)  # threads that decode, a process
    broken: float = Field(0.05, ge=0, le=1)  # a larger share of broken clips stops the run
    reader: Literal["pyav", "decord"] = "pyav"
    store: Path = Path("runs/data")  # what is found out about files once
    cache: Cache | None = None

    @model_validator(mode="after")
    def _agree(self) -> Data:
        if self.stride is not None and self.fps is not None:
            raise ValueError("give stride or fps, and not both")
        if self.starts is not None and self.window != "random":
            raise ValueError(f"starts belongs to window: random, and window is {self.window}")
        if self.cache is not None and self.crop == "random":
            raise ValueError("a cache holds clips cut one way; give crop: center, or no cache")
        for name, values in (("frames", self.frames), ("size", self.size)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names a bucket twice")
        return self

    @property
    def surveyed(self) -> bool:
        """Whether each clip's length and size must be known before the first is drawn."""
        return len(self.frames) > 1 or len(self.size) > 1 or self.window == "all"


class Whole(Strict):
    """What `videogen data` needs of a configuration. `model` has the VAE and the text encoder that caches are filled with.

    stills  the second section of trainings that read pictures beside the clips
    """

    data: Data
    stills: Data | None = None
    model: str | None = None
    seed: int = 0

    @property
    def sections(self) -> dict[str, Data]:
        """The sections that there are, by name."""
        return {"data": self.data} | ({} if self.stills is None else {"stills": self.stills})

    @property
    def cached(self) -> tuple[Data, ...]:
        """The sections that have a cache."""
        return tuple(section for section in self.sections.values() if section.cache)
