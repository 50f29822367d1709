"""A stage, one arrow of the study: a pure function of parameters and inputs; and the store of what stages have made.
Only the worker that computes a stage imports its module: a notebook's kernel builds the whole graph without torch."""

import ast
import hashlib
import importlib.metadata
import json
import shutil
import time
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from filelock import FileLock

# A change of any of these may change the numbers a stage computes.
LIBRARIES = ("accelerate", "datasets", "numpy", "peft", "tokenizers", "torch", "transformers", "trl")
PACKAGE = Path(__file__).parent.parent
version = cache(importlib.metadata.version)


@dataclass(frozen=True, eq=False)
class Stage:
    """The function ``run(out, **inputs, **parameters, **execution)`` of ``weaklib.MODULE``; inputs are stages' folders.
    ``execution`` is no part of its key: when to write checkpoints, where a file lies whose hash is a parameter."""

    module: str
    inputs: dict[str, "Stage"] = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    execution: dict = field(default_factory=dict)

    @cached_property
    def record(self) -> dict:
        """All that a worker needs to compute it, and that its artifact's ``stage.json`` says. Equal keys mean equal
        artifacts; equal shapes, in which no seed enters, about equal costs."""
        inputs = {name: str(stage) for name, stage in self.inputs.items()}
        shapes = {name: stage.record["shape"] for name, stage in self.inputs.items()}
        made = {"stage": self.name, "module": self.module, "inputs": inputs, "parameters": self.parameters}
        made |= {"code": fingerprint(f"weaklib.{self.module}"), "libraries": {lib: version(lib) for lib in LIBRARIES}}
        shape = _digest([self.module, shapes, self.parameters | {"seed": None}])
        return made | {"key": _digest(made), "shape": shape, "execution": self.execution}

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2]

    @property
    def key(self) -> str:
        return self.record["key"]

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"


def upstream(stages, store: "Store | None" = None, found: dict | None = None) -> list[Stage]:
    """The stages and all they depend on, inputs first, each key once, but not what ``store`` has or lies behind it."""
    found = {} if found is None else found
    for stage in stages:
        if stage.key not in found and not (store and store.folder(stage).is_dir()):
            upstream(stage.inputs.values(), store, found)
            found[stage.key] = stage
    return list(found.values())


@dataclass(frozen=True)
class Store:
    """Each stage's artifact in a folder named by its key, whole or absent, with a ``stage.json``: what made it.
    What a stage puts into its scratch, ``KEY.scratch`` (checkpoints), outlives a stop and stays until it is done."""

    root: Path

    def folder(self, stage: Stage) -> Path:
        return self.root / str(stage)

    def compute(self, stage: dict) -> None:
        """Computes the artifact of a :attr:`Stage.record` from stored inputs; once, if two clusters share a store."""
        module, target = f"weaklib.{stage['module']}", self.root / stage["stage"] / stage["key"]
        aside = self.root / ".partial" / stage["key"]
        with FileLock(aside.with_suffix(".lock")):
            if target.is_dir():
                return
            if fingerprint(module) != stage["code"]:
                raise RuntimeError("weaklib has changed since this worker started: restart the kernel or the cluster")
            shutil.rmtree(aside, ignore_errors=True)  # what a killed process left
            aside.mkdir()
            try:
                inputs = {name: self.root / folder for name, folder in stage["inputs"].items()}
                run = importlib.import_module(module).run
                started = time.perf_counter()  # the first stage of its kind in a worker would count the imports
                run(aside, **inputs, **stage["parameters"], **stage["execution"])
                said = json.dumps(stage | {"seconds": round(time.perf_counter() - started, 2)}, indent=1)
                (aside / "stage.json").write_text(said + "\n", encoding="utf-8")
                target.parent.mkdir(parents=True, exist_ok=True)
                aside.rename(target)
                shutil.rmtree(aside.with_suffix(".scratch"), ignore_errors=True)
            finally:
                shutil.rmtree(aside, ignore_errors=True)


@cache
def fingerprint(module: str) -> str:
    """Hash of the code of ``module`` and of every weaklib module that it imports, directly or not, as this process
    first saw it. Comments, docstrings, layout and what an error says do not count."""
    code, waiting = {}, [module]
    while waiting:
        path = PACKAGE.joinpath(*(name := waiting.pop()).split(".")[1:])
        source = next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
        if name in code or source is None or not name.startswith("weaklib."):
            continue
        tree = ast.parse(source.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                origin = getattr(node, "module", "")
                waiting += [origin, *(f"{origin}.{alias.name}".strip(".") for alias in node.names)]
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                node.exc = node.exc.func
            if isinstance(body := getattr(node, "body", None), list):
                body[:] = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        code[name] = ast.dump(tree)
    return _digest(code)


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:24]
