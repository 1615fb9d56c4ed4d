"""After k steps exactly the declared tensors changed; what is exported loads here and in diffusers, and is what was trained."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from motion_modules.animatediff import motion_state
from motion_modules.dialects import write_official
from motion_modules.recipes import Joint
from tests import training_world
from tests.motion_modules.exported import animated_unet, made, of_diffusers, prediction, shaken
from tests.training_world import MODULES, Worlds, looped, recipe_of, sample
from videogen.conditioning import Dial
from videogen.denoiser import Denoiser
from videogen.errors import InputError
from videogen.pipeline import Pipeline
from videogen.training import recipes
from videogen.training.config import RunConfig
from videogen.training.loop import Loop
from videogen.training.recipe import Draw

OURS = ("image", "lora", "motion", "joint", "full", "motion_lora")


@pytest.fixture(scope="module")
def animated(worlds: Worlds, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motion modules after three steps, exported."""
    loop, out = looped("motion", worlds, tmp_path_factory.mktemp("motion"), **MODULES)
    loop.run()
    return out / "export"


SETS = {
    "image": lambda name: "motion_modules." not in name,
    "motion": lambda name: "motion_modules." in name,
    "joint": lambda name: True,
    "full": lambda name: True,
    "lora": lambda name: ".parametrizations." in name and not name.endswith("original"),
    "motion_lora": lambda name: ".parametrizations." in name and not name.endswith("original"),
}


@pytest.mark.parametrize("recipe", OURS)
def test_exactly_the_declared_tensors_change(recipe: str, worlds: Worlds, animated: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"motion": MODULES, "joint": MODULES, "lora": {"rank": 2}}.get(recipe, {})
    if recipe in ("full", "motion_lora"):
        given = {"motion": str(animated / "motion_module.safetensors")}
    loop, _ = looped(recipe, worlds, tmp_path, **given)
    root = loop.recipe.root
    before = {name: value.clone() for name, value in root.state_dict().items()}
    loop.run()
    changed = {name for name, value in root.state_dict().items() if not torch.equal(value, before[name])}
    # The first step has rate 0; with proj_out or up at zero the second reaches it alone, and what stands before it moves from the third on.
    assert changed == {name for name in before if SETS[recipe](name) and not name.endswith(".pe")}


def test_low_rank_changes_are_where_they_are_said_to_be(worlds: Worlds, animated: Path, tmp_path: Path) -> None:
    from videogen.training.trainable import changed_layers

    lora = changed_layers(recipe_of("lora", worlds, tmp_path / "a", rank=2).root)
    assert (
        len(lora) == 2 * 4 * 4
    )  # two attentions of one encoder layer, two decoder layers and the middle, four projections each
    assert all(".attentions." in name for name in lora)
    moving = recipe_of("motion_lora", worlds, tmp_path / "b", motion=str(animated / "motion_adapter"), rank=2)
    assert (
        len(changed_layers(moving.root)) == 2 * 4 * 2 * 3
    )  # two attentions of two levels' modules, 1 in the encoder and 2 in the decoder
    assert all(".motion_modules." in name for name in changed_layers(moving.root))


def test_a_recipe_is_the_base_at_first(worlds: Worlds, tmp_path: Path) -> None:
    plain = Pipeline.from_pretrained(worlds[0])
    for name, given in (("motion", MODULES), ("lora", {"rank": 2}), ("image", {})):
        recipe = recipe_of(name, worlds, tmp_path / name, **given)
        batch = sample(recipe)
        with torch.no_grad():
            ours = recipe.predicted(batch)
            recipe.pipe.denoiser = Denoiser(plain.parts.unet, recipe.pipe.denoiser.path, recipe.pipe.denoiser.predicts)
            torch.testing.assert_close(recipe.predicted(batch), ours, atol=1e-5, rtol=0)


def test_new_modules_may_begin_by_attending_near_in_time(worlds: Worlds, tmp_path: Path) -> None:
    recipe = recipe_of("motion", worlds, tmp_path, modules={"heads": 2, "near_in_time": 1.4})
    queries = [value for name, value in motion_state(recipe.root).items() if "to_q" in name]
    assert queries
    assert all(torch.equal(value, 1.4 * torch.eye(len(value))) for value in queries)


def test_the_official_file_has_the_authors_names_and_the_run_in_its_header(animated: Path, worlds: Worlds) -> None:
    pipe = Pipeline.from_pretrained(worlds[0], motion=animated / "motion_adapter")
    wanted = write_official(motion_state(pipe.parts.unet), "animatediff_v3")
    with safe_open(animated / "motion_module.safetensors", "pt") as file:
        assert set(file.keys()) == wanted.keys()
        assert all(torch.equal(file.get_tensor(name), wanted[name]) for name in wanted)
        said = json.loads(file.metadata()["videogen.training"])
    assert said["config"]["recipe"] == "motion"
    assert said["config"]["settings"]["modules"]["heads"] == 2
    assert {"videogen", "torch"} <= said["versions"].keys()


@pytest.mark.parametrize("file", ["motion_lora.safetensors", "pytorch_lora_weights.safetensors"])
@pytest.mark.parametrize("alpha", [None, 1.0])
def test_a_motion_lora_comes_back_in_both_dialects(
    worlds: Worlds, animated: Path, tmp_path: Path, file: str, alpha: float | None
) -> None:
    module = str(animated / "motion_module.safetensors")
    recipe = shaken(recipe_of("motion_lora", worlds, tmp_path, motion=module, rank=2, alpha=alpha))
    recipe.export(tmp_path)
    pipe = Pipeline.from_pretrained(worlds[0], motion=module)
    base = prediction(pipe, recipe)
    pipe.load_lora(tmp_path / file)
    with torch.no_grad():
        trained = recipe.predicted(sample(recipe))
    torch.testing.assert_close(prediction(pipe, recipe), trained, atol=1e-5, rtol=0)
    assert not torch.allclose(base, trained, atol=1e-4)


def test_diffusers_runs_a_motion_lora_alike(worlds: Worlds, tmp_path: Path) -> None:
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader

    modules = shaken(recipe_of("motion", worlds, tmp_path / "a", modules={"heads": 2, "norm_scope": "clip"}))
    modules.export(made(tmp_path / "modules"))
    adapter = tmp_path / "modules" / "motion_adapter"
    recipe = shaken(recipe_of("motion_lora", worlds, tmp_path / "b", motion=str(adapter), rank=2, alpha=1.0))
    recipe.export(made(tmp_path / "lora"))
    unet = animated_unet(worlds[0], adapter)
    with torch.no_grad():
        base, trained = modules.predicted(sample(recipe)), recipe.predicted(sample(recipe))
    torch.testing.assert_close(of_diffusers(unet, recipe), base, atol=1e-5, rtol=0)
    state, alphas, *_ = Loader.lora_state_dict(str(tmp_path / "lora"), unet_config=unet.config)
    Loader.load_lora_into_unet(state, alphas, unet)
    torch.testing.assert_close(of_diffusers(unet, recipe), trained, atol=1e-5, rtol=0)
    assert not torch.allclose(base, trained, atol=1e-3)


def test_a_stage_0_unet_and_a_domain_adapter_go_into_stage_2(worlds: Worlds, tmp_path: Path) -> None:
    shaken(recipe_of("image", worlds, tmp_path / "a")).export(made(tmp_path / "whole"))
    adapter = shaken(recipe_of("image", worlds, tmp_path / "b", rank=2))
    adapter.export(made(tmp_path / "adapter"))
    file = str(tmp_path / "adapter" / "domain_adapter.safetensors")
    recipe = recipe_of("motion", worlds, tmp_path / "c", **MODULES, loras={file: 1.0})
    with torch.no_grad():
        torch.testing.assert_close(
            recipe.predicted(sample(adapter)), adapter.predicted(sample(adapter)), atol=1e-5, rtol=0
        )
    whole = recipe_of("motion", worlds, tmp_path / "d", **MODULES, unet=str(tmp_path / "whole" / "unet"))
    assert not torch.equal(whole.root.conv_in.weight, recipe.root.conv_in.weight)
    assert "loras" not in (tmp_path / "whole" / "README.md").read_text()


def test_pictures_leave_the_motion_modules_out(worlds: Worlds, tmp_path: Path) -> None:
    pictures = training_world.pictures(tmp_path / "pictures")
    section = {"frames": 1, "sources": [{"layout": "pairs", "folder": str(pictures)}]}
    recipe = recipe_of("joint", worlds, tmp_path, section, **MODULES)
    shaken(recipe)
    ((group, thunk),) = recipe.losses(sample(recipe))
    thunk()["loss"].backward()
    assert group == "image"
    assert all(p.grad is None for p in recipe.groups["motion"])
    assert all(p.grad is not None for p in recipe.groups["image"])
    with pytest.raises(InputError, match="trains no motion module"):
        recipe_of("motion", worlds, tmp_path, section, **MODULES)


def test_stills_behind_a_clip_see_themselves_alone(worlds: Worlds, tmp_path: Path) -> None:
    pictures = training_world.pictures(tmp_path / "pictures")
    stills = training_world.data(pictures, frames=1, batch_size=4)
    recipe: Joint = recipe_of("joint", worlds, tmp_path, **MODULES, stills=stills)
    shaken(recipe)
    batch = sample(recipe)
    assert batch.x0.shape[:2] == (2, 4 + 2)
    told, denoiser = batch.told, recipe.pipe.denoiser
    with torch.no_grad():
        whole = denoiser.given(told)(batch.x0, batch.times).out
        moved = torch.cat([batch.x0[:, :4], batch.x0[:, 4:5] + 1, batch.x0[:, 5:]], 1)
        other = denoiser.given(told)(moved, batch.times).out
        alone = denoiser.given(told.replace(dials={"motion": Dial(0.0)}))(batch.x0, batch.times).out
    assert torch.equal(whole[:, [0, 1, 2, 3, 5]], other[:, [0, 1, 2, 3, 5]])
    torch.testing.assert_close(whole[:, 4:], alone[:, 4:], atol=1e-5, rtol=0)
    assert not torch.allclose(whole[:, :4], alone[:, :4], atol=1e-3)
    clips = sample(recipe_of("joint", worlds, tmp_path, **MODULES))
    assert torch.equal(batch.x0[:, :4], clips.x0)
    recipe.export(made(tmp_path / "export"))
    told = (tmp_path / "export" / "README.md").read_text()
    assert "3 steps of 2 clips and 4 stills." in told
    for section, folder in (("data", worlds[1]), ("stills", pictures)):
        assert (
            f'`settings.{section}`: 3 clips or pictures, from\n\n- {{"layout": "pairs", "folder": "{folder}"}}' in told
        )


def test_training_from_the_cache_is_training_from_the_files(worlds: Worlds, tmp_path: Path) -> None:
    from videogen.data.cache import fill
    from videogen.data.clips import Clips
    from videogen.data.encoders import ModelEncoders
    from videogen.data.settings import Data

    cached = {"cache": {"folder": str(tmp_path / "cache")}}
    section = Data.model_validate(training_world.data(worlds[1], **cached))
    fill(Clips(section, 0), ModelEncoders(worlds[0]))
    files, cache = (recipe_of("motion", worlds, tmp_path, more, **MODULES) for more in ({}, cached))
    shaken(files)
    shaken(cache)
    cache.root.load_state_dict(files.root.state_dict())
    for step in range(3):
        first, second = (next(recipe.batches(iter([Draw(0, step)]))) for recipe in (files, cache))
        assert (first.keys, first.times.tolist()) == (second.keys, second.times.tolist())
        with torch.no_grad():
            torch.testing.assert_close(files.error(first), cache.error(second), rtol=0, atol=1e-5)


def test_validation_shows_clips_and_pictures_from_the_same_noise(worlds: Worlds, tmp_path: Path) -> None:
    from videogen.video import read

    for frames, suffix in ((4, "mp4"), (1, "png")):
        wanted = {"prompts": ["a red circle", "nothing"], "frames": frames, "width": 32, "height": 32, "steps": 2}
        recipe = recipe_of("motion", worlds, tmp_path / suffix, **MODULES, validation=wanted)
        assert recipe.validate(tmp_path / suffix / "first") == {}
        recipe.validate(tmp_path / suffix / "second")
        names = [f"0.{suffix}", f"1.{suffix}", "sheet.png"]
        for name in names:
            first, second = (read(tmp_path / suffix / which / name) for which in ("first", "second"))
            assert torch.equal(first.frames, second.frames)
        assert len(read(tmp_path / suffix / "first" / names[0])) == frames


def test_micro_batches_and_processes_are_parts_of_one_batch(worlds: Worlds, tmp_path: Path) -> None:
    recipe = recipe_of("motion", worlds, tmp_path, {"batch_size": 4, "drop": 0.0}, **MODULES)
    (whole,) = recipe.batches(iter([Draw(0, 5)]))
    parts = [batch for rank in (0, 1) for batch in recipe.batches(Draw(0, 5, 0.0, rank, 2, part, 2) for part in (0, 1))]
    assert sum((part.keys for part in parts), ()) == whole.keys
    for name in ("x0", "noise", "times", "counts"):
        torch.testing.assert_close(
            torch.cat([getattr(part, name) for part in parts]), getattr(whole, name), atol=1e-5, rtol=0
        )
    with torch.no_grad():
        mean = sum(recipe.error(part) for part in parts) / 4
        torch.testing.assert_close(mean, recipe.error(whole), atol=1e-5, rtol=0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits that the system sets")
def test_a_disk_that_fills_up_in_the_export_is_one_line_and_the_run_stays(worlds: Worlds, tmp_path: Path) -> None:
    import resource
    import signal

    recipe = recipe_of("lora", worlds, tmp_path, rank=2)
    (tmp_path / "beside").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match=r"the export into .* could not be written \(.*\).*--resume latest"):
            recipe.export(tmp_path / "beside")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.filterwarnings("ignore:.*broken")
@pytest.mark.parametrize("recipe", ["lora", "joint"])
def test_broken_clips_are_counted_in_the_log(recipe: str, worlds: Worlds, tmp_path: Path) -> None:
    folder = shutil.copytree(worlds[1], tmp_path / "films")
    (folder / "1.mp4").write_bytes(b"")
    given: dict[str, Any] = {"rank": 2}
    if recipe == "joint":  # of stills as many as of clips
        stills = training_world.data(folder, frames=1, broken=1.0)
        given = {"modules": {"heads": 2, "norm_scope": "clip"}, "stills": stills}
    loop, out = looped(recipe, (worlds[0], folder), tmp_path, {"broken": 1.0}, **given)
    loop.recipe.judge = dict  # type: ignore[method-assign]  # which reads clips too
    loop.run()
    lines = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    told = [value for line in lines for name, value in line.items() if name.endswith(".broken")]
    assert loop.step == 3  # two clips a step: each of the three twice
    assert loop.recipe.broken == pytest.approx(1 / 3)  # type: ignore[attr-defined]
    assert len(told) == sum("rate" in line for line in lines) > 0


def test_a_new_run_leaves_what_another_has_exported(worlds: Worlds, tmp_path: Path) -> None:
    def run(steps: int, out: str, resume: str | None = None) -> None:
        values = training_world.run("lora", worlds[0], training_world.data(worlds[1]), tmp_path, rank=2)
        values |= {"out": tmp_path / out, "budget": {"steps": steps}, "accept": ["budget"]}
        offer = recipes()["lora"]()
        config = RunConfig[offer.settings].model_validate(values)  # type: ignore[name-defined]
        Loop(config, offer.build(config)).run(resume)

    run(2, "one")
    made = {path.name: path.read_bytes() for path in (tmp_path / "export").iterdir()}
    with pytest.raises(InputError, match="export holds what an earlier training made"):
        run(2, "two")
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "export").iterdir()}
    run(3, "one", "latest")
    assert made != {path.name: path.read_bytes() for path in (tmp_path / "export").iterdir()}


def test_other_clips_or_weights_under_the_same_names_are_another_run(worlds: Worlds, tmp_path: Path) -> None:
    model, films = (shutil.copytree(world, tmp_path / world.name) for world in worlds)

    def resumed(**values: Any) -> None:
        section = training_world.data(films)
        given = training_world.run("joint", model, section, tmp_path, **MODULES) | {"export": None} | values
        given["settings"] |= {"stills": section | {"frames": 1}}
        offer = recipes()["joint"]()
        run = RunConfig[offer.settings].model_validate(given)  # type: ignore[name-defined]
        Loop(run, offer.build(run)).run("latest" if "accept" in values else None)

    resumed()
    (films / "2.txt").write_text("another caption")
    longer = {"budget": {"steps": 4}}
    with pytest.raises(InputError, match=r"origin\.data: .*3 rows, (\w+).* -> .*3 rows, .*origin\.stills: .*accept="):
        resumed(accept=["budget"], **longer)
    (films / "2.txt").write_text("film 2")
    weights = model / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    name = next(name for name, tensor in state.items() if tensor.ndim == 2)
    save_file(state | {name: state[name] + 1}, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"names: origin\.model: "):
        resumed(accept=["budget"], **longer)
    resumed(accept=["budget", "origin.model"], **longer)


def test_a_resumed_run_is_the_same_run(worlds: Worlds, tmp_path: Path) -> None:
    def checkpoint(folder: str, steps: int, **given: Any) -> dict[str, Tensor]:
        section = training_world.data(worlds[1], batch_size=4)
        values = training_world.run("lora", worlds[0], section, tmp_path / folder, rank=2)
        values |= {"budget": {"steps": 4}, "every": {"checkpoint": 2}, "accumulate": 2, "checkpoints_total_limit": 9}
        values["export"] = None
        offer = recipes()["lora"]()
        run = RunConfig[offer.settings].model_validate(values)  # type: ignore[name-defined]
        Loop(run, offer.build(run)).run(**given)
        return load_file(tmp_path / folder / "run" / f"checkpoint-{steps}" / "weights.safetensors")

    whole = checkpoint("whole", 4)
    shutil.copytree(tmp_path / "whole" / "run" / "checkpoint-2", tmp_path / "parts" / "run" / "checkpoint-2")
    parts = checkpoint("parts", 4, resume="latest")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
