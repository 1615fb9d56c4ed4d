"""Parts that take turns on the device: results are those of a model that stays there."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests import folders
from videogen.offload import Turns
from videogen.pipeline import Pipeline

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Part(nn.Linear):
    """A part that writes down where it is sent."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.seen: list[str] = []

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        self.seen.append(str(fn(torch.zeros(1)).device))
        return super()._apply(fn, recurse)


def test_one_part_at_a_time_is_on_the_device() -> None:
    called, other = Part(), Part()
    turns = Turns((called, other), torch.device("meta"), on_call=[called])
    called(torch.zeros(1, 2, device="meta"))
    called(torch.zeros(1, 2, device="meta"))
    assert (called.seen, other.seen) == (["cpu", "meta"], ["cpu"])
    called._apply = lambda fn, recurse=True: called.seen.append("cpu") or called  # type: ignore[method-assign]  # meta has no way back
    turns.bring(other)
    assert (called.seen, other.seen) == (["cpu", "meta", "cpu"], ["cpu", "meta"])
    turns.end()
    called(torch.zeros(1, 2, device="meta"))
    assert other.seen == ["cpu", "meta"]


@pytest.mark.parametrize("frames", [1, 3])
def test_offloaded_equals_plain(tmp_path: Path, frames: int) -> None:
    folders.animatediff(tmp_path / "model")
    options = {"num_frames": frames, "num_inference_steps": 2, "seed": 0, "output_type": "pt", "progress": False}
    plain = Pipeline.from_pretrained(tmp_path / "model", device=DEVICE)
    expected = plain("a red circle", **options).frames
    plain.enable_model_cpu_offload(DEVICE)
    torch.testing.assert_close(plain("a red circle", **options).frames, expected, atol=1e-5, rtol=0)
    assert plain.device.type == DEVICE
    assert plain._turns is not None
    assert plain._turns.there is plain.parts.vae
    assert next(plain.parts.unet.parameters()).device.type == "cpu"
    torch.testing.assert_close(plain.to(DEVICE)("a red circle", **options).frames, expected, atol=1e-5, rtol=0)
    assert plain._turns is None
    assert not plain.parts.unet._forward_pre_hooks


def test_tiles_are_for_frames_larger_than_the_vae_was_trained_on(tmp_path: Path) -> None:
    folders.animatediff(tmp_path / "model")
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    small, large = (torch.rand(1, 1, 4, side, side, generator=torch.Generator().manual_seed(0)) for side in (4, 24))
    whole = [pipe.decode(latents) for latents in (small, large)]
    pipe.enable_vae_tiling()
    assert torch.equal(pipe.decode(small), whole[0])
    tiled = pipe.decode(large)
    assert tiled.shape == whole[1].shape
    assert not torch.equal(tiled, whole[1])
