"""The recipe of Tune-A-Video trains what it declares, resumes as if it had never stopped, and reads the authors' configurations."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
import yaml

from motion_modules import tune_a_video_folder
from motion_modules.tune_a_video import authors_name, our_name, trainable
from motion_modules.tuning import Batch, How, Settings, Subject, Tuning, offer, posterior, read_clip
from motion_modules.tuning_config import read_authors
from tests import folders
from videogen.clip import Clip
from videogen.errors import InputError
from videogen.frame_choice import SPARSE_CAUSAL
from videogen.models.autoencoder import encode
from videogen.pipeline import Pipeline
from videogen.training import train
from videogen.training.config import RunConfig, load, validate
from videogen.training.loop import Loop
from videogen.training.schedules import rate
from videogen.video import write

CONFIGS = Path(__file__).parents[2] / "configs" / "tune_a_video"
FRAMES = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a clip of six frames in a file."""
    folder = tmp_path_factory.mktemp("world")
    folders.stable_diffusion(folder / "sd")
    frames = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    write(folder / "clip.png", Clip(frames, Fraction(8)))
    return folder


def settings(world: Path, **changes: object) -> dict[str, object]:
    data = {
        "video_path": world / "clip.png",
        "prompt": "a",
        "n_sample_frames": FRAMES,
        "sample_frame_rate": 2,
        "width": 16,
        "height": 16,
    }
    return {"pretrained_model_path": str(world / "sd"), "train_data": data, **changes}


def run(world: Path, out: Path, steps: int, **changes: object) -> RunConfig[Settings]:
    values = {
        "recipe": "tune_a_video", "out": out, "budget": {"steps": steps}, "settings": settings(world),
        "optimization": {"warmup": 0.0, "average": 0.0, "adamw": 0.01}, "every": {"checkpoint": 0}, **changes,
    }  # fmt: skip
    return RunConfig[Settings].model_validate(values)


def test_exactly_the_declared_tensors_change_and_the_export_is_the_tuned_model(world: Path, tmp_path: Path) -> None:
    config = run(world, tmp_path / "run", 3, export=tmp_path / "model")
    recipe = offer().build(config.settings)
    loop = Loop(config, recipe)
    before = {name: value.clone() for name, value in recipe.root.state_dict().items()}
    loop.run()
    after = recipe.root.state_dict()
    changed = {authors_name(name) for name, value in after.items() if not torch.equal(value, before[name])}
    ends = ("attn1.to_q.weight", "attn2.to_q.weight")
    declared = {authors_name(n) for n in before if authors_name(n).endswith(ends) or ".attn_temp." in authors_name(n)}
    assert changed == declared == {authors_name(name) for name in trainable(recipe.root)}
    saved = tune_a_video_folder.load(tmp_path / "model").parts.unet.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in after.items())


def test_a_new_run_leaves_the_model_that_another_has_tuned(world: Path, tmp_path: Path) -> None:
    def go(out: str) -> None:
        config = run(world, tmp_path / out, 1, export=tmp_path / "model")
        Loop(config, offer().build(config.settings)).run()

    go("model")  # one folder for both, as the authors have it
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="model holds what an earlier training made"):
        go("other")
    with pytest.raises(InputError, match="model holds an earlier run; go on with --resume latest"):
        go("model")
    assert before == {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}


@pytest.mark.parametrize(("said", "zero"), [({}, True), ({"temporal_bias": "random"}, False)])
def test_the_bias_of_new_layers_begins_as_the_settings_say(world: Path, said: dict[str, str], zero: bool) -> None:
    recipe = offer().build(Settings.model_validate(settings(world, **said)))
    recipe.prepare(torch.device("cpu"))
    biases = [value for name, value in recipe.root.named_parameters() if name.endswith("temporal.attn.to_out.0.bias")]
    assert biases
    assert all(bool((value == 0).all()) == zero for value in biases)


def test_an_interrupted_run_that_is_resumed_is_the_same_run(world: Path, tmp_path: Path) -> None:
    def weights(out: Path) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        found = sorted((out / "checkpoint-4").glob("*.safetensors"))
        return {f"{file.name}/{name}": value for file in found for name, value in load_file(file).items()}

    def go(config: RunConfig[Settings], resume: str | None = None) -> None:
        Loop(config, offer().build(config.settings)).run(resume)

    go(run(world, tmp_path / "whole", 4))
    stopped = run(world, tmp_path / "parts", 4, every={"checkpoint": 2}, checkpoints_total_limit=9)
    go(stopped)
    import shutil

    shutil.rmtree(tmp_path / "parts" / "checkpoint-4")
    go(stopped, "latest")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def recipe_of(world: Path, **how: object) -> Tuning:
    pipe = tune_a_video_folder.pipeline(tune_a_video_folder.animated(Pipeline.from_pretrained(world / "sd").parts))
    clip = torch.rand(FRAMES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    recipe = Tuning(How(**how), lambda device: Subject(pipe, clip, "a"))  # type: ignore[arg-type]
    recipe.prepare(torch.device("cpu"))
    return recipe


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_the_loss_is_the_plain_one_over_the_causal_network(world: Path, kind: str) -> None:
    """By diffusers' own forward process and velocity."""
    from diffusers import DDPMScheduler

    recipe = recipe_of(world)
    pipe = recipe.about.pipe
    pipe.denoiser = pipe.denoiser.replace(predicts=kind)
    x0, noise = torch.randn(2, 1, FRAMES, 4, 2, 2, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([300])
    theirs = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    told = recipe.told.at(300.0, range(FRAMES))
    out = pipe.parts.unet(theirs.add_noise(x0, noise, times), times.float(), told, SPARSE_CAUSAL)[0]
    wanted = noise if kind == "eps" else theirs.get_velocity(x0, noise, times)
    expected = (out - wanted).square().mean()
    torch.testing.assert_close(recipe.error(Batch(x0, times, noise)), expected, rtol=1e-4, atol=1e-6)


def test_latents_are_drawn_from_the_posterior_whose_mean_encoding_gives(world: Path) -> None:
    recipe = recipe_of(world)
    parts, clip = recipe.about.pipe.parts, recipe.about.clip
    with torch.no_grad():
        mean, deviation = posterior(parts, clip)
        torch.testing.assert_close(mean, encode(parts.vae, clip[None] * 2 - 1)[0])
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(FRAMES, 4, 2, 2, generator=generator)
        drawn = encode(parts.vae, clip[None] * 2 - 1, torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(mean + deviation * noise, drawn, rtol=1e-4, atol=1e-5)


def test_the_clip_is_taken_as_the_settings_say(world: Path) -> None:
    from videogen.video import read

    data = Settings.model_validate(settings(world)).train_data
    assert torch.equal(read_clip(data), read(world / "clip.png").to_float()[::2])
    assert read_clip(data.model_copy(update={"width": 32, "sample_start_idx": 4})).shape == (1, 3, 16, 32)


def test_the_authors_file_is_a_run_of_the_loop(world: Path, tmp_path: Path) -> None:
    config = read_authors(CONFIGS / "sd14.yaml")
    made = config.run()
    assert made.budget.steps == 500
    assert made.optimization.adamw == 3e-5
    assert made.optimization.weight_decay == 0.01
    assert made.settings.train_data.n_sample_frames == 24
    assert made.settings.trainable_modules == ("attn1.to_q", "attn2.to_q", "attn_temp")
    text = yaml.safe_load((CONFIGS / "sd14.yaml").read_text())
    text |= {"mixed_precision": False, "learning_rate": "3e-5", "use_8bit_adam": True, "lr_scheduler": "constant"}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(text))
    assert read_authors(tmp_path / "theirs.yaml").run().precision == "float32"
    assert read_authors(tmp_path / "theirs.yaml").run().optimization.optimizer == "adamw8bit"


@pytest.mark.parametrize("name", ["constant", "constant_with_warmup", "cosine"])
def test_the_rate_moves_as_the_authors_scheduler_says(name: str) -> None:
    """Step by step diffusers' scheduler of that name, which their script steps once an update."""
    from diffusers.optimization import get_scheduler

    config = read_authors(CONFIGS / "sd14.yaml", [f"lr_scheduler={name}", "lr_warmup_steps=4", "max_train_steps=20"])
    run = config.run()
    assert run.optimization.optimizer == "adamw"
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=20)
    for step in range(20):
        ours = rate(step / run.budget.steps, run.warmup, run.optimization.schedule)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train_data.videopath=x", "train_data.video_path"),
        ("gradient_accumulation_steps=4", "gradient_accumulation_steps"),
        ("validation_data.num_inv_steps=10", "num_inv_steps"),
        ("validation_data.width=256", "width"),
        ("validation_data.video_length=99", "video_length"),
    ],
)
def test_what_an_authors_file_cannot_have_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_authors(CONFIGS / "sd14.yaml", [override])


def test_the_shipped_run_is_valid_and_the_recipe_is_announced(world: Path, tmp_path: Path) -> None:
    run = validate(RunConfig[Settings], load(CONFIGS / "miniature.yaml"))
    assert run.settings.train_data.width == 128
    # The authors' optimization, at the rate of small nets.
    assert run.optimization == read_authors(CONFIGS / "sd14.yaml", ["learning_rate=1e-3"]).run().optimization
    assert "videogen train tune_a_video/miniature" in (CONFIGS / "miniature.yaml").read_text()
    with pytest.raises(InputError, match="does not exist"):
        train(
            CONFIGS / "miniature.yaml",
            [f"out={tmp_path / 'run'}", f"settings.train_data.video_path={tmp_path / 'none.mp4'}"],
            offers={"tune_a_video": offer},
        )


def test_an_unknown_trainable_module_is_refused(world: Path) -> None:
    with pytest.raises(InputError, match="attn9"):
        recipe_of(world, trainable_modules=("attn9",))
    assert our_name("attn_temp") == "attn_temp"  # only whole parts of a name are translated
