"""FateZero by the identities of its sheet, on a tiny model; the three ways to hold attention agree to the bit."""

import dataclasses
from typing import Any

import pytest
import torch

from editors import map_store
from editors.ddim_inversion import invert_clip
from editors.fatezero import (
    ATTRIBUTE,
    PRESETS,
    SHAPE,
    STYLE,
    FromInversion,
    Fusing,
    Settings,
    default_frames,
    fatezero,
    masks,
    settled,
)
from editors.map_fusion import Exchange
from editors.map_levels import attention_sites
from editors.workpiece import begin
from tests import nets
from tests.editors.precision import in_double
from videogen.control import Control
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL, FrameChoice
from videogen.inversion import invert
from videogen.models.presets import SD1_UNET
from videogen.models.unet import UNet
from videogen.pipeline import Pipeline
from videogen.sampling import ddim
from videogen.windows import Windows

SOURCE, TARGET = "a red circle", "a blue circle"
BLENDED = dataclasses.replace(SHAPE, blend=("circle",), threshold=0.97, blend_latents=True)


def edit(pipe: Pipeline, clip: torch.Tensor, source: str = SOURCE, target: str = TARGET, **options: Any):
    return fatezero(pipe, clip, source, target, **{"steps": 4, "progress": False, "guidance_scale": 3.0, **options})


@pytest.fixture
def short(clip: torch.Tensor) -> torch.Tensor:
    """Two frames that are not square."""
    return clip[:2, :, :40, :24]


@pytest.mark.parametrize("settings", [STYLE, BLENDED], ids=["style", "blended"])
def test_three_ways_to_hold_attention_give_the_same_clip(still, short, settings, tmp_path):
    ways = [
        edit(still[0], short, settings=settings, hold=way, folder=tmp_path) for way in ("recomputed", "memory", "disk")
    ]
    for other in ways[1:]:
        assert torch.equal(ways[0].frames, other.frames)
    assert not list(tmp_path.iterdir())
    assert ways[0].measured["held_mib"] == ways[2].measured["held_mib"] < ways[1].measured["held_mib"]


def test_three_ways_agree_in_windows_too(moving, clip):
    options = {
        "settings": dataclasses.replace(BLENDED, exchange=Exchange("auto", 0.6, 0.6, 0.6)),
        "windows": Windows(3, 2),
        "steps": 3,
    }
    ways = [edit(moving[0], clip[:, :, :24, :16], hold=way, **options) for way in ("recomputed", "memory", "disk")]
    assert ways[0].mask.shape == (4, 1, 24, 16)
    for other in ways[1:]:
        assert torch.equal(ways[0].frames, other.frames)


def test_held_maps_are_those_of_the_inversion_itself(still, short):
    made = invert_clip(still[0], short, SOURCE, frames=default_frames(still[0]), steps=4, progress=False)
    for way in ("memory", "disk"):
        with pytest.raises(InputError, match="hold them recomputed"):
            edit(still[0], short, hold=way, trajectory=made)


def test_recomputed_memory_does_not_grow_with_the_steps(still, short):
    settings = Settings(Exchange("auto", 1.0, 1.0))

    def held(way: str, steps: int) -> float:
        return edit(still[0], short[:1], settings=settings, hold=way, steps=steps).measured["held_mib"]

    assert held("recomputed", 2) == held("recomputed", 4) == held("memory", 2) / 2 == held("memory", 4) / 4 > 0


class Compared(Control):
    """Counts the maps that equal those of the inversion to the bit, and those that do not."""

    def __init__(self, held: map_store.InMemory) -> None:
        self.held, self.counts = held, {True: 0, False: 0}

    def at(self, t, frames, times):
        self.source = self.held(t, frames)
        return self

    def wants_maps(self, site, p):
        return site.place in self.source

    def maps(self, site, probs, p):
        self.counts[torch.equal(probs, self.source[site.place])] += 1
        return probs


@torch.no_grad()
def test_the_same_prompt_with_all_steps_replaced_attends_as_the_inversion_did(still, short):
    """Bit for bit at every held site; and asked where the inversion asked, the network says what it said there."""
    pipe = still[0]
    work = begin(pipe, short, 3, frames=default_frames(pipe))
    (pair,) = work.conditions(SOURCE)
    words = pair[0].words[0]
    fusing = settled(pipe.parts.unet, words, words, Settings(Exchange("auto", 1.0, 1.0)))
    held = map_store.InMemory()
    ask = work.denoise(pair, 1.0, map_store.KeepAt(fusing.sites))
    trajectory = invert(held.listening(ask), work.latents, work.times)
    compared = Compared(held)
    control = (FromInversion(fusing, held) >> compared).on("cond")
    ddim(work.denoise(pair, 3.0, control), trajectory.noise, work.times)
    assert compared.counts == {True: 3 * len(attention_sites(pipe.parts.unet)), False: 0}
    edited = work.denoise(pair, 1.0, control)
    for t, cleaner in zip(work.times.t.tolist(), trajectory.latents[1:], strict=True):
        assert torch.equal(edited(cleaner, t).out, ask(cleaner, t).out)


@pytest.mark.parametrize(
    ("threshold", "like"), [(2.0, {"blend": ()}), (0.0, {"exchange": Exchange("refine", 0.6, 0.0)})]
)
def test_thresholds_at_the_ends_are_no_blend_and_no_replacement(still, short, threshold, like):
    pipe = in_double(still[0])
    settings = Settings(Exchange("refine", 0.6, 0.6), blend=("circle",), threshold=threshold)
    blended, plain = (edit(pipe, short, settings=s) for s in (settings, dataclasses.replace(settings, **like)))
    torch.testing.assert_close(blended.frames, plain.frames, rtol=0, atol=1e-5)
    free = edit(pipe, short, settings=dataclasses.replace(settings, threshold=0.97))
    assert (free.frames - plain.frames).abs().max() > 1e-4


def test_blended_latents_outside_the_mask_are_the_inversions(still, short):
    """With an empty mask to the last step, the clip's own latents come back, whatever the prompt."""
    pipe = still[0]
    empty = dataclasses.replace(BLENDED, threshold=2.0, blend_window=(0.0, 1.0), exchange=Exchange("auto", 1.0, 1.0))
    exact = edit(pipe, short, settings=empty)
    torch.testing.assert_close(exact.frames, pipe.decode(pipe.encode(short[None]))[0], rtol=0, atol=1e-5)
    assert exact.mask.max() == 0
    noisier = edit(pipe, short, settings=dataclasses.replace(empty, pairing="noisier"))
    assert (noisier.frames - exact.frames).abs().max() > 1e-4


def test_nothing_fused_is_the_plain_edit(still, short):
    from editors import ddim_inversion

    pipe = in_double(still[0])
    plain = ddim_inversion(pipe, short, SOURCE, TARGET, steps=4, guidance_scale=3.0, progress=False)
    nothing = edit(pipe, short, settings=Settings(Exchange("refine", 0.0, 0.0)), frames=FrameChoice(()))
    torch.testing.assert_close(nothing.frames, plain.frames, rtol=0, atol=1e-5)
    assert nothing.measured["held_mib"] == 0


def test_any_frame_table_serves(still, clip):
    short = clip[:3, :, :24, :24]
    tables = [FrameChoice(entries) for entries in (("middle",), (-1, "first"), (0, "middle"))]
    made = [edit(still[0], short, frames=table, steps=2).frames for table in tables]
    assert all((a - b).abs().max() > 1e-5 for a, b in zip(made, made[1:], strict=False))
    one = [edit(still[0], short[:1], frames=table, steps=2).frames for table in tables[:2]]
    assert torch.equal(*one)


def test_levels_are_those_of_the_paper_at_any_size(still):
    with torch.device("meta"):
        unet = UNet(SD1_UNET)
    table = default_frames(Pipeline(dataclasses.replace(still[0].parts, unet=unet)))
    fused = {site.level for site in attention_sites(unet) if table.sites(site)}
    assert fused == {1, 2, 3}  # the outermost maps, 64 x 64 at 512, are neither held nor read across frames


def test_shape_edits_blend_the_words_that_differ(still):
    text = still[0].parts.text
    source, target = text.tokenize(["a red circle on black", "a red square on black"])[0]
    fusing = settled(still[0].parts.unet, source, target, SHAPE)
    assert isinstance(fusing, Fusing)
    assert fusing.words[0].nonzero().flatten().tolist() == list(source.where("circle"))
    assert fusing.words[1].nonzero().flatten().tolist() == list(target.where("square"))
    assert set(PRESETS) == {"style", "attribute", "shape", "reconstruction"}
    # Of a repeated word the one that differs.
    source, target = text.tokenize(["a red dot by a blue dot", "a blue dot by a blue box"])[0]
    words = settled(still[0].parts.unet, source, target, SHAPE).words
    assert words[0].nonzero().flatten().tolist() == [*source.where("red"), *source.where("dot")[3:]]
    assert words[1].nonzero().flatten().tolist() == [*target.where("blue")[:4], *target.where("box")]


def test_shape_edits_that_only_add_words_have_no_mask_but_a_word_that_is_named_must_be_somewhere(still, short):
    """What was added has no place in the source."""
    added = "a red circle and a dot"
    assert not masks(still[0], SOURCE, added, SHAPE)
    assert masks(still[0], SOURCE, TARGET, SHAPE)
    plain = dataclasses.replace(SHAPE, blend=())
    made, expected = (edit(still[0], short, target=added, settings=s) for s in (SHAPE, plain))
    assert torch.equal(made.frames, expected.frames)
    assert made.mask is None
    for word, message in (("dot", "none of the blend words"), ("square", "in neither prompt")):
        with pytest.raises(InputError, match=message):
            masks(still[0], SOURCE, added, dataclasses.replace(SHAPE, blend=(word,)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": dataclasses.replace(ATTRIBUTE, blend=("blue",))}, "none of the blend words"),
        ({"settings": dataclasses.replace(ATTRIBUTE, blend=("square",))}, "in neither prompt"),
        ({"hold": "tape"}, "choose one of recomputed, memory, disk"),
        ({"hold": "disk", "folder": "not/there"}, "does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(still, picture, options, message):
    with pytest.raises(InputError, match=message):
        edit(still[0], picture, **options)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"pairing": "x"}, "equal or noisier"), ({"blend_window": (0.8, 0.2)}, "share of the steps")]
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Settings(Exchange("auto", 0.8, 0.8), **wrong)


def test_a_file_of_maps_is_the_maps(tmp_path):
    unet, x = nets.tiny_unet(), nets.clip(1, 2)
    keep = nets.given(unet, nets.condition(), map_store.KeepAt(lambda t, times: lambda site: t > 500))
    memory, disk = map_store.InMemory(), map_store.OnDisk(tmp_path)
    for store in (memory, disk):
        for t in (900.0, 100.0):
            assert store.listening(keep)(x, t).kept == {}
        assert store(100.0, (0, 1)) == {}
    assert memory(900.0, (0, 1)).keys() == disk(900.0, (0, 1)).keys() == {s.place for s in attention_sites(unet)}
    for place, probs in memory(900.0, (0, 1)).items():
        assert torch.equal(probs, disk(900.0, (0, 1))[place])


def test_a_model_tuned_on_a_clip_reads_the_frames_it_was_tuned_with(still, short):
    from motion_modules.tune_a_video import add_temporal, remove_temporal

    double = in_double(still[0])  # a copy, so that the layers stay there
    unet = add_temporal(double.parts.unet).double()
    assert default_frames(double) == SPARSE_CAUSAL
    ways = [
        edit(double, short, settings=SHAPE, target="a red square", hold=way, steps=2)
        for way in ("recomputed", "memory")
    ]
    assert torch.equal(ways[0].frames, ways[1].frames)
    remove_temporal(unet)
    assert default_frames(double).entries == ("middle",)


def test_a_model_with_motion_modules_reads_its_own_frames(moving):
    assert default_frames(moving[0]).entries == ()
