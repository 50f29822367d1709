"""Small worlds and models for the tests, made by the study's own stages."""

import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from pathlib import Path

import pytest

from weaklib.arms import graph, running
from weaklib.arms.stage import Store
from weaklib.study.parameters import load_profile

# One weak→strong pair and one seed of the smoke profile: the smallest study that is whole.
ONE_PAIR = {"seeds": [0], "models.weak": "opt-tiny", "models.strong": "opt-small"}


@pytest.fixture(scope="session")
def cluster():
    """One cluster for all tests; notebooks find it by the environment, as under ``weaklib reproduce``."""
    with running.cluster() as address:
        os.environ[running.SCHEDULER] = address
        yield address
        del os.environ[running.SCHEDULER]


@pytest.fixture
def float64(monkeypatch):
    """In it torch computes in float64, whatever precision a library asks for: what is equal on paper is equal to 1e-9, on any CPU."""
    import torch
    from torch.autograd.function import BackwardCFunction
    from torch.overrides import TorchFunctionMode
    from transformers import PreTrainedModel

    class Exact(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (torch.frombuffer, torch.Tensor.view):  # of bytes: they are what they are
                return function(*args, **(kwargs or {}))
            if function is torch.Tensor.float:
                function = torch.Tensor.double
            args = tuple(torch.float64 if argument is torch.float32 else argument for argument in args)
            named = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
            return function(*args, **named)

    backward = BackwardCFunction.apply

    def exact_backward(self, *gradients):  # torch leaves the mode there
        with Exact():
            return backward(self, *gradients)

    load = PreTrainedModel.from_pretrained.__func__
    monkeypatch.setattr(BackwardCFunction, "apply", exact_backward)

    def in_double(*args, **settings):
        loaded = load(*args, **settings)
        return (loaded[0].double(), *loaded[1:]) if isinstance(loaded, tuple) else loaded.double()

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(in_double))
    torch.set_default_dtype(torch.float64)
    try:
        with Exact():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


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


@pytest.fixture
def exactly(float64, made, tmp_path):
    """Computes a stage in float64, in this process and not for the store, and returns its folder; ``inputs`` in place of its own."""

    def compute(stage, **inputs: Path) -> Path:
        out = tmp_path / stage.name / stage.key
        out.mkdir(parents=True)
        inputs = {name: inputs.get(name) or made(needed) for name, needed in stage.inputs.items()}
        run = importlib.import_module(f"weaklib.{stage.module}").run
        run(out, **inputs, **stage.parameters, **stage.execution)
        return out

    return compute


@pytest.fixture(scope="session")
def pairs(made, smoke):
    import pandas as pd

    return pd.read_parquet(made(graph.task(smoke)) / "pairs.parquet").set_index("pair")
