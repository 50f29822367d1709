"""A stage: one arrow of the study, a pure function of its parameters and its inputs.

The stage ``training.policy`` is the function ``run`` of the module ``weaklib.training.policy``. Naming it costs nothing: a notebook's kernel
can build the whole graph without importing torch. Only the worker that computes a stage imports its module.
"""

import ast
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

# A change of any of these may change the numbers a stage computes.
LIBRARIES = ("accelerate", "datasets", "numpy", "peft", "tokenizers", "torch", "transformers", "trl")

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True, eq=False)
class Stage:
    """``run(out, **inputs, **parameters, **execution, **folders)`` of ``weaklib.MODULE``, where each input is another stage's folder.

    What does not change the artifact is no part of its key: ``execution`` (when to write checkpoints, where a file lies whose hash is a
    parameter) and ``folders``, which all stages of the store share (a judge's journals).
    """

    module: str
    inputs: dict[str, "Stage"] = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    execution: dict = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2]

    @cached_property
    def key(self) -> str:
        """Equal keys mean equal artifacts: parameters, keys of the inputs, code and library versions."""
        identity = {"stage": self.name, "inputs": {name: stage.key for name, stage in self.inputs.items()}}
        identity |= {"parameters": self.parameters, "code": fingerprint(f"weaklib.{self.module}")}
        return _digest(identity | {"libraries": library_versions()})

    @cached_property
    def shape(self) -> str:
        """Equal shapes mean about equal costs: the key's parameters and inputs without the seeds."""
        parameters = {name: value for name, value in self.parameters.items() if name != "seed"}
        return _digest([self.name, parameters, {name: stage.shape for name, stage in self.inputs.items()}])

    def describe(self) -> dict:
        """All that a worker needs to compute it, and that its artifact's record says."""
        return {
            "stage": self.name, "module": self.module, "key": self.key, "shape": self.shape,
            "inputs": {name: str(stage) for name, stage in self.inputs.items()}, "parameters": self.parameters,
            "execution": self.execution, "folders": self.folders, "code": fingerprint(f"weaklib.{self.module}"),
            "libraries": library_versions(),
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"


def upstream(stages) -> list[Stage]:
    """The given stages and all they depend on, inputs first, one of each key."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage):
        if stage.key not in ordered:
            for needed in stage.inputs.values():
                visit(needed)
            ordered[stage.key] = stage

    for stage in stages:
        visit(stage)
    return list(ordered.values())


@cache
def library_versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


@cache
def fingerprint(module: str) -> str:
    """Hash of the code of ``module`` and of every weaklib module that it imports, directly or not.

    Comments, docstrings, layout and what an error says do not count. Cached: it is the code as this process first saw it.
    """
    return _digest([[name, _essence(_source(name))] for name in sorted(_imported_with(module))])


def _imported_with(module: str) -> set[str]:
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in found or name == "weaklib" or not _source(name):  # the package's own file only gathers names
            continue
        found.add(name)
        for node in ast.walk(ast.parse(_source(name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _source(module: str) -> Path | None:
    package, *names = (module or "").split(".")
    if package != "weaklib":
        return None
    path = PACKAGE.joinpath(*names)
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _essence(source: Path) -> str:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
    return ast.dump(tree)


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:24]
