"""A control bound to rows copies nothing that it leaves alone."""

import pytest
import torch

from tests import nets
from videogen.conditioning import Conditioning, stack
from videogen.control import Control

F = 3


@pytest.mark.parametrize("word", ["source", "target", "cond", "uncond"])
def test_rows_of_stacked_pairs_are_seen_as_views_and_what_is_left_alone_comes_back_itself(word):
    held, seen = torch.randn(4, F, 2, 5, 4), []

    class Look(Control):
        def qkv(self, site, q, k, v, p):
            seen.extend((q, p.tokens["text"]))
            return q, k, v

    one = Conditioning(tokens={"text": torch.zeros(1, 5, 4)})
    two = stack(source=one, target=one)
    rows = stack(uncond=two, cond=two).rows
    p = nets.one_pass(4, F, rows=rows, tokens={"text": held[:, 0, 0]})
    assert all(x is held for x in Look().on(word).qkv(nets.PLACE, held, held, held, p))
    assert all(x.untyped_storage().data_ptr() == held.untyped_storage().data_ptr() for x in seen)
    assert torch.equal(seen[0], held[[i for i, row in enumerate(rows) if word in row]])


@pytest.mark.parametrize("rows", ["aaba", "baaa", "abab", "bbab"])
def test_rows_are_found_at_whatever_steps_they_stand(rows):
    class More(Control):
        def features(self, site, h, p):
            return h + 1

    p = nets.one_pass(4, F, rows=tuple(frozenset(word) for word in rows))
    h = torch.randn(4, F, 2, 5, 4)
    here = torch.tensor([row == "a" for row in rows])[:, None, None, None, None]
    assert torch.equal(More().on("a").features(nets.PLACE, h, p), torch.where(here, h + 1, h))
