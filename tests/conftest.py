"""What every test stands on: few threads, no network, the same random numbers each time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; child processes inherit it
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
import signal

import numpy
import pytest
import torch

# A shell starts its background jobs with Ctrl-C ignored, and children inherit that; tests that interrupt a child want it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """A test that forgets a generator still draws the same numbers, whatever ran before it."""
    random.seed(0)
    numpy.random.seed(0)  # noqa: NPY002  the legacy state is what other libraries draw from
    torch.manual_seed(0)
