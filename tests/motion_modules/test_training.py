"""The motion recipe trains what it declares and nothing else, and sees every second frame at its true position."""

import itertools
from pathlib import Path

import pytest
import torch

from motion_modules.animatediff import (
    Positions,
    motion_parameters,
    motion_state,
    positions_by_frame,
)
from motion_modules.training import (
    Every,
    Kind,
    Motion,
    Phase,
    Settings,
    drawn,
    put_aside,
    telling,
    turned,
)
from tests import nets, tiny_world
from videogen.applied import recompute_blocks
from videogen.denoiser import Denoiser
from videogen.errors import InputError
from videogen.path import Path as NoisePath
from videogen.shapes import sample
from videogen.shapes import world as shapes
from videogen.shapes.captions import plain
from videogen.shapes.twins import Word, twins
from videogen.training.config import RunConfig
from videogen.training.image import SCHEDULER, Batch, draw_batch
from videogen.training.latents import Latents
from videogen.training.loop import Loop
from videogen.training.places import places
from videogen.training.recipe import Draw


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_world.write(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("image", ["frozen", "cross", "all"])
def test_exactly_the_declared_tensors_change(world: Path, tmp_path: Path, image: str) -> None:
    settings = Settings(
        model=world,
        store=world / "latents",
        clips=40,
        stills=64,
        judged=1,
        made=0,
        phases=(Phase(0.3, 4, 4, 1.0), Phase(1.0, 8, 4)),
        heads=2,
        image=image,
    )
    values = {"recipe": "shapes_motion", "out": tmp_path / "run", "budget": {"steps": 5}, "settings": settings}
    recipe = Motion(settings)
    recipe.judge = dict  # type: ignore[method-assign]
    loop = Loop(RunConfig[Settings].model_validate(values), recipe)
    before = {name: p.detach().clone() for name, p in recipe.root.state_dict().items()}
    loop.run()
    changed = {name for name, value in recipe.root.state_dict().items() if not torch.equal(value, before[name])}
    declared = {name for name in before if "motion_modules." in name and not name.endswith(".pe")}
    if image != "frozen":
        declared |= {name for name in before if ".attn2." in name or (image == "all" and "motion_modules." not in name)}
    # The first step has rate 0; with proj_out at zero the second reaches it alone, and what stands before it moves from the third on.
    assert changed == declared


def test_the_export_is_a_motion_adapter_of_diffusers(world: Path, tmp_path: Path) -> None:
    from diffusers import MotionAdapter

    recipe = Motion(Settings(model=world, store=world / "latents", clips=40, judged=1, heads=2))
    recipe.prepare(torch.device("cpu"))
    recipe.export(tmp_path)
    theirs = MotionAdapter.from_pretrained(tmp_path / "motion_adapter").state_dict()
    ours = motion_state(recipe.root)
    assert theirs.keys() == ours.keys()
    assert all(torch.allclose(theirs[name].float(), ours[name], atol=1e-3) for name in ours)
    assert not (tmp_path / "unet").exists()


def test_some_frames_have_the_positions_of_the_whole_clip() -> None:
    first, second = nets.tiny_video_unet(), nets.tiny_video_unet()
    second.load_state_dict(first.state_dict())
    positions_by_frame(first)
    every = Every(1, 2, 4)
    for module in second.modules():
        if isinstance(module, Positions):
            module.pe = module.pe[:, every.frames]
    x, told, path = nets.clip(2, 4), nets.condition(b=2), NoisePath.from_config(SCHEDULER)
    by_frame, cut = (Denoiser(unet, path, "v").given(told) for unet in (first, second))
    with torch.no_grad():
        found = by_frame(x, 500, every.ids).out
        assert torch.equal(found, cut(x, 500).out)
        assert not torch.equal(found, by_frame(x, 500).out)
        with pytest.raises(IndexError):  # recipes draw frames that the table has
            by_frame(x, 500, (0, 1, 2, 8))


def test_gradient_checkpointing_changes_no_gradient(world: Path) -> None:
    """The loop goes backward after a thunk has returned, and the blocks are computed once more then."""
    recipe = Motion(Settings(model=world, store=world / "latents", clips=40, judged=1, heads=2))
    recipe.prepare(torch.device("cpu"))
    recipe.root.requires_grad_(False)
    parameters, generator = motion_parameters(recipe.root), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator)).requires_grad_()
    every = Every(2, 4, 4)
    data = recipe.data.frames_of(every.frames)
    items = draw_batch(Draw(0, 0), data, 4, recipe.settings, recipe.setting.device)

    def gradients() -> dict[str, torch.Tensor]:
        recipe.root.zero_grad()
        ((_, thunk),) = recipe.losses((every, items))
        loss = thunk()["loss"]
        loss.backward()
        return {name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None}

    kept = gradients()
    recompute_blocks(recipe.root)
    recipe.root.train()
    again = gradients()
    assert kept.keys() == again.keys() == parameters.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_frames_are_drawn_from_all_of_the_clip_at_an_even_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (2, 4, 8, 16):
        taken = [list(range(16)[drawn(count, generator).frames]) for _ in range(300)]
        assert all(len(frames) == count for frames in taken)
        assert set().union(*taken) == set(range(16))
        assert {b - a for frames in taken for a, b in itertools.pairwise(frames)} == set(
            range(1, 15 // max(count - 1, 1) + 1)
        )


def fours(word: Word) -> Latents:
    scenes = twins(400, word, generator=torch.Generator().manual_seed(0))
    marks = torch.arange(400.0)[:, None, None, None, None]
    return Latents(scenes, marks, marks[:, :, 0], marks[:, 0], together=4)


SAME = {"travel": ("travel", "shape", "colour"), "stay": ("shape", "colour"), "pair": ("motion", "travel", "relation")}


@pytest.mark.parametrize("kind", ["travel", "stay", "pair"])
def test_telling_fours_differ_in_what_captions_tell_and_their_places_are_known(kind: Kind) -> None:
    data = fours("pair" if kind == "pair" else "motion")
    found = data.fours(telling(data, kind)).scenes
    assert 20 < len(found) < 400
    assert set(found.count.tolist()) == {2 if kind == "pair" else 1}
    if kind != "pair":
        travels = {shapes.MOTIONS[int(number)] in shapes.DIRECTIONS for number in found.motion[:, 0]}
        assert travels == {kind == "travel"}
    assert bool(places(found).free.flatten(1).any(1).all())
    for name in ("radius", "centre", "background", *SAME[kind]):
        values = getattr(found, name).unflatten(0, (-1, 4))
        assert torch.equal(values, values[:, :1].expand_as(values))


def test_fours_of_each_kind_are_put_aside_and_trained_on_in_no_step() -> None:
    data = fours("motion")
    kept, *aside = put_aside(data, 3, "travel", "stay")
    for kind, found in zip(("travel", "stay"), aside, strict=True):
        assert found.latents.flatten().tolist() == data.fours(telling(data, kind)).latents.flatten().tolist()[-12:]
    assert sorted(value for part in (kept, *aside) for value in part.latents.flatten().tolist()) == list(range(400))
    assert {part.together for part in (kept, *aside)} == {4}
    for kind in ("travel", "stay", "pair"):
        with pytest.raises(InputError, match=rf"settings\.clips.*{kind}"):
            put_aside(data.fours(~telling(data, kind)), 3, kind)


def test_what_is_missed_is_nothing_of_the_truth_and_all_of_what_is_the_same_for_all_directions(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Motion(Settings(model=world, store=world / "latents", clips=40, judged=1, heads=2))
    recipe.prepare(torch.device("cpu"))
    truth = recipe.setting.asked(recipe.root, _some(recipe))[1]
    for answer, missed in ((truth, 0.0), (truth.mean(0, keepdim=True).expand_as(truth), 1.0)):
        monkeypatch.setattr(recipe.setting, "asked", lambda net, batch, answer=answer: (answer, truth))
        assert recipe._missed(recipe.aside["travel"], Every(0, 1, 16), 960) == pytest.approx(missed)


def _some(recipe: Motion) -> Batch:
    """Four scenes that go four ways."""
    data, noise = recipe.aside["travel"], torch.zeros(4, 16, 4, 16, 16)
    return Batch(data.latents[:4].float(), torch.ones(1), plain(data.scenes[:4]), torch.full((4,), 960), noise)


def test_turned_captions_tell_the_opposite_direction_and_nothing_else() -> None:
    scenes = sample(
        20, generator=torch.Generator().manual_seed(0), objects=1, motions=("moving left", "moving down", "growing")
    )
    swap = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for told, other in zip(plain(scenes), plain(turned(scenes)), strict=True):
        assert other == " ".join(swap.get(word, word) for word in told.split(" "))
