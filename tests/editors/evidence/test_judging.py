"""Known answers: the true edit is done and keeps all else, the source is not edited and keeps all, and each harm is seen for what it is."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from editors.evidence.judging import areas, at_places, change, elsewhere, judge, judge_text
from editors.evidence.methods import FIRST
from editors.evidence.trials import EDITS, FROM_TEXT, KINDS, RECONSTRUCTION, Trial, centres, source_clip, trial
from videogen.errors import InputError
from videogen.shapes import Scenes, measure, parse, render, world
from videogen.shapes.geometry import area_factor
from videogen.shapes.wanted import truths

FRAMES, SIZE = 16, 128
EVERY = {e: [trial(e, n) for n in range(4)] for e in EDITS}


def drawn(scene: Scenes) -> Tensor:
    return render(scene, FRAMES, SIZE).frames[0]


@pytest.mark.parametrize("edit", EDITS)
def test_the_truth_is_done_and_keeps_all_and_the_source_keeps_all_and_is_not_done(edit: str) -> None:
    for asked in EVERY[edit]:
        source = drawn(asked.scene)
        truth = judge(asked, drawn(asked.changed), source, FRAMES)
        assert truth.done, asked
        assert all(truth.stayed.values()), truth
        nothing = judge(asked, source, source, FRAMES)
        assert nothing.done is False
        assert all(nothing.stayed.values())
        assert nothing.values["change"] == 0
        assert truth.values["distance"] < 1
        assert (
            truth.values["change"] < 1e-6
        )  # pixels outside both masks are the same, inside objects under another ground too


@pytest.mark.parametrize("edit", EDITS)
def test_source_and_target_prompts_are_true_of_the_two_scenes_and_differ_in_what_is_asked(edit: str) -> None:
    for asked in EVERY[edit]:
        for prompt, scene in ((asked.source, asked.scene), (asked.target, asked.changed)):
            said, (whole,) = parse(prompt), truths(scene)
            assert (said.background, said.style, said.relation) == (whole.background, whole.style, whole.relation)
            for a, b in zip(said.objects, whole.objects, strict=True):
                assert (a.shape, a.motion) == (b.shape, b.motion)
                assert a.colour in (None, b.colour)
        before, after = parse(asked.source), parse(asked.target)
        name = asked.asked[0]
        old, new = (p if name in ("style", "background") else p.objects[0] for p in (before, after))
        assert getattr(old, name) != getattr(new, name)
        assert getattr(new, name) is not None


def test_of_one_picture_all_but_motion_is_judged() -> None:
    for number in range(4):
        asked = trial(RECONSTRUCTION, number)
        picture = drawn(asked.scene)[:1]
        found = judge(asked, picture, picture, FRAMES, every=FIRST)
        assert all(found.stayed.values()), found
        assert "motion" not in found.stayed
        assert found.read is not None  # without it no PSNR is taken
        assert not all(judge(asked, torch.full_like(picture, 0.9), picture, FRAMES, every=FIRST).stayed.values())


def test_kinds_take_turns_and_edits_share_scenes_and_sources() -> None:
    for edit in EDITS:
        assert tuple(t.kind for t in EVERY[edit]) == KINDS
    for edit in ("shape", "style", "background"):
        assert [t.source for t in EVERY[edit]] == [t.source for t in EVERY["colour"]]
    assert {t.clip_name for e in EDITS for t in EVERY[e]} == {f"{n:04d}{s}" for n in range(4) for s in ("", "-styled")}
    assert trial("colour", 2, seed=1).source != trial("colour", 2).source
    with pytest.raises(InputError, match="'size' is not known"):
        trial("size", 0)


@pytest.fixture
def two() -> Trial:
    """A trial of colour with two objects."""
    return EVERY["colour"][3]


def test_a_moved_object_is_off_its_position_and_nothing_else(two: Trial) -> None:
    moved = two.changed.centre.clone()
    moved[:, 0] += torch.tensor([4.0, 0.0]) * torch.sign(64 - moved[:, 0, :1])
    found = judge(two, drawn(two.changed.change(centre=moved)), drawn(two.scene), FRAMES)
    assert found.done
    assert [name for name, stayed in found.stayed.items() if not stayed] == ["position"]
    assert found.values["distance"] == pytest.approx(2, abs=0.5)  # four pixels of one object in two
    assert found.values["velocity"] < 0.1


def test_harm_to_the_other_object_is_told_apart(two: Trial) -> None:
    harmed = two.changed.change(
        shape=torch.tensor([[int(two.changed.shape[0, 0]), (int(two.changed.shape[0, 1]) + 1) % 4]])
    )
    found = judge(two, drawn(harmed), drawn(two.scene), FRAMES)
    assert found.done
    assert [name for name, stayed in found.stayed.items() if not stayed] == ["other"]


def test_a_frozen_clip_loses_motion_and_its_velocity_is_wholly_wrong() -> None:
    asked = EVERY["colour"][2]  # a square that moves right
    source = drawn(asked.scene)
    found = judge(asked, drawn(asked.changed)[:1].expand(FRAMES, -1, -1, -1), source, FRAMES)
    assert found.done
    assert not found.stayed["motion"]
    assert not found.stayed["position"]
    assert found.values["velocity"] == pytest.approx(1, abs=0.02)


def test_a_clip_without_objects_or_without_numbers_keeps_nothing() -> None:
    asked = EVERY["colour"][0]
    source = drawn(asked.scene)
    empty = judge(asked, torch.full_like(source, 0.2), source, FRAMES)
    assert (empty.done, empty.stayed["position"], empty.stayed["count"]) == (False, False, False)
    assert "distance" not in empty.values
    broken = judge(asked, source * torch.nan, source, FRAMES)
    assert broken.done is False
    assert not any(broken.stayed.values())
    assert broken.read is None
    assert broken.stayed.keys() == empty.stayed.keys()


def test_every_second_frame_is_held_against_every_second_frame(two: Trial) -> None:
    source, truth = drawn(two.scene)[::2], drawn(two.changed)[::2]
    found = judge(two, truth, source, FRAMES, every=2)
    assert found.done
    assert all(found.stayed.values())
    assert found.values["change"] < 1e-6


def test_change_is_counted_where_nothing_was_asked_for(two: Trial) -> None:
    source = drawn(two.scene)
    free = elsewhere(two, FRAMES, SIZE)
    masks = render(two.scene, FRAMES, SIZE).masks[0]
    assert not free[masks[:, 0] > 0].any()
    assert free[masks[:, 1] > 0].any()  # the other object is to stay, so its place counts
    brighter = source + 0.25 * free[:, None]
    assert change(two, brighter, source, FRAMES) == pytest.approx(0.25)
    assert change(two, source + 0.25 * ~free[:, None], source, FRAMES) == 0
    whole = trial(RECONSTRUCTION, 3)
    assert elsewhere(whole, FRAMES, SIZE).all()
    # the background's edit: only inside the objects, where they are thick enough
    inside = elsewhere(EVERY["background"][3], FRAMES, SIZE)
    assert not inside[masks.sum(1) < 1].any()


def test_the_margin_around_the_masks_is_four_pixels(two: Trial) -> None:
    free = elsewhere(EVERY["style"][0], FRAMES, SIZE)
    mask = render(EVERY["style"][0].scene, 1, SIZE).masks[0, 0, 0] > 0
    column = int(mask.sum(0).argmax())
    top = int(mask[:, column].int().argmax())
    assert not free[0, top - 4, column]
    assert free[0, top - 5, column]


def test_objects_are_known_by_their_places(two: Trial) -> None:
    frames = drawn(two.changed)
    (found,) = measure(frames[None])
    places = centres(two.scene, FRAMES)
    straight, crossed = at_places(found, places), at_places(found, places.flip(0))
    assert straight == crossed[::-1]
    assert None not in straight


def test_the_source_is_read_from_a_file_of_h264(tmp_path: Path) -> None:
    import av

    asked = EVERY["colour"][0]
    clip = source_clip(asked, tmp_path, FRAMES, SIZE)
    (path,) = tmp_path.iterdir()
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert 0 < (clip - drawn(asked.scene)).abs().mean() < 0.02
    assert torch.equal(source_clip(asked, tmp_path, FRAMES, SIZE), clip)
    with pytest.raises(InputError, match="not the source of this run"):
        source_clip(asked, tmp_path, 8, SIZE)


def test_clips_from_text_move_as_asked_and_keep_one_colour() -> None:
    asked = trial(FROM_TEXT, 0)
    frames = drawn(asked.scene)
    good = judge_text(asked, frames)
    assert good.done
    assert good.stayed == {"one colour": True, "colour": True}
    back = judge_text(asked, frames.flip(0))
    assert back.done is False
    other = asked.scene.change(rgb=asked.scene.rgb.flip(-1))
    mixed = torch.cat([drawn(other)[:5], frames[5:]])
    assert not judge_text(asked, mixed).stayed["one colour"]
    nothing = drawn(asked.scene.change(count=torch.zeros_like(asked.scene.count)))
    assert not judge_text(asked, torch.cat([frames[:8], nothing[8:]])).stayed["one colour"]


def test_an_object_that_leaves_the_picture_leaves_its_colour_to_another() -> None:
    """Two of one colour, and the larger is gone after a while."""
    asked = next(t for t in (trial("colour", n) for n in range(40)) if len(parse(t.source).objects) == 2)
    same = asked.scene.change(rgb=asked.scene.rgb[:, :1].expand(-1, 2, -1))
    alone = same.change(count=torch.ones_like(same.count))
    made = torch.cat([drawn(same)[:8], drawn(alone)[8:]])
    assert judge_text(asked, made).stayed["one colour"]


def test_of_an_object_that_stays_in_its_place_no_velocity_is_said() -> None:
    asked = next(t for t in (trial("colour", n) for n in range(40)) if parse(t.source).objects[0].motion == "growing")
    clip = drawn(asked.scene)
    assert "velocity" not in judge(asked, clip, clip, FRAMES).values


def flickering(asked: Trial, spared: int = 0) -> Tensor:
    """Edited in nine frames of sixteen, or in all but a few."""
    undone, made = drawn(asked.scene), drawn(asked.changed)
    for frame in [*range(3, FRAMES, 2)] if not spared else range(spared):
        made[frame] = undone[frame]
    return made


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_flickers_is_not_done(edit: str) -> None:
    """Also where the clip as a whole reads right."""
    for asked in EVERY[edit]:
        found = judge(asked, flickering(asked), drawn(asked.scene), FRAMES)
        assert not (found.done and all(found.stayed.values())), asked
    if edit != "style":  # of which a contour can be read from the clip alone
        assert not any(judge(asked, flickering(asked), drawn(asked.scene), FRAMES).done for asked in EVERY[edit])


def test_two_frames_of_sixteen_are_spared_and_three_are_not() -> None:
    asked = EVERY["colour"][0]
    assert [judge(asked, flickering(asked, n), drawn(asked.scene), FRAMES).done for n in (1, 2, 3)] == [
        True,
        True,
        False,
    ]


def test_objects_that_flicker_have_not_kept_their_colours() -> None:
    """Both have the other's in every third frame."""
    asked = EVERY["background"][3]
    made = drawn(asked.changed)
    swapped = asked.changed.change(rgb=asked.changed.rgb.flip(1), colour=asked.changed.colour.flip(1))
    made[1::3] = drawn(swapped)[1::3]
    found = judge(asked, made, drawn(asked.scene), FRAMES)
    assert [name for name, stayed in found.stayed.items() if not stayed] == ["colour", "other"]


@pytest.mark.parametrize("edit", EDITS)
def test_an_object_that_shrank_to_a_third_has_not_kept_its_size(edit: str) -> None:
    alone = [asked for asked in (trial(edit, n) for n in range(8)) if asked.kind != "two objects"]
    # The contour of an outlined one may be missing, which takes as much.
    for asked in [asked for asked in alone if "outlined" not in asked.source + asked.target][:2]:
        less = asked.changed.change(radius=asked.changed.radius * torch.tensor([[0.55, 1.0]]))
        found = judge(asked, drawn(less), drawn(asked.scene), FRAMES)
        assert not found.stayed["size"], asked
        assert found.stayed["position"]
        assert found.stayed["colour" if "colour" not in asked.asked else "shape"]


def test_the_other_object_keeps_its_size_too(two: Trial) -> None:
    less = two.changed.change(radius=two.changed.radius * torch.tensor([[1.0, 0.7]]))
    found = judge(two, drawn(less), drawn(two.scene), FRAMES)
    assert [name for name, stayed in found.stayed.items() if not stayed] == ["other"]


def test_a_shape_of_the_area_that_it_had_keeps_its_size() -> None:
    """As a painter would do it, rather than of the same radius."""
    asked = EVERY["shape"][0]
    before, after = (area_factor(world.SHAPES[int(s.shape[0, 0])]) for s in (asked.scene, asked.changed))
    equal = asked.changed.change(radius=asked.changed.radius * (before / after) ** 0.5)
    found = judge(asked, drawn(equal), drawn(asked.scene), FRAMES)
    assert found.done
    assert found.stayed["size"]


def test_true_areas_are_those_of_the_masks() -> None:
    for edit in EDITS:
        for asked in EVERY[edit]:
            least, largest = areas(asked, FRAMES)
            drawn_areas = render(asked.changed, FRAMES, SIZE).masks[0].sum((2, 3)).T[: len(largest)]
            assert (drawn_areas <= 1.05 * largest).all()
            assert (drawn_areas >= 0.95 * least).all()
            if asked.asked == ("colour",):
                torch.testing.assert_close(drawn_areas, largest, rtol=0.05, atol=3)
                assert torch.equal(least, largest)


def test_a_moving_object_that_was_lost_errs_by_all_of_its_velocity() -> None:
    asked = EVERY["colour"][2]  # a square that moves right
    source, edited = drawn(asked.scene), drawn(asked.changed)
    ground = drawn(asked.scene.change(count=torch.zeros_like(asked.scene.count)))
    for lost in (ground, torch.cat([edited[:1], ground[1:]]), edited * torch.nan):
        found = judge(asked, lost, source, FRAMES)
        assert found.values["velocity"] == 1
        assert "distance" not in found.values
    still = next(t for t in (trial("colour", n) for n in range(40)) if not t.moves)
    assert "velocity" not in judge(still, drawn(still.scene) * torch.nan, drawn(still.scene), FRAMES).values
