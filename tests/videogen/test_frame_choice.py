"""Frame choices: the tables, what each frame depends on, and that sharing keys equals repeating them."""

import pytest
import torch

from tests import nets
from videogen.conditioning import stack
from videogen.errors import InputError
from videogen.frame_choice import ALL, FIRST, MIDDLE, SPARSE_CAUSAL, FrameChoice, read

DOUBLE = torch.float64
F = 5


@pytest.mark.parametrize(
    ("choice", "frames", "table"),
    [
        (FIRST, range(3), [[0], [0], [0]]),
        (FIRST, (7, 0, 8), [[1], [1], [1]]),  # the anchor may stand anywhere in a window
        (SPARSE_CAUSAL, range(4), [[0, 0], [0, 0], [0, 1], [0, 2]]),
        (MIDDLE, range(4), [[1]] * 4),
        (MIDDLE, range(5), [[2]] * 5),
        (ALL, range(3), [[0, 1, 2]] * 3),
        (FrameChoice((-1, 0, 1)), range(3), [[0, 0, 1], [0, 1, 2], [1, 2, 2]]),
        (FrameChoice(("last", 0)), range(3), [[2, 0], [2, 1], [2, 2]]),
    ],
)
def test_tables(choice, frames, table):
    assert choice.table(tuple(frames)) == table


GROUPS = torch.tensor([[0, 0, 1, 1, 1], [7, 2, 7, 7, 2]])


@pytest.mark.parametrize("choice", [FIRST, SPARSE_CAUSAL, MIDDLE, FrameChoice((-1, 0, 1)), FrameChoice(("last", 0))])
def test_groups_are_clips_of_their_own(choice):
    """A group reads by the table that its frames would have alone; the frame ids need not ascend."""
    frames = (4, 3, 8, 6, 9)
    tables = choice.grouped(frames, GROUPS)
    for table, groups in zip(tables, GROUPS, strict=True):
        for group in groups.unique():
            members = (groups == group).nonzero()[:, 0]
            alone = torch.tensor(choice.table([frames[i] for i in members]))
            assert torch.equal(table[members], members[alone])


def test_all_frames_of_a_group_are_read_where_groups_are_of_one_size():
    assert ALL.grouped(range(4), torch.tensor([[0, 1, 1, 0]])).tolist() == [[[0, 3], [1, 2], [1, 2], [0, 3]]]
    with pytest.raises(InputError, match="different sizes"):
        ALL.grouped(range(3), torch.tensor([[0, 0, 1]]))


def test_a_choice_within_groups_compiles_without_a_graph_break():
    p, x = nets.one_pass(2, F, groups=GROUPS), torch.randn(2, F, 2, 4, 3)
    compiled = torch.compile(SPARSE_CAUSAL.qkv, fullgraph=True, backend="eager")
    for ours, plain in zip(compiled(nets.PLACE, x, x, x, p), SPARSE_CAUSAL.qkv(nets.PLACE, x, x, x, p), strict=True):
        assert torch.equal(ours, plain)


def test_an_unknown_entry_is_refused():
    with pytest.raises(InputError, match="middle"):
        FrameChoice(("mid",))  # type: ignore[arg-type]


def moved(choice, frame, **cond):
    """Which output frames change when one input frame does."""
    unet = nets.tiny_unet(dtype=DOUBLE)
    x = nets.clip(1, F, dtype=DOUBLE)
    y = x.clone()
    y[:, frame] += 1
    told = nets.condition(dtype=DOUBLE, **cond)
    a, b = (nets.predict(unet, z, told, choice)[0] for z in (x, y))
    return [i for i in range(F) if not torch.equal(a[:, i], b[:, i])]


@pytest.mark.parametrize(("frame", "reached"), [(0, [0, 1, 2, 3, 4]), (1, [1]), (4, [4])])
def test_cross_frame_attention_reads_the_first_frame_only(frame, reached):
    assert moved(FIRST, frame) == reached


@pytest.mark.parametrize(("frame", "reached"), [(0, [0, 1, 2, 3, 4]), (1, [1, 2, 3, 4]), (3, [3, 4])])
def test_sparse_causal_attention_never_looks_ahead(frame, reached):
    assert moved(SPARSE_CAUSAL, frame) == reached


@pytest.mark.parametrize(("frame", "reached"), [(2, [0, 1, 2, 3, 4]), (1, [1])])
def test_the_middle_frame_reaches_all_and_no_other_does(frame, reached):
    assert moved(MIDDLE, frame) == reached


def test_frames_of_another_group_are_never_reached():
    assert moved(SPARSE_CAUSAL, 0, groups=torch.tensor([[0, 0, 1, 1, 1]])) == [0, 1]


@pytest.mark.parametrize("kind", nets.KINDS)
def test_one_frame_is_the_image_model_and_no_entry_is_plain_attention(kind):
    unet = nets.tiny_unet(kind)
    image, clip, told = nets.clip(2, 1), nets.clip(2, 3), nets.condition(kind, 2)
    for choice in (FIRST, SPARSE_CAUSAL, ALL):
        assert torch.equal(nets.predict(unet, image, told, choice)[0], nets.predict(unet, image, told)[0])
    assert torch.equal(nets.predict(unet, clip, told, FrameChoice(()))[0], nets.predict(unet, clip, told)[0])


def test_equal_frames_read_what_they_would_have_read_alone():
    unet, told = nets.tiny_unet(dtype=DOUBLE), nets.condition(dtype=DOUBLE)
    still = nets.clip(1, 1, dtype=DOUBLE).expand(-1, 4, -1, -1, -1)
    plain = nets.predict(unet, still, told)[0]
    for choice in (FIRST, SPARSE_CAUSAL, MIDDLE, ALL, FrameChoice((-1, 0, 1))):
        torch.testing.assert_close(nets.predict(unet, still, told, choice)[0], plain, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("choice", [FIRST, ALL, FrameChoice(("last", "first"))])
def test_shared_keys_equal_repeated_ones(choice):
    x = torch.arange(2 * 3 * 2 * 4 * 5.0).reshape(2, 3, 2, 4, 5)
    table = choice.table(range(3))
    shared, repeated = read(x, table), x[:, torch.tensor(table)].transpose(2, 3).flatten(3, 4)
    assert shared.shape[1] == 1
    assert torch.equal(shared.expand_as(repeated), repeated)


def test_keys_of_neighbouring_frames_are_a_view():
    x = torch.zeros(1, 3, 4, 2, 5).transpose(2, 3)  # heads behind places, as the projections leave them
    for choice in (FIRST, ALL):
        assert read(x, choice.table(range(3))).untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


@pytest.mark.parametrize("choice", [FIRST, FrameChoice((-1,))])
def test_a_choice_bound_to_a_row_leaves_the_other_as_it_is(choice):
    unet, x = nets.tiny_unet(dtype=DOUBLE), nets.clip(2, 3, dtype=DOUBLE)
    both = stack(a=nets.condition(dtype=DOUBLE), b=nets.condition(dtype=DOUBLE, seed=5))
    bound, plain, chosen = (nets.predict(unet, x, both, c)[0] for c in (choice.on("b"), None, choice))
    torch.testing.assert_close(bound[0], plain[0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(bound[1], chosen[1], rtol=1e-9, atol=1e-10)


def test_made_maps_have_the_chosen_keys():
    unet, x, told = nets.tiny_unet(dtype=DOUBLE), nets.clip(1, 3, dtype=DOUBLE), nets.condition(dtype=DOUBLE)
    for choice in (FIRST, SPARSE_CAUSAL):
        made = nets.predict(unet, x, told, choice >> nets.Maps())[0]
        torch.testing.assert_close(made, nets.predict(unet, x, told, choice)[0], rtol=1e-9, atol=1e-10)
