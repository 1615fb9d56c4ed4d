"""Ground truth against the pictures and the geometry."""

import torch
import torch.nn.functional as F

from videogen.shapes import render, sample, world
from videogen.shapes.geometry import poses
from videogen.shapes.render import pixel_grid


def draw(count, seed=0, **kind):
    return sample(count, generator=torch.Generator().manual_seed(seed), **kind)


def test_boxes_are_tight_around_the_masks():
    scenes = draw(40)
    rendered = render(scenes, only=[0, 7, 15])
    grid = torch.arange(128) + 0.5
    for mask, box in zip(rendered.masks.flatten(0, 2), rendered.boxes.flatten(0, 2), strict=True):
        if not mask.any():
            assert (box == 0).all()
            continue
        columns, rows = grid[(mask > 0).any(0)], grid[(mask > 0).any(1)]
        seen = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
        assert ((seen - box).abs() <= 1.6).all()  # a tip sharper than a pixel fades before it ends


def test_depth_orders_objects_before_the_background():
    rendered = render(draw(20, objects=2), only=[3])
    whole = (rendered.masks == 1)[:, 0]
    depth = rendered.depth[:, 0]
    assert torch.allclose(depth[whole[:, 0]], torch.tensor(1.0))
    assert torch.allclose(depth[whole[:, 1]], torch.tensor(0.7))
    assert (depth[rendered.masks[:, 0].sum(1) == 0] == 0).all()


def test_the_first_object_hides_the_second():
    scenes = draw(8, objects=2, styles=["flat"])
    same = scenes.change(centre=scenes.centre[:, :1].expand(-1, 2, -1), motion=torch.zeros_like(scenes.motion))
    rendered = render(same, only=[0])
    front = rendered.masks[:, 0, 0]
    colour = scenes.rgb[:, 0, :, None, None]
    assert ((rendered.frames[:, 0] - colour).abs() * (front == 1)[:, None]).max() < 1e-6
    assert (rendered.masks.sum(2) <= 1 + 1e-6).all()


def test_inside_the_first_object_nothing_of_the_second_is_left():
    """Pictures and truth are there as of the first object alone, whatever moves behind it; elsewhere the second is seen."""
    scenes = draw(24, objects=2, cameras=world.CAMERAS)
    scenes = scenes.change(centre=scenes.centre[:, :1] + torch.tensor([[0.0, 0.0], [9.0, 4.0]]))
    both = render(scenes, only=[0, 7])
    alone = render(scenes.change(count=torch.ones_like(scenes.count)), only=[0, 7])
    front = (alone.masks[:, :, 0] == 1).float().flatten(0, 1)[:, None]
    inside = (-F.max_pool2d(-front, 5, 1, 2)).view_as(
        alone.depth
    ) == 1  # the first one's own outline is two pixels away
    for name in ("frames", "depth", "sketch", "edges", "flow"):
        one, other = getattr(both, name), getattr(alone, name)
        changed = one != other
        changed = changed.any(2) if changed.dim() == 5 else changed
        assert not (changed & inside).any(), name
        assert (changed & ~inside).any(), name


def test_flow_carries_a_frame_onto_the_next():
    scenes = draw(40, cameras=world.CAMERAS[1:])
    scenes = world.concatenate([scenes, draw(40, seed=1)])
    at = 6
    rendered = render(scenes, only=[at, at + 1])
    flow, (now, then) = rendered.flow[:, 0], rendered.frames.unbind(1)
    grid = pixel_grid(128, flow.device)
    target = torch.stack([grid.expand(128, -1) + flow[:, 0], grid[:, None] + flow[:, 1]], dim=-1)
    fetched = F.grid_sample(then, target / 64 - 1, align_corners=False, padding_mode="border")
    # edges are antialiased and objects uncover the background, so compare away from them
    edge = (
        F.max_pool2d(rendered.edges[:, 0, None], 9, 1, 4)[:, 0]
        + F.max_pool2d(rendered.edges[:, 1, None], 9, 1, 4)[:, 0]
    )
    inside = ((target > 1) & (target < 127)).all(-1)
    still_shade = (scenes.style != world.STYLES.index("shaded"))[:, None, None]  # light does not turn with an object
    error = (fetched - now).abs().amax(1) * ((edge == 0) & inside & still_shade)
    assert error.max() < 0.02


def test_flow_of_an_object_is_the_way_of_its_centre():
    scenes = draw(24, objects=1, motions=["moving left", "moving right", "moving up", "moving down"])
    rendered = render(scenes, only=[6, 7, 8])
    mask = rendered.masks[:, :, 0] > 0.5
    mean = (rendered.flow * mask[:, :, None]).sum((-1, -2)) / mask.sum((-1, -2))[..., None]
    centre = poses(scenes, rendered.times).centre[:, :, 0]
    assert torch.allclose(mean[:, :-1], centre.diff(dim=1), atol=1e-3)


def test_sketch_lies_on_outlines_and_edges_beside_them():
    rendered = render(draw(30, plain=True, styles=["flat"]), only=[0])
    masks = rendered.masks.sum(2)
    band = F.max_pool2d(masks, 5, 1, 2) + F.max_pool2d(-masks, 5, 1, 2)  # where coverage changes, sharp tips drawn out
    for drawing in (rendered.sketch, rendered.edges):
        assert drawing.amax((-1, -2)).min() > 0.9
        assert ((drawing > 0.5) & (band == 0)).float().sum() == 0
