"""Offline, one thread a process (a second one only costs on models this small), no trace in the user's cache."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
import time

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "MI2P_TEST_CACHE" not in os.environ:  # pytest-xdist's processes and commands under test share the first one's
    os.environ["MI2P_TEST_CACHE"] = os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="mi2p-tests-")
    atexit.register(shutil.rmtree, os.environ["MI2P_TEST_CACHE"], ignore_errors=True)
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands under test
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more are processes that each import torch
# A collection goes through all that was ever imported; the default's are a twentieth of the suite's time.
gc.set_threshold(100_000, 20, 50)


FROZEN = {"at": 0.0}
"""When what is there was last put out of the collector's sight."""


def pytest_collection_finish() -> None:
    """What the tests import is no garbage: a Trainer collects at its end, and would go through all of it each time."""
    gc.collect()
    gc.freeze()
    FROZEN["at"] = time.monotonic()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Likewise what tests have imported since, between two modules: fewest of their own things are there then."""
    if (nextitem is None or nextitem.path != item.path) and time.monotonic() - FROZEN["at"] > 60:
        pytest_collection_finish()


def pytest_unconfigure() -> None:
    gc.unfreeze()
