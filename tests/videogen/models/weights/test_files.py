"""Reading and writing tensor files: what is read equals what was written, and whatever is no weights is refused in
one line.
"""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from videogen.errors import InputError
from videogen.models.weights.files import check_finite, locate, read, read_header, sha256, write


class Payload:
    """Creates a file when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(3, 4, generator=generator),
        "a.bias": torch.randn(3, generator=generator).half(),
        "scale": torch.tensor(2.0, dtype=torch.bfloat16),
    }


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype for k in one
    )


def test_safetensors_round_trip_with_metadata(tmp_path, state):
    write(tmp_path / "w.safetensors", state, {"title": "a test"})
    assert equal(read(tmp_path / "w.safetensors"), state)
    header = read_header(tmp_path / "w.safetensors")
    assert header.metadata == {"format": "pt", "title": "a test"}
    assert header.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert {dtype for _, dtype in header.tensors.values()} == {"float32", "float16", "bfloat16"}


def test_tensors_that_share_storage_are_written_apart(tmp_path):
    shared = torch.arange(6.0)
    write(tmp_path / "w.safetensors", {"a": shared, "b": shared, "c": shared[:3], "d": shared.view(2, 3).T})
    back = read(tmp_path / "w.safetensors")
    assert torch.equal(back["a"], back["b"])
    assert torch.equal(back["c"], shared[:3])
    assert torch.equal(back["d"], shared.view(2, 3).T)


def test_a_failed_write_leaves_the_old_file(tmp_path, state):
    write(tmp_path / "w.safetensors", state)
    with pytest.raises(Exception, match=r"metadata|str"):
        write(tmp_path / "w.safetensors", {"x": torch.zeros(1)}, {"step": 3})
    assert equal(read(tmp_path / "w.safetensors"), state)
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": {"module": s}}]
)
def test_pickles_are_unwrapped(tmp_path, state, zipped, wrap):
    content = wrap({f"module.{name}": torch.nn.Parameter(tensor) for name, tensor in state.items()})
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    assert equal(read(tmp_path / "w.ckpt"), state)
    assert read_header(tmp_path / "w.ckpt").shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_nested_dictionaries_are_joined_with_dots(tmp_path):
    torch.save(
        {"image_proj": {"latents": torch.ones(2)}, "ip_adapter": {"1": {"to_k": torch.ones(3)}}}, tmp_path / "w.bin"
    )
    assert {name: len(tensor) for name, tensor in read(tmp_path / "w.bin").items()} == {
        "image_proj.latents": 2,
        "ip_adapter.1.to_k": 3,
    }


def test_numpy_scalars_beside_the_weights_are_passed_over(tmp_path, state):
    torch.save({"state_dict": state, "loss": np.float64(0.5)}, tmp_path / "w.ckpt")
    assert equal(read(tmp_path / "w.ckpt"), state)


def write_lightning_like(path: Path, state: dict[str, torch.Tensor]) -> None:
    """A checkpoint whose dictionary of callbacks is keyed by a class, as the training library of Stable Diffusion 1.x
    wrote it.
    """
    import sys
    import types

    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    parts = [name.rsplit(".", i)[0] for i in (2, 1)]
    sys.modules |= {name: module} | {part: types.ModuleType(part) for part in parts}
    try:
        torch.save({"state_dict": state, "callbacks": {module.ModelCheckpoint: {"best": 1}}}, path)
    finally:
        for part in (name, *parts):
            del sys.modules[part]


def test_a_callback_class_of_the_old_training_library_is_passed_over(tmp_path, state):
    write_lightning_like(tmp_path / "w.ckpt", state)
    assert equal(read(tmp_path / "w.ckpt"), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_pickle_is_named_and_never_run(tmp_path, zipped):
    target = tmp_path / "made"
    torch.save({"w": torch.ones(2), "x": Payload(target)}, tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=rf"carries code \({os.mkdir.__module__}\.mkdir\)"):
        read(tmp_path / "w.ckpt")
    assert not target.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_code_in_a_bare_pickle_is_named_and_never_run(tmp_path, protocol):
    target = tmp_path / "made"
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"w": 1, "x": Payload(target)}, protocol))
    with pytest.raises(InputError, match=rf"carries code \({os.mkdir.__module__}\.mkdir\)"):
        read(tmp_path / "w.pt")
    assert not target.exists()


def half(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: len(content) // 2]


def test_what_is_no_weights_is_refused_in_one_line(tmp_path, state):
    write(tmp_path / "whole.safetensors", state)
    torch.save(state, tmp_path / "whole.ckpt")
    torch.save(state, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    noise = np.random.default_rng(0).bytes(4096)
    cases = {
        "noise.safetensors": (noise, "holds no weights"),
        "noise.ckpt": (noise, "holds no weights"),
        "text.safetensors": (b"these are words and no weights at all\n", "holds no weights"),
        "text.ckpt": (b"these are words and no weights at all\n", "holds no weights"),
        "page.safetensors": (b"<!DOCTYPE html><html></html>", "is a web page"),
        "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        "nothing.ckpt": (b"", "is empty"),
        "half.safetensors": (half(tmp_path / "whole.safetensors"), "cut short"),
        "tail.safetensors": ((tmp_path / "whole.safetensors").read_bytes()[:-1], "cut short"),
        "half.ckpt": (half(tmp_path / "whole.ckpt"), "cut short"),
        "halfold.ckpt": (half(tmp_path / "old.ckpt"), "cut short"),
        "list.json": (b"[1, 2]", "no index of weight files"),
        "header.safetensors": ((9).to_bytes(8, "little") + b'{"a": 12}' + bytes(20), "no valid safetensors"),
    }
    for name, (content, why) in cases.items():
        (tmp_path / name).write_bytes(content)
        for reader in (read, read_header):
            with pytest.raises(InputError, match=why) as caught:
                reader(tmp_path / name)
            assert "\n" not in str(caught.value)
            assert name in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"epoch": 3, "name": "x"}, {"state_dict": {}}])
def test_a_file_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match="holds no tensors"):
        read(tmp_path / "w.pt")


def test_missing_things_are_named(tmp_path, state):
    with pytest.raises(InputError, match=r"away\.safetensors does not exist"):
        read(tmp_path / "away.safetensors")
    with pytest.raises(InputError, match="holds no weight files"):
        read(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="is a whole model"):
        read(tmp_path)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    write(tmp_path / "one.safetensors", state)
    with pytest.raises(InputError, match=r"two\.safetensors, which is not there"):
        read(tmp_path)


def test_an_index_reads_no_file_of_another_folder(tmp_path, state):
    """A model folder of others may name what it likes; the files are there, and they are sound."""
    (tmp_path / "model").mkdir()
    for place in (tmp_path, tmp_path / "model"):
        write(place / "other.safetensors", state)
    for name in ("../other.safetensors", str(tmp_path / "other.safetensors"), "..\\other.safetensors"):
        index = {"weight_map": {"a": "other.safetensors", "b": name}}
        (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(InputError, match="is no file beside it"):
            read(tmp_path / "model" / "model.safetensors.index.json")


def test_folders_shards_and_variants(tmp_path, state):
    names = list(state)
    index = {"weight_map": {name: f"part{i % 2}.safetensors" for i, name in enumerate(names)}}
    for i in range(2):
        write(tmp_path / f"part{i}.safetensors", {name: state[name] for name in names[i::2]})
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert equal(read(tmp_path), state)
    half = {name: tensor.half() for name, tensor in state.items()}
    write(tmp_path / "diffusion_pytorch_model.fp16.safetensors", half)
    assert equal(read(tmp_path, "fp16"), half)
    assert equal(read(tmp_path), state)
    assert locate(tmp_path, "fp16") == (tmp_path / "diffusion_pytorch_model.fp16.safetensors",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_the_first_tensor_with_nan_or_infinity_is_named(dtype):
    good = torch.linspace(-1, 1, 8).to(dtype)
    check_finite({"a": good, "ids": torch.arange(3), "none": torch.zeros(0)})
    bad = good.clone().view(torch.uint8)
    bad[-good.element_size() :] = 0xFF
    with pytest.raises(InputError, match=r"w\.ckpt: tensor b\.weight holds NaN"):
        check_finite({"a": good, "b.weight": bad.view(dtype), "c": bad.view(dtype)}, "w.ckpt")
    if dtype != torch.float8_e4m3fn:  # this one has no infinity
        with pytest.raises(InputError, match="tensor b holds infinity"):
            check_finite({"a": good, "b": torch.tensor([0.0, -torch.inf], dtype=dtype)})


def test_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"c")
    of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256([tmp_path / "a", tmp_path / "b"]) == of_abc
