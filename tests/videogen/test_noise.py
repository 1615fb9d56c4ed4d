"""Noise by address: what it depends on, and what it does not."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from videogen.errors import InputError
from videogen.noise import FrameNoise, from_generator, shuffled, source_of

SHAPE = (4, 8, 8)  # c h w


def test_a_frame_keeps_its_noise_when_the_clip_grows_or_the_window_moves():
    noise = FrameNoise(3)
    long = noise(1, 800, (1, 2, 2))
    assert torch.equal(noise(1, 8, (1, 2, 2)), long[:, :8])
    assert torch.equal(noise(1, range(300, 316), (1, 2, 2)), long[:, 300:316])
    assert torch.equal(noise(1, [7, 2], (1, 2, 2)), long[:, [7, 2]])


def test_an_item_keeps_its_noise_in_any_batch():
    batch = FrameNoise(3)(4, 2, SHAPE)
    assert torch.equal(FrameNoise(3)([2], 2, SHAPE), batch[2:3])
    each = FrameNoise((3, 9))(2, 2, SHAPE)
    assert torch.equal(each[0], FrameNoise(3)(1, 2, SHAPE)[0])
    assert torch.equal(each[1], FrameNoise(9)(1, 2, SHAPE)[0])


def test_every_part_of_the_address_counts():
    noise = FrameNoise(0)
    addresses = [(0, 0, None), (1, 0, None), (0, 1, None), (0, 0, (1.0, 0)), (0, 0, (1.5, 0)), (0, 0, (1.0, 1))]
    drawn = [noise.frame(item, frame, SHAPE, draw) for item, frame, draw in addresses]
    drawn += [FrameNoise(1).frame(0, 0, SHAPE), FrameNoise(-1).frame(0, 0, SHAPE)]
    correlation = torch.corrcoef(torch.stack([d.flatten() for d in drawn]))
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 5 / (4 * 8 * 8) ** 0.5  # five standard errors


def test_unit_noise_independent_between_frames():
    drawn = FrameNoise(0)(2, 64, SHAPE)
    count = drawn.numel()
    assert drawn.dtype == torch.float32
    assert drawn.mean().abs() < 5 / count**0.5
    assert (drawn.var() - 1).abs() < 5 * (2 / count) ** 0.5
    neighbours = (drawn[:, 1:] * drawn[:, :-1]).mean()
    assert neighbours.abs() < 5 / count**0.5


def test_the_numbers_do_not_change_from_release_to_release():
    # The recipe in an old file means these: seeds of PyTorch's generator.
    assert FrameNoise(0).generator(0, 0).initial_seed() == 9660556175533927862
    assert FrameNoise(7).generator(1, 15, (981.0, 0)).initial_seed() == 6490534750145820560


def test_shuffled_noise_permutes_the_frames_one_window_before():
    noise, window, stride = FrameNoise(0), 16, 4
    drawn = shuffled(noise, 1, 40, (1, 2, 2), window=window, stride=stride)[0]
    assert torch.equal(drawn[:window], noise(1, window, (1, 2, 2))[0])
    orders = set()
    for i in range(window, 40, stride):
        before, now = drawn[i - window : i - window + stride], drawn[i : i + stride]
        order = [next(j for j in range(stride) if torch.equal(before[j], frame)) for frame in now]
        assert sorted(order) == list(range(stride))
        orders.add(tuple(order))
    assert len(orders) > 1
    # And by address: a shorter clip, and a window of it.
    assert torch.equal(shuffled(noise, 1, 27, (1, 2, 2))[0], drawn[:27])
    assert torch.equal(shuffled(noise, 1, [30, 18], (1, 2, 2))[0], drawn[[30, 18]])
    with pytest.raises(InputError, match="stride"):
        shuffled(noise, 1, 40, SHAPE, window=4, stride=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_generator_gives_what_diffusers_draws(dtype):
    one, other = (torch.Generator().manual_seed(4) for _ in range(2))
    drawn = from_generator(one, 2, 3, SHAPE, dtype)
    theirs = randn_tensor((2, 4, 3, 8, 8), generator=other, dtype=dtype)
    assert torch.equal(drawn, theirs.permute(0, 2, 1, 3, 4))
    several = [torch.Generator().manual_seed(s) for s in (4, 5)]
    each = from_generator(several, 2, 3, SHAPE, dtype)
    theirs = randn_tensor((2, 4, 3, 8, 8), generator=[g.manual_seed(s) for g, s in zip(several, (4, 5))], dtype=dtype)
    assert torch.equal(each, theirs.permute(0, 2, 1, 3, 4))


def test_seeds_and_generators_that_do_not_fit():
    for clips in (1, 3):
        with pytest.raises(InputError, match=f"2 seeds for {clips} clips"):
            FrameNoise((1, 2))(clips, 1, SHAPE)
    for seed in (1.5, 2**63, ()):
        with pytest.raises(InputError, match="seed"):
            FrameNoise(seed)
    with pytest.raises(InputError, match="generators"):
        from_generator([torch.Generator()], 2, 1, SHAPE)


def test_without_a_seed_torchs_own_generator_draws_one():
    torch.manual_seed(4)
    first, second = source_of(None, None), source_of(None, None)
    assert first != second
    assert torch.initial_seed() == 4
    torch.manual_seed(4)
    assert source_of(None, None) == first
