"""Two processes, with whole copies or with shards, train motion modules as one process does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import training_world
from tests.forked import CONTEXT, together
from videogen.training import train

pytestmark = pytest.mark.skipif(CONTEXT is None, reason="needs children that are forked")


def run(config: Path, *overrides: str) -> None:
    train(config, overrides)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import yaml

    folder = tmp_path_factory.mktemp("spread")
    films = training_world.films(folder / "films")
    section = training_world.data(films, drop=0.0)
    model = training_world.model(folder / "model")
    values: dict[str, Any] = training_world.run("motion", model, section, folder, modules={"heads": 2})
    values |= {"threads": 1, "export": None, "every": {"log": 1}}
    (folder / "motion.yaml").write_text(yaml.safe_dump(values))
    threads = torch.get_num_threads()
    run(folder / "motion.yaml", f"out={folder / 'one'}")
    torch.set_num_threads(threads)
    return folder / "motion.yaml"


@pytest.mark.parametrize("further", [(), ("shards=true",), ("shards=true", "gradient_checkpointing=true")], ids=str)
def test_two_processes_train_as_one(config: Path, further: tuple[str, ...], tmp_path: Path) -> None:
    assert together(2, run, config, f"out={tmp_path / 'two'}", *further) == [0, 0]
    one = load_file(config.parent / "one" / "checkpoint-3" / "average.safetensors")
    two = load_file(tmp_path / "two" / "checkpoint-3" / "average.safetensors")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=0)
