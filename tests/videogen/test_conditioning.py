"""Conditions merge, stack, and are cut to frames without changing what they say; dials become plain weights."""

import pytest
import torch

from videogen.conditioning import Conditioning, Dial, keyed, stack
from videogen.errors import InputError


def tensor(*shape: int) -> torch.Tensor:
    """Every entry another number."""
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def weights(dial: Dial, frames, t=500.0, times=None):
    return Conditioning(dials={"part": dial}).at(t, frames, times).strengths["part"].weight[0].tolist()


# Dials


def test_scale_is_a_number_or_follows_the_time():
    assert weights(Dial(0.25), range(3)) == [0.25] * 3
    assert weights(Dial(lambda t: t / 1000), range(2), t=500.0) == [0.5] * 2


GRID = [900.0, 700.0, 500.0, 300.0, 100.0]
STEPS = {
    (0.0, 1.0): [1, 1, 1, 1, 1],
    (0.4, 1.0): [0, 0, 1, 1, 1],
    (0.0, 0.4): [1, 1, 0, 0, 0],
    (0.2, 0.6): [0, 1, 1, 0, 0],
    (0.0, 0.0): [0, 0, 0, 0, 0],
}


@pytest.mark.parametrize(("steps", "on"), STEPS.items(), ids=str)
def test_steps_are_a_fraction_of_the_grid_known_by_the_time(steps, on):
    dial = Dial(steps=steps)
    for times in (GRID, GRID[::-1]):  # inversion walks the same grid upwards
        assert [weights(dial, [0], t, times)[0] for t in GRID] == on
    assert weights(dial, [0], 40.0, GRID) == [float(steps[1] == 1)]  # beyond the grid: the end
    assert weights(dial, [0], 600.0, GRID) == weights(dial, [0], 500.0, GRID)  # between two steps: the later one


def test_frames_are_absolute_and_held_at_the_ends():
    assert weights(Dial(frames=[0.0, 0.5, 1.0]), [0, 1, 2, 3, 9]) == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert weights(Dial(frames={2: 0.0, 6: 1.0}), [0, 2, 3, 4, 6, 9]) == [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]
    assert weights(Dial(0.5, frames=[1.0, 2.0]), [0, 1]) == [0.5, 1.0]
    with pytest.raises(InputError, match="empty"):
        keyed([], [0])


def test_a_mask_is_one_picture_or_one_by_frame_and_ones_for_the_items_without():
    mask = torch.tensor([[0.0, 1.0]])
    strength = Conditioning(dials={"part": (None, Dial(mask=mask))}).at(0.0, range(3)).strengths["part"]
    assert torch.equal(strength.mask, torch.stack([torch.ones(3, 1, 2), mask.expand(3, 1, 2)]))
    moving = torch.stack([mask, 1 - mask])
    strength = Conditioning(dials={"part": Dial(mask=moving)}).at(0.0, [1, 0, 7]).strengths["part"]
    assert torch.equal(strength.mask[0], moving[[1, 0, 1]])
    with pytest.raises(InputError, match=r"masks.*different sizes"):
        Conditioning(dials={"part": (Dial(mask=mask), Dial(mask=torch.ones(4, 4)))}).at(0.0, [0])


def test_sites_are_asked_for_each_item():
    strength = (
        Conditioning(dials={"part": (Dial(0.5, sites=lambda site: site == "here"), None)})
        .at(0.0, [0, 1])
        .strengths["part"]
    )
    assert strength.of("here").tolist() == [[0.5, 0.5], [1.0, 1.0]]
    assert strength.of("there").tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert strength.only([1]).of("there").tolist() == [[1.0, 1.0]]
    assert strength.only([0]).off_at("there")
    assert not strength.off_at("there")
    assert not strength.only([0]).off_at("here")


def test_a_strength_knows_when_it_does_nothing_and_when_it_changes_nothing():
    def flags(*dials):
        strength = Conditioning(dials={"part": dials}).at(500.0, range(2), GRID).strengths["part"]
        return strength.off, strength.plain

    assert flags(Dial()) == flags(None) == flags(Dial(frames=[1.0])) == (False, True)
    assert flags(Dial(0.0)) == flags(Dial(steps=(0.0, 0.2))) == flags(Dial(frames=[0.0])) == (True, False)
    for dials in (
        (Dial(0.0), None),
        (Dial(0.5),),
        (Dial(mask=torch.ones(2, 2)),),
        (Dial(sites=bool),),
        (Dial(frames=[0.0, 1.0]),),
    ):
        assert flags(*dials) == (False, False)


# Cutting to frames


def every_port(f: int, frames=None) -> Conditioning:
    """One entry by frame in every port, and shared ones where a port has them."""
    return Conditioning(
        tokens={"text": tensor(2, f, 3, 4), "style": tensor(2, 3, 4)},
        vector={"text": tensor(2, f, 4), "size": tensor(2, 6)},
        concat={"mask": tensor(2, f, 1, 2, 2), "first": tensor(2, 1, 1, 2, 2)},
        residuals={"t2i/down.0": tensor(2, f, 1, 2, 2)},
        hints={"canny": tensor(2, f, 3, 4, 4)},
        groups=tensor(2, f).long(),
        frames=frames,
    )


PORTS = ("tokens", "vector", "concat", "residuals", "hints")


def test_a_condition_given_whole_and_cut_equals_the_condition_of_the_slice():
    ids = (4, 1, 6)
    whole = every_port(8)
    chosen = {port: {n: v[:, ids] if v.shape[1] == 8 else v for n, v in getattr(whole, port).items()} for port in PORTS}
    built = Conditioning(**chosen, groups=whole.groups[:, ids], frames=ids)
    for cut in (whole.at(0.0, ids), built.at(0.0, ids)):
        assert cut.frames == ids
        assert torch.equal(cut.groups, whole.groups[:, ids])
        for port in PORTS:
            assert getattr(cut, port).keys() == getattr(whole, port).keys()
            assert all(torch.equal(value, chosen[port][name]) for name, value in getattr(cut, port).items())
    twice = whole.at(0.0, (1, 4, 6, 7)).at(0.0, ids)
    assert torch.equal(twice.tokens["text"], chosen["tokens"]["text"])


def test_ids_say_which_frames_an_entry_has():
    later = every_port(3, frames=(8, 9, 10))
    assert torch.equal(later.at(0.0, [10, 8]).tokens["text"], later.tokens["text"][:, [2, 0]])
    with pytest.raises(InputError, match=r"tokens\['text'\] has 3 frames and none for frame 3"):
        later.replace(frames=None).at(0.0, range(4))
    with pytest.raises(InputError, match="none for frame 0"):
        later.at(0.0, [0])
    with pytest.raises(InputError, match="3 frames and 4 frame ids"):
        later.replace(frames=(0, 1, 2, 3)).at(0.0, [0])


# Merging


def test_merging_joins_ports_rows_and_dials():
    a = Conditioning(
        tokens={"text": tensor(2, 3, 4)},
        dials={"text": Dial(0.5)},
        rows=(frozenset("a"), frozenset("b")),
        words=("x", None),
    )
    b = Conditioning(
        tokens={"image": tensor(2, 1, 4)},
        vector={"text": tensor(2, 4)},
        dials={"image": (Dial(0.0), None)},
        frames=(0, 1),
        words=(None, "y"),
    )
    both = a & b
    assert list(both.tokens) == ["text", "image"]
    assert list(both.vector) == ["text"]
    assert both.dials == {"text": (Dial(0.5),) * 2, "image": (Dial(0.0), None)}
    assert both.rows == a.rows
    assert both.frames == (0, 1)
    assert both.words == ("x", "y")


def test_a_name_has_a_head_that_says_who_takes_it():
    cond = Conditioning(tokens={"text": tensor(1, 3, 4), "image": tensor(1, 1, 4), "text.style": tensor(1, 2, 4)})
    assert [entry.shape[1] for entry in cond.entries("tokens", "text")] == [3, 2]
    assert cond.entries("vector", "text") == []


TEXT = Conditioning(tokens={"text": tensor(2, 3, 4)})
UNMERGED = [
    (TEXT, TEXT, "both called 'text'.*text.2"),
    (Conditioning(dials={"motion": Dial()}), Conditioning(dials={"motion": Dial()}), "both called 'motion'"),
    (TEXT, Conditioning(vector={"size": tensor(3, 6)}), "2 and for 3 items"),
    (TEXT.replace(frames=(0, 1)), Conditioning(vector={"size": tensor(2, 6)}, frames=(1, 2)), "different frames"),
]


@pytest.mark.parametrize(("a", "b", "named"), UNMERGED, ids=[named for _, _, named in UNMERGED])
def test_what_cannot_be_merged_is_named(a, b, named):
    with pytest.raises(InputError, match=named):
        a & b


WRONG = [
    ({"tokens": {"text": tensor(3, 4)}}, r"tokens\['text'\] has shape \(3, 4\).*b f n d or b n d"),
    ({"concat": {"mask": tensor(1, 1, 2, 2)}}, r"concat\['mask'\].*b f c h w"),
    (
        {"tokens": {"text": tensor(2, 3, 4)}, "vector": {"size": tensor(3, 6)}},
        r"tokens\['text'\] has 2, vector\['size'\] has 3",
    ),
    ({"tokens": {"text": tensor(2, 3, 4)}, "rows": (frozenset(),)}, "rows has 1"),
    ({"tokens": {"text": tensor(2, 3, 4)}, "dials": {"text": (Dial(), Dial(), Dial())}}, r"dials\['text'\] has 3"),
    ({"tokens": {"text": tensor(2, 3, 4)}, "groups": torch.zeros(1, 4)}, "groups has 1"),
]


@pytest.mark.parametrize(("fields", "named"), WRONG, ids=[named for _, named in WRONG])
def test_entries_of_the_wrong_shape_are_named(fields, named):
    with pytest.raises(InputError, match=named):
        Conditioning(**fields)


# Stacking


def test_stacking_names_the_rows_and_nests():
    a, b, c, d = (Conditioning(tokens={"text": torch.full((1, 2, 3), float(i))}) for i in range(4))
    nested = stack(uncond=stack(source=a, target=b), cond=stack(source=c, target=d))
    assert nested.rows == tuple(
        frozenset(row) for row in (("uncond", "source"), ("uncond", "target"), ("cond", "source"), ("cond", "target"))
    )
    assert nested.tokens["text"][:, 0, 0].tolist() == [0, 1, 2, 3]
    assert nested.batch == 4
    assert stack(only=a).rows == (frozenset({"only"}),)
    with pytest.raises(InputError, match="at least one"):
        stack()


def test_a_missing_entry_is_zeros_with_its_dial_off():
    a = Conditioning(tokens={"text": tensor(2, 3, 4) + 1}, dials={"motion": Dial(0.5)})
    b = Conditioning(
        tokens={"text": tensor(1, 3, 4) + 1, "image": tensor(1, 2, 4) + 1},
        concat={"mask": tensor(1, 2, 1, 2, 2)},
        dials={"image": Dial(0.25)},
    )
    both = stack(a=a, b=b)
    assert torch.equal(both.tokens["image"], torch.cat([torch.zeros(2, 2, 4), b.tokens["image"]]))
    assert torch.equal(both.concat["mask"][:2], torch.zeros(2, 2, 1, 2, 2))
    assert both.dials == {
        "motion": (Dial(0.5), Dial(0.5), None),
        "image": (Dial(0.0), Dial(0.0), Dial(0.25)),
        "mask": (Dial(0.0), Dial(0.0), None),
    }
    weight = both.at(0.0, range(2)).strengths["image"].weight
    assert weight.tolist() == [[0, 0], [0, 0], [0.25, 0.25]]


def test_of_a_name_in_several_ports_the_tokens_decide_whether_it_is_off():
    """Zeros that are added do no harm, zeros that are attended to would."""
    text, pooled = {"text": tensor(1, 3, 4)}, {"text": tensor(1, 4)}
    both = stack(a=Conditioning(tokens=text), b=Conditioning(tokens=text, vector=pooled))
    assert both.dials == {}
    both = stack(a=Conditioning(vector=pooled), b=Conditioning(tokens=text, vector=pooled))
    assert both.dials == {"text": (Dial(0.0), None)}


def test_a_shared_entry_beside_one_by_frame_is_repeated():
    shared, single, framed = tensor(1, 3, 4), tensor(1, 1, 3, 4), tensor(1, 5, 3, 4)
    both = stack(
        a=Conditioning(tokens={"text": shared}),
        b=Conditioning(tokens={"text": single}),
        c=Conditioning(tokens={"text": framed}),
    )
    assert both.tokens["text"].shape == (3, 5, 3, 4)
    assert torch.equal(both.tokens["text"][0], shared.expand(5, 3, 4))
    assert torch.equal(both.tokens["text"][2], framed[0])


def test_groups_frames_and_words_are_stacked():
    a = Conditioning(tokens={"text": tensor(1, 3, 4)}, groups=torch.tensor([[0, 1]]), frames=(3, 4), words=("w",))
    both = stack(a=a, b=Conditioning(tokens={"text": tensor(1, 3, 4)}))
    assert both.groups.tolist() == [[0, 1], [0, 0]]
    assert both.frames == (3, 4)
    assert both.words == ("w", None)
    with pytest.raises(InputError, match="different frames"):
        stack(a=a, b=a.replace(frames=(5, 6)))


def test_stacked_texts_of_different_lengths_are_refused():
    a, b = (Conditioning(tokens={"text": tensor(1, n, 4)}) for n in (3, 5))
    with pytest.raises(InputError, match=r"'text' has different shapes.*lengths agree"):
        stack(a=a, b=b)


def test_items_are_multiplied_and_moved_as_one():
    cond = every_port(2).replace(dials={"text": (Dial(0.5), None)}, rows=(frozenset("a"), frozenset("b")))
    wide = cond.expand(3)
    assert wide.batch == 6
    assert wide.rows == (frozenset("a"),) * 3 + (frozenset("b"),) * 3
    assert wide.dials["text"] == (Dial(0.5),) * 3 + (None,) * 3
    assert torch.equal(wide.tokens["text"][[0, 3]], cond.tokens["text"])
    moved = cond.at(0.0, [0]).to("meta", torch.float64)
    ports = [value for port in PORTS for value in getattr(moved, port).values()]
    assert {(value.device.type, value.dtype) for value in ports} == {("meta", torch.float64)}
    assert moved.groups.device.type == moved.strengths["text"].weight.device.type == "meta"


def test_stacked_items_come_apart_again():
    parts = {
        name: Conditioning(
            tokens={"text": tensor(2, 3, 4) + i}, dials={"motion": (Dial(0.1), Dial(i))}, groups=torch.full((2, 3), i), words=(name, i),
        )
        for i, name in enumerate("ab")
    }  # fmt: skip
    both = stack(**parts)
    for name, items in (("a", [0, 1]), ("b", [2, 3])):
        part, whole = both.only(items), parts[name].named(name)
        assert torch.equal(part.tokens["text"], whole.tokens["text"])
        assert torch.equal(part.groups, whole.groups)
        assert (part.dials, part.rows, part.words) == (whole.dials, whole.rows, whole.words)
    assert both.only([3, 0]).words == (1, "a")
