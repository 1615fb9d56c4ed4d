"""Objects are found where they were drawn, on plain grounds and on textured ones, and nowhere else."""

import pytest
import torch
import torch.nn.functional as F

from videogen.shapes import foreground, render, sample


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_what_was_drawn_but_for_the_rim(seed: int) -> None:
    """Two pixels inside the objects all is found, two pixels outside nothing."""
    made = render(sample(12, generator=torch.Generator().manual_seed(seed)), frames=3, size=128)
    for frames, masks in zip(made.frames, made.masks.sum(2), strict=True):
        found = foreground(frames)
        assert found.shape == (3, 1, 128, 128)
        inside = -F.max_pool2d(-(masks >= 1).float()[:, None], 5, 1, 2)
        outside = F.max_pool2d((masks > 0).float()[:, None], 5, 1, 2) == 0
        assert found[inside > 0].min() == 1
        assert found[outside].max() == 0
