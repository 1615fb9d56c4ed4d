"""Measuring against the truth of the shapes world, and its symmetries."""

import itertools

import pytest
import torch

from videogen.errors import InputError
from videogen.metrics.shapes_accuracy import blurred, round_trip, table
from videogen.models.folder import miniature
from videogen.shapes import agrees, measure, parse, render, sample, world
from videogen.shapes.regions import SPECK, regions
from videogen.shapes.wanted import truths


def draw(count, seed=0, **kind):
    return sample(count, generator=torch.Generator().manual_seed(seed), **kind)


def named(measurement):
    return [(item.colour, item.shape, item.size, item.motion) for item in measurement.objects]


@pytest.mark.parametrize("after", [None, blurred])
def test_clips_are_read_right(after):
    for row in table(64, torch.Generator().manual_seed(11), after):
        assert row.right >= row.asked - 1, row


@pytest.mark.slow
@pytest.mark.parametrize(("after", "target"), [(None, 0.995), (blurred, 0.99)])
def test_the_promised_accuracy_is_reached(after, target):
    for row in table(2000, torch.Generator().manual_seed(12), after):
        assert row.right >= target * row.asked, row


@pytest.mark.slow
def test_the_promised_accuracy_is_nearly_reached_after_the_miniatures_vae():
    """Outlined objects near the border between small and large, and outlined stars of 60 pixels inside, fall short of 0.99."""
    short = {"size": 0.97, "unchanged": 0.97, "shape": 0.98}
    for row in table(400, torch.Generator().manual_seed(12), round_trip(str(miniature() / "vae"))):
        assert row.right >= short.get(row.attribute, 0.99) * row.asked, row


def test_every_kind_of_object_is_read_right_alone():
    """All shapes x colours x styles once, on each background in turn."""
    kinds = list(itertools.product(range(4), range(8), range(3)))
    scenes = draw(len(kinds), objects=1, motions=["standing still"])
    shape, colour, style = torch.tensor(kinds).T
    background = torch.arange(len(kinds)) % len(world.BACKGROUNDS)
    scenes = scenes.change(
        shape=shape[:, None].expand(-1, 2),
        style=style,
        background=background,
        rgb=(torch.tensor(list(world.COLOURS.values()))[colour] / 255)[:, None].expand(-1, 2, -1),
        ground=torch.tensor(list(world.BACKGROUNDS.values()))[background] / 255,
    )
    found = measure(render(scenes, frames=4).frames)
    for measurement, (shape_, colour_, style_), ground in zip(found, kinds, background.tolist(), strict=True):
        seen = (measurement.background, measurement.style, *[(o.shape, o.colour) for o in measurement.objects])
        names = (world.SHAPES[shape_], list(world.COLOURS)[colour_])
        assert seen == (list(world.BACKGROUNDS)[ground], world.STYLES[style_], names)


def test_places_areas_and_turns_are_those_of_the_truth():
    scenes = draw(16, objects=1, styles=["flat"], plain=True, motions=["rotating", "moving left"])
    rendered = render(scenes)
    boxes, areas = rendered.boxes[:, :, 0], rendered.masks[:, :, 0].sum((-1, -2))
    for index, measurement in enumerate(measure(rendered.frames)):
        (item,) = measurement.objects
        assert ((item.areas / areas[index] - 1).abs() < 0.1).all()
        assert (item.centres > boxes[index, :, :2]).all()
        assert (item.centres < boxes[index, :, 2:]).all()
        assert abs(item.turn - float(scenes.turn[index, 0])) < 0.1


def test_a_clip_played_backwards_moves_the_other_way():
    back = {"left": "right", "right": "left", "up": "down", "down": "up"}
    frames = render(draw(24)).frames
    for forth, reverse in zip(measure(frames), measure(frames.flip(1)), strict=True):
        expected = []
        for colour, shape, size, motion in named(forth):
            turned = {"growing": "shrinking", "shrinking": "growing"}.get(motion, motion)
            if motion in world.DIRECTIONS:
                turned = f"moving {back[motion.split()[1]]}"
            expected.append((colour, shape, size, turned))
        assert sorted(named(reverse)) == sorted(expected)


def test_a_mirrored_clip_moves_the_mirrored_way():
    mirror = {"moving left": "moving right", "moving right": "moving left"}
    frames = render(draw(24, styles=["flat"])).frames
    for one, other in zip(measure(frames), measure(frames.flip(-1)), strict=True):
        assert named(other) == [(*rest, mirror.get(motion, motion)) for *rest, motion in named(one)]
        if len(one.objects) == 2:
            sides = {"left of": "right of", "right of": "left of", "above": "above", "below": "below"}
            held = {name for name in sides if one.holds(name, 0, 1)}
            assert {name for name in sides if other.holds(name, 0, 1)} == {sides[name] for name in held}
            assert held


def test_half_and_double_size_are_read_alike():
    scenes = draw(8, objects=1, styles=["flat"])
    assert [named(m) for m in measure(render(scenes, size=256).frames)] == [
        named(m) for m in measure(render(scenes).frames)
    ]


def test_an_object_that_changes_is_told_from_one_that_stays():
    scenes = draw(12, objects=1, motions=["standing still"])
    steady = render(scenes).frames
    other = scenes.change(colour=scenes.colour.flip(1), rgb=scenes.rgb.flip(1))
    larger = scenes.change(radius=scenes.radius * 1.25)
    assert all(item.unchanged for m in measure(steady) for item in m.objects)
    for changed in (other, larger):
        frames = torch.cat([steady[:, :4], render(changed).frames[:, 4:12], steady[:, 12:]], dim=1)
        assert not any(item.unchanged for m in measure(frames) for item in m.objects)
    gone = torch.cat([steady[:, :15], render(scenes.change(centre=scenes.centre + 500)).frames[:, 15:]], dim=1)
    assert not any(item.unchanged for m in measure(gone) for item in m.objects)


def test_an_object_that_flickers_into_some_frames_or_out_of_them_is_told():
    one, two = draw(1, objects=1, styles=["flat"], plain=True), draw(1, seed=1, objects=2, styles=["flat"], plain=True)
    clip, more = render(one).frames, render(two.change(background=one.background, ground=one.ground)).frames
    (wanted,) = truths(one)
    for frames in (1, 4, 7):
        mixed = clip.clone()
        mixed[:, 3 : 3 + frames] = more[:, 3 : 3 + frames]
        (measurement,) = measure(mixed)
        assert (measurement.crowded, agrees(measurement, wanted)["unchanged"]) == (frames, False)
    (measurement,) = measure(clip)
    assert (measurement.crowded, agrees(measurement, wanted)["unchanged"]) == (0, True)
    assert not agrees(measurement, truths(two)[0])["unchanged"]  # one of the two is never there


def test_there_and_back_again_is_no_motion_of_the_world():
    frames = render(draw(8, objects=1, motions=["moving left"])).frames
    assert [item.motion for one in measure(frames) for item in one.objects] == ["moving left"] * 8
    back = torch.cat([frames[:, ::2], frames[:, ::2].flip(1)], dim=1)
    assert [item.motion for one in measure(back) for item in one.objects] == [None] * 8


def test_a_single_frame_does_not_tell_whether_the_camera_moves():
    (measurement,) = measure(render(draw(1, plain=False), frames=1).frames)
    assert measurement.camera_still is None


def test_empty_and_random_clips_are_measured_too():
    empty, noise = measure(
        torch.stack([torch.full((3, 3, 128, 128), 0.05), torch.rand(3, 3, 128, 128, generator=torch.Generator())])
    )
    assert (empty.background, empty.style, empty.objects) == ("black", None, ())
    wanted = parse("a red circle moving right on a black background")
    assert not any(agrees(noise, wanted).values())
    verdict = agrees(empty, wanted)
    assert verdict.pop("background")
    assert not any(verdict.values())


def test_agreement_judges_only_what_is_asked_and_the_defaults():
    scenes = draw(16, objects=2, styles=["flat"], plain=True)
    for measurement, truth in zip(measure(render(scenes).frames), truths(scenes), strict=True):
        assert all(agrees(measurement, truth).values())
        assert {"background", "relation", "motion"} <= agrees(measurement, truth).keys()
        verdict = agrees(measurement, parse("circle"))
        assert {"count", "style", "unchanged", "shape"} == verdict.keys()
        assert not verdict["count"]
        swapped = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[truth.relation]
        first, second = truth.objects
        text = f"a {first.colour} {first.shape} {swapped} a {second.colour} {second.shape}"
        assert not agrees(measurement, parse(text))["relation"]


def test_regions_are_those_of_a_flood_fill():
    mask = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)) < 0.42
    found = regions(mask)
    for picture in range(3):
        seen = torch.zeros(40, 40, dtype=torch.bool)
        for start in mask[picture].nonzero().tolist():
            if seen[tuple(start)]:
                continue
            region, edge = {tuple(start)}, [tuple(start)]
            while edge:
                y, x = edge.pop()
                around = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} - region
                fresh = [p for p in around if 0 <= p[0] < 40 and 0 <= p[1] < 40 and mask[picture][p]]
                region |= set(fresh)
                edge += fresh
            rows, columns = torch.tensor(sorted(region)).T
            seen[rows, columns] = True
            labels = found.labels[picture][rows, columns].unique()
            assert len(labels) == 1
            if len(region) < SPECK:
                assert labels == 0
                continue
            number = int(labels) - 1
            assert (found.picture[number], found.area[number]) == (picture, len(region))
            centre = torch.stack([columns.float().mean(), rows.float().mean()]) + 0.5
            assert torch.allclose(found.centre[number], centre, atol=1e-3)


def test_what_is_no_batch_of_clips_is_an_input_error():
    with pytest.raises(InputError, match="b f 3 H W"):
        measure(torch.zeros(2, 3, 128, 128))
