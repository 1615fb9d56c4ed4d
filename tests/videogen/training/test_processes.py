"""Two processes with the same global batch train as one does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.toy import OFFERS
from videogen.training import checkpoints, train

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    config = tmp_path / "toy.yaml"
    config.write_text(f"recipe: toy\nout: {tmp_path}/one\nbudget: {{steps: 5}}\nsettings: {{noisy: false}}\n")
    one = checkpoints.read(train(config, offers=OFFERS))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tests.toy"]
    subprocess.run([*launch, config, f"out={tmp_path}/two"], check=True, cwd=ROOT, capture_output=True, timeout=120)
    two = checkpoints.read(checkpoints.find(tmp_path / "two", "latest"))
    assert two.state["step"] == 5
    for name, weight in one.weights.items():
        assert torch.allclose(weight, two.weights[name], atol=1e-5), name
