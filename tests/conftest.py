"""Small worlds and models for the tests, made by the study's own stages."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from pathlib import Path

import pytest

from weaklib.arms import graph
from weaklib.arms import running
from weaklib.study.parameters import load_profile
from weaklib.arms.store import Store

# One weak→strong pair and one seed of the smoke profile: the smallest study that is whole.
ONE_PAIR = {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}


@pytest.fixture(scope="session")
def cluster():
    """One cluster for all tests; notebooks find it by the environment, as under ``weaklib reproduce``."""
    with running.cluster() as address:
        os.environ[running.SCHEDULER] = address
        yield address
        del os.environ[running.SCHEDULER]


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def smoke():
    return load_profile("smoke", ONE_PAIR)


@pytest.fixture(scope="session")
def made(cluster, store):
    """Brings a stage's artifact into the store and returns its folder."""

    def make(stage) -> Path:
        running.run([stage], store)
        return store.folder(stage)

    return make


@pytest.fixture(scope="session")
def pairs(made, smoke):
    import pandas as pd

    return pd.read_parquet(made(graph.task(smoke)) / "pairs.parquet").set_index("pair")
