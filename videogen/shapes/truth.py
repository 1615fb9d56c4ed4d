"""What is known of every frame: masks, boxes, depth, sketch, edges, flow, palette; made from the scene on demand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from videogen.shapes import world
from videogen.shapes.geometry import Poses, contour_width, poses
from videogen.shapes.world import Scenes

SKETCH_WIDTH = 1.5  # pixels of the 128 x 128 frame
_DEPTHS = (1.0, 0.7)  # of the first and the second object; the background is 0


@dataclass(frozen=True)
class Rendered:
    """Clips and their ground truth. Properties are computed anew at every access; keep what is needed twice."""

    scenes: Scenes
    frames: Tensor  # b f 3 H W in [0, 1]
    times: Tensor  # b f, 0 the clip's first frame and 1 its last
    step: float  # time between two frames

    @property
    def palette(self) -> Tensor:
        """Colours `b 4 3` in [0, 1]: both objects (zeros where there is none), the background's two tones."""
        objects = self.scenes.rgb * _present(self.scenes)[..., None]
        return torch.cat([objects, self.scenes.ground], dim=1)

    @property
    def masks(self) -> Tensor:
        """What is seen of each object, `b f 2 H W`: the share of a pixel that it covers; zeros where there is none."""
        first, second = self._distances().neg_().add_(0.5).clamp_(0, 1).unbind(2)
        return torch.stack([first, second * (1 - first)], dim=2)

    @property
    def boxes(self) -> Tensor:
        """Tight boxes `b f 2 4` as x0, y0, x1, y1 in pixels, hidden parts too; zeros where there is no object."""
        pose = poses(self.scenes, self.times)
        corners = _corners(self.scenes, pose) * (self.frames.shape[-1] / world.SIZE)
        boxes = torch.cat([corners.amin(-2), corners.amax(-2)], dim=-1)
        return boxes * _present(self.scenes)[:, None, :, None]

    @property
    def depth(self) -> Tensor:
        """Nearness `b f H W`: 0 the background, 0.7 the second object, 1 the first, which is in front."""
        return (self.masks * torch.tensor(_DEPTHS, device=self.frames.device)[:, None, None]).sum(2)

    @property
    def sketch(self) -> Tensor:
        """The objects' outlines as drawn lines, `b f H W`, 1 on the line; the background's texture is left out."""
        first, second = self._distances().unbind(2)
        half = SKETCH_WIDTH * self.frames.shape[-1] / world.SIZE / 2
        lines = [(half + 0.5 - distance.abs()).clamp(0, 1) for distance in (first, second)]
        return torch.maximum(lines[0], lines[1] * (first > 0))

    @property
    def edges(self) -> Tensor:
        """All edges of the picture, `b f H W`, 1 or 0: outlines, contours and the background's texture."""
        from videogen.shapes.render import background_blend, flatten_poses, outline_distance

        size, scenes = self.frames.shape[-1], self.scenes
        b, f = self.times.shape
        owner = torch.arange(b, device=self.times.device).repeat_interleave(f)
        spread = scenes[owner]
        parts = background_blend(spread, self.times.flatten(), size) > 0.5
        pose = flatten_poses(poses(scenes, self.times))
        label = parts.long()
        for number in (1, 0):
            one = Poses(*(field[:, number] for field in pose))
            distance = outline_distance(spread.shape[:, number], one, size)
            there = (spread.count > number)[:, None, None]
            label[there & (distance < 0)] = 2 + 2 * number
            outlined = (spread.style == world.STYLES.index("outlined"))[:, None, None]
            label[there & outlined & (distance < -contour_width(one.radius)[:, None, None])] = 3 + 2 * number
        edge = torch.zeros_like(label, dtype=torch.bool)
        edge[:, :, 1:] |= label[:, :, 1:] != label[:, :, :-1]
        edge[:, 1:] |= label[:, 1:] != label[:, :-1]
        return edge.view(b, f, size, size).float()

    @property
    def flow(self) -> Tensor:
        """Way of each pixel to the next frame, `b f 2 H W`, dx and dy in pixels; the last frame goes on as before it.

        Inside an object (where it covers half a pixel or more) the object's own way, elsewhere the camera's.
        """
        from videogen.shapes.render import pixel_grid

        size = self.frames.shape[-1]
        grid = pixel_grid(size, self.times.device)
        at = torch.stack([grid.expand(size, -1), grid[:, None].expand(-1, size)])
        now, then = poses(self.scenes, self.times), poses(self.scenes, self.times + self.step)
        flow = self._camera_flow(at)
        masks = self.masks
        for number in (1, 0):
            ways = _carried(at, now, then, number)
            flow = torch.where(masks[:, :, number, None] >= 0.5, ways, flow)
        return flow * (size / world.SIZE)

    def _camera_flow(self, at: Tensor) -> Tensor:
        """How the still background moves on the screen, `b f 2 H W`; at `2 H W`."""
        middle = world.SIZE / 2
        u = (self.times - 0.5)[..., None, None, None]
        zoom, pan = self.scenes.zoom[:, None, None, None, None], self.scenes.pan[:, None, :, None, None]
        place = (at - middle) * zoom**-u + pan * u
        after = u + self.step
        return (place - pan * after) * zoom**after + middle - at

    def _distances(self) -> Tensor:
        """Signed distances `b f 2 H W` in pixels; far away where there is no object."""
        from videogen.shapes.render import flatten_poses, outline_distance

        size = self.frames.shape[-1]
        b, f = self.times.shape
        pose = flatten_poses(poses(self.scenes, self.times))
        found = []
        for number in (0, 1):
            shapes = self.scenes.shape[:, number].repeat_interleave(f)
            distance = outline_distance(shapes, Poses(*(field[:, number] for field in pose)), size)
            found.append(distance.view(b, f, size, size) * (size / world.SIZE))
        there = _present(self.scenes)[:, None, :, None, None]
        return torch.stack(found, dim=2).masked_fill_(~there, 1e6)


def _present(scenes: Scenes) -> Tensor:
    """Which columns hold an object, `b 2`."""
    return torch.arange(2, device=scenes.count.device) < scenes.count[:, None]


def _carried(at: Tensor, now: Poses, then: Poses, number: int) -> Tensor:
    """Displacement `b f 2 H W` of points that move, turn and grow with an object."""
    start, end = (pose.centre[:, :, number, :, None, None] for pose in (now, then))
    turn = (then.angle - now.angle)[:, :, number, None, None]
    ratio = (then.radius / now.radius)[:, :, number, None, None]
    x, y = (at - start).unbind(2)
    cos, sin = turn.cos() * ratio, turn.sin() * ratio
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=2) + end - at


def _corners(scenes: Scenes, pose: Poses) -> Tensor:
    """Outline points `b f 2 n 2`; a circle's are its four extreme ones."""
    device = scenes.centre.device
    quarter = torch.pi / 2
    circle = torch.arange(12, device=device) * quarter
    starts = {"circle": circle, "square": circle + quarter / 2}
    starts |= {"triangle": torch.arange(12, device=device) * (torch.pi * 2 / 3) - quarter}
    starts |= {"star": torch.arange(12, device=device) * (torch.pi * 2 / 5) - quarter}
    angles = torch.stack([starts[name] for name in world.SHAPES])[scenes.shape][:, None]
    round_ones = (scenes.shape == world.SHAPES.index("circle"))[:, None, :, None]
    angles = torch.where(round_ones, angles, angles + pose.angle[..., None])
    return pose.centre[..., None, :] + pose.radius[..., None, None] * torch.stack([angles.cos(), angles.sin()], -1)
