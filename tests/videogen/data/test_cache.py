"""Out of the cache come the same draws as from the files; it knows what is stale, goes on where it stopped, and is filled by several."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.videogen.data.films import film
from videogen.data.cache import Filled, fill
from videogen.data.cached import CachedClips
from videogen.data.clips import Clips
from videogen.data.settings import Data
from videogen.data.store import Store
from videogen.errors import InputError


class Toy:
    """A linear encoder of 2 x 2 means, and captions as the letters they are made of, in chunks of eight."""

    def __init__(self, clip_key: str = "one", fails_after: int | None = None) -> None:
        self.clip_key, self.text_key = clip_key, "letters"
        self.encoded = 0
        self.fails_after = fails_after

    def clip(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        if self.encoded == self.fails_after:
            raise KeyboardInterrupt
        self.encoded += 1
        mean = torch.nn.functional.avg_pool2d(frames.float() / 127.5 - 1, 2)
        return mean, mean.abs() / 10 + 0.01

    def text(self, caption: str, chunks: int) -> dict[str, Tensor]:
        letters = torch.tensor([float(ord(c)) for c in caption.ljust(chunks * 8)[: chunks * 8]])
        return {"tokens.text": letters[:, None], "vector.text": letters.mean(0, keepdim=True)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five films."""
    folder = tmp_path / "films"
    for i in range(5):
        film(folder / f"{i}.mp4", 20 + i)
        (folder / f"{i}.txt").write_text(f"film {i}" + ", it moves left" * (i == 0))
    return folder


def data(folder: Path, **values: Any) -> Data:
    small = {
        "sources": [{"layout": "pairs", "folder": str(folder)}], "frames": 4, "stride": 3, "size": "32x32", "batch_size": 3,
        "store": str(folder.parent / "store"), "cache": {"folder": str(folder.parent / "cache")}, "broken": 1.0, "drop": 0.3,
        "chunks": 3,
    }  # fmt: skip
    return Data.model_validate(small | values)


def filled(settings: Data, toy: Toy) -> Filled:
    return fill(Clips(settings, 0), toy)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"window": "uniform"},
        {"window": "all"},
        {"fps": 5, "stride": None},
        {"starts": 2},
        {"frames": [2, 4], "size": ["32x24", "24x32"]},
    ],
)
def test_a_loss_from_the_cache_is_the_loss_from_the_files(folder: Path, values: dict[str, Any]) -> None:
    settings, toy = data(folder, **values), Toy()
    filled(settings, toy)
    cached = CachedClips(settings, 7, Toy())
    for batch, latents in islice(zip(Clips(settings, 7).batches(2), cached.batches(2)), 4):
        assert (batch.keys, batch.captions) == (latents.keys, latents.captions)
        assert torch.equal(batch.counts, latents.counts)
        assert torch.equal(batch.rates, latents.rates)
        noise = torch.randn(latents.mean.shape)
        mean, deviation = (torch.stack(parts) for parts in zip(*map(toy.clip, batch.frames)))
        losses = [(m + d * noise).square().mean() for m, d in ((mean, deviation), (latents.mean, latents.deviation))]
        torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-5)
        for caption, told in zip(batch.captions, latents.text["tokens.text"]):
            assert "".join(chr(int(c)) for c in told.flatten()) == caption.ljust(24)


def test_what_an_empty_cache_lacks_is_every_clip_once(folder: Path) -> None:
    with pytest.raises(InputError, match=r"lacks 5 of 5 clips"):
        CachedClips(data(folder), 0, Toy())


def test_with_nothing_new_nothing_is_encoded(folder: Path) -> None:
    assert filled(data(folder), Toy()) == Filled(5, 6, 5, 6, 0, 0, False)
    for path in folder.iterdir():
        os.utime(path, (1, 1))  # touched, with the same content
    toy = Toy()
    assert filled(data(folder), toy) == Filled(5, 6, 0, 0, 0, 0, False)
    assert toy.encoded == 0


def test_what_has_changed_is_stale_and_only_that(folder: Path) -> None:
    settings = data(folder)
    filled(settings, Toy())
    film(folder / "2.mp4", 30)
    with pytest.raises(InputError, match=r"lacks 1 of 5 clips .* run videogen data cache"):
        CachedClips(settings, 0, Toy())
    toy = Toy()
    assert filled(settings, toy).new_clips == 1
    assert toy.encoded == 2  # plain and mirrored
    (folder / "3.txt").write_text("another caption")
    with pytest.raises(InputError, match="lacks 1 of 5"):
        CachedClips(settings, 0, Toy())
    assert filled(settings, Toy()).new_captions == 1
    CachedClips(settings, 0, Toy())


@pytest.mark.parametrize("values", [{"size": "24x32"}, {"stride": 2}, {"window": "head"}, {"frames": 3}, {"chunks": 2}])
def test_another_setting_is_another_entry_and_the_old_ones_stay(folder: Path, values: dict[str, Any]) -> None:
    settings, other = data(folder), data(folder, **values)
    filled(settings, Toy())
    with pytest.raises(InputError, match="lacks"):
        CachedClips(other, 0, Toy())
    assert filled(other, Toy()).stale == 1
    CachedClips(settings, 0, Toy())
    CachedClips(other, 0, Toy())


def test_other_weights_are_another_entry_and_pruning_takes_the_old_ones(folder: Path) -> None:
    settings = data(folder)
    filled(settings, Toy())
    with pytest.raises(InputError, match="lacks 5 of 5"):
        CachedClips(settings, 0, Toy("two"))
    done = fill(Clips(settings, 0), Toy("two"), prune=True)
    assert (done.new_clips, done.stale) == (5, 1)
    with pytest.raises(InputError, match="lacks 5 of 5"):
        CachedClips(settings, 0, Toy("one"))


def test_pruning_takes_captions_that_nothing_needs(folder: Path) -> None:
    settings = data(folder)
    filled(settings, Toy())
    for path in folder.glob("*.txt"):
        path.write_text(f"another {path.name}")
    assert filled(settings, Toy()).stale == 0  # the empty caption is still needed, and lies beside them
    texts = folder.parent / "cache" / "text"
    assert len(list(texts.glob("*.safetensors"))) == 2
    for path in folder.glob("*.txt"):
        path.write_text(f"a third {path.name}")
    done = fill(Clips(settings, 0), Toy(), prune=True)
    assert (done.new_captions, done.stale, len(list(texts.glob("*.safetensors")))) == (5, 1, 2)
    CachedClips(settings, 0, Toy())


def test_an_interrupted_filling_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogen.data.cache.PIECE", 2)
    settings = data(folder, flip=False)
    with pytest.raises(KeyboardInterrupt):
        filled(settings, Toy(fails_after=3))
    assert len(list((folder.parent / "cache" / "clips").glob("*.safetensors"))) == 1
    toy = Toy()
    assert filled(settings, toy).new_clips == toy.encoded == 3
    CachedClips(settings, 0, Toy())


def test_a_piece_that_was_damaged_is_made_again(folder: Path) -> None:
    settings = data(folder)
    filled(settings, Toy())
    (piece,) = (folder.parent / "cache" / "clips").glob("*.safetensors")
    piece.write_bytes(piece.read_bytes()[:100])
    with pytest.raises(InputError, match="lacks 5 of 5"):
        CachedClips(settings, 0, Toy())
    assert filled(settings, Toy()).new_clips == 5
    CachedClips(settings, 0, Toy())


def test_equal_broken_files_are_counted_row_by_row(folder: Path) -> None:
    for i in range(3):
        (folder / f"{i}.mp4").write_bytes(b"no film")
    assert [filled(data(folder), Toy()).broken for _ in range(2)] == [3, 3]


@pytest.mark.filterwarnings("ignore:.*broken")
def test_a_broken_clip_is_remembered_as_broken(folder: Path) -> None:
    (folder / "1.mp4").write_bytes(b"no film")
    settings = data(folder)
    assert filled(settings, Toy()).broken == 1
    assert filled(settings, Toy()) == Filled(5, 6, 0, 0, 1, 0, False)
    batches = list(islice(CachedClips(settings, 0, Toy()).batches(), 5))
    wrong = {one.key: one.reason for batch in batches for one in batch.broken}
    assert list(wrong) == ["1.mp4"]
    assert "no video that can be read" in wrong["1.mp4"]
    for batch in batches:
        assert [key == "1.mp4" for key in batch.keys] == [count == 0 for count in batch.counts.tolist()]

    for i in range(5):
        (folder / f"{i}.mp4").write_bytes(b"no film" * (i + 1))
    assert filled(settings, Toy()).broken == 5
    with pytest.raises(InputError, match="of the clips that are to be 4 x 32 x 32 none can be read"):
        CachedClips(settings, 0, Toy())


FILLER = """
import sys
sys.path.insert(0, {root!r})
from tests.videogen.data import test_cache as t
import videogen.data.cache as cache
cache.PIECE = 1
print(t.filled(t.data(t.Path(sys.argv[1])), t.Toy()).new_clips)
"""


def test_two_processes_fill_one_cache_and_encode_nothing_twice(folder: Path) -> None:
    program = FILLER.format(root=str(Path(__file__).parents[3]))
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    counts = [int(one.communicate()[0]) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sum(counts) == 5
    CachedClips(data(folder), 0, Toy())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 KiB; where none may be mounted, the test is left out."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a file system can only be mounted by root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_line_and_nothing_is_lost(
    folder: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videogen.data.cache.PIECE", 1)
    settings = data(
        folder, cache={"folder": str(tiny_disk / "cache"), "text": False}, size="48x48", flip=False, stride=1
    )
    with pytest.raises(InputError, match=r"cannot be written .*No space left") as problem:
        filled(settings, Toy())
    assert "\n" not in str(problem.value)
    kept = sorted((tiny_disk / "cache" / "clips").iterdir())
    pieces = [path for path in kept if path.suffix == ".safetensors"]
    assert pieces
    assert [path for path in kept if path not in pieces and not path.name.endswith(".lock")] == []
    whole = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in pieces}
    assert len(Store(tiny_disk / "cache" / "clips").entries) == len(pieces)
    subprocess.run(["mount", "-o", "remount,size=8m", tiny_disk], check=True)
    assert filled(settings, Toy()).new_clips == 5 - len(pieces)
    assert all(
        hashlib.sha256((tiny_disk / "cache" / "clips" / name).read_bytes()).digest() == d for name, d in whole.items()
    )


def test_brackets_in_a_caption_are_characters(tmp_path: Path) -> None:
    from tests import folders
    from videogen.data.encoders import ModelEncoders
    from videogen.models.prompt import plain

    folders.stable_diffusion(tmp_path / "model")
    encoders = ModelEncoders(tmp_path / "model")
    caption = "a film (in colour:1.5) BREAK [uncut"
    words = encoders.side.tokenize([plain(caption)])
    literal = encoders.side.encode(encoders.side.embed(words), words).tokens["text"][0]
    told = encoders.text(caption, 1)["tokens.text"]
    assert torch.equal(told, literal)


def test_other_tokens_make_another_key(tmp_path: Path) -> None:
    import json

    from tests import folders
    from videogen.data.encoders import ModelEncoders

    folders.stable_diffusion(tmp_path / "model")
    before = ModelEncoders(tmp_path / "model")
    place = tmp_path / "model" / "tokenizer" / "tokenizer.json"
    said = json.loads(place.read_text())
    tokens = said["model"]["vocab"]
    first, second = list(tokens)[:2]
    tokens[first], tokens[second] = tokens[second], tokens[first]
    place.write_text(json.dumps(said))
    after = ModelEncoders(tmp_path / "model")
    assert after.clip_key == before.clip_key
    assert after.text_key != before.text_key


def test_a_model_encodes_as_its_pipeline_does(tmp_path: Path) -> None:
    """Mean and deviation of the real VAE class, and captions of the real text side in a batch of several lengths."""
    from tests import folders
    from videogen.data.encoders import ModelEncoders
    from videogen.models import autoencoder

    folders.stable_diffusion(tmp_path / "model")
    encoders = ModelEncoders(tmp_path / "model")
    assert encoders.clip_key == ModelEncoders(tmp_path / "model").clip_key != encoders.text_key
    frames = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    mean, deviation = encoders.clip(frames)
    assert torch.equal(mean, autoencoder.encode(encoders.vae, frames.float()[None] / 127.5 - 1).detach()[0])
    assert deviation.shape == mean.shape
    assert bool((deviation > 0).all())
    short, long = "a film", "a film of " + "very " * 60 + "long roads"
    words = encoders.side.tokenize([short, long])
    together = encoders.side.encode(encoders.side.embed(words), words).tokens["text"]
    alone = torch.stack([encoders.text(caption, words[0][0].chunks)["tokens.text"] for caption in (short, long)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    with pytest.warns(UserWarning, match="captions are cut that take more than chunks: 1"):
        cut = encoders.texts([short, long], 1)["tokens.text"]
    torch.testing.assert_close(together[:, : cut.shape[1]], cut, rtol=0, atol=1e-5)
