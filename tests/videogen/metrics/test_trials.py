"""Trials are a function of their address, and are what they say."""

import torch

from videogen.metrics.trials import Plan, true_renders
from videogen.shapes import parse, world
from videogen.shapes.world import held_out

PLAN = Plan(count=12, held_out=6)


def test_a_longer_run_begins_with_the_trials_of_a_shorter_one() -> None:
    longer = Plan(count=40, held_out=9)
    assert set(PLAN.addresses()) < set(longer.addresses())
    for address in (("test", 11), ("held_out", 5)):
        ours, theirs = PLAN.trial(address), longer.trial(address)
        assert (ours.prompt, ours.seed) == (theirs.prompt, theirs.seed)
        assert all(torch.equal(a, b) for a, b in zip(ours.scene.tensors(), theirs.scene.tensors()))


def test_prompts_and_seeds_differ_from_trial_to_trial_and_from_run_to_run() -> None:
    seeds = [p.trial(address).seed for p in (PLAN, Plan(12, 6, seed=1)) for address in p.addresses()]
    assert len(set(seeds)) == len(seeds) == 36


def test_two_thirds_have_one_object() -> None:
    counts = [int(PLAN.trial(("test", number)).scene.count) for number in range(12)]
    assert counts == [1, 1, 2] * 4


def test_held_out_combinations_are_where_they_belong() -> None:
    for split, number in PLAN.addresses():
        scene = PLAN.trial((split, number)).scene
        rare = held_out(scene.shape, scene.colour, scene.motion)[0, : int(scene.count)]
        assert bool(rare[0]) if split == "held_out" else not rare.any()


def test_prompts_say_what_the_scene_is() -> None:
    for address in PLAN.addresses():
        trial = PLAN.trial(address)
        wanted = parse(trial.prompt)
        assert len(wanted.objects) == int(trial.scene.count)
        assert wanted.background == list(world.BACKGROUNDS)[int(trial.scene.background)]
        assert wanted.style == world.STYLES[int(trial.scene.style)]
        for number, item in enumerate(wanted.objects):
            assert item.shape == world.SHAPES[int(trial.scene.shape[0, number])]
            assert item.colour == list(world.COLOURS)[int(trial.scene.colour[0, number])]
            assert item.motion == world.MOTIONS[int(trial.scene.motion[0, number])]


def test_simple_trials_are_one_flat_object_on_a_plain_background() -> None:
    plan = Plan(count=9, held_out=0, simple=True)
    for address in plan.addresses():
        wanted = parse(plan.trial(address).prompt)
        assert len(wanted.objects) == 1
        assert wanted.style == "flat"
        assert wanted.background in world.PLAIN_BACKGROUNDS


def test_blocks_hold_every_trial_once_and_one_split_each() -> None:
    blocks = Plan(count=10, held_out=5).blocks(4)
    assert [len(block) for block in blocks] == [4, 4, 2, 4, 1]
    assert [address for block in blocks for address in block] == Plan(count=10, held_out=5).addresses()
    assert all(len({split for split, _ in block}) == 1 for block in blocks)


def test_renders_are_those_of_each_scene_alone() -> None:
    trials = [PLAN.trial(("test", number)) for number in range(3)]
    renders = true_renders(2, 64)
    alone = torch.cat([renders([trial]) for trial in trials])
    torch.testing.assert_close(renders(trials), alone)
    assert alone.shape == (3, 2, 3, 64, 64)
