"""The store: each stage's artifact in a folder named by its key, whole or absent.

An artifact holds files of the ecosystem's formats (``from_pretrained`` folders, parquet, JSON) and a ``stage.json`` that says what made it. It
is written aside and renamed when complete, so a stopped run leaves nothing half-written; what a stage put into its scratch
(:mod:`weaklib.training.scratch`) stays beside until the stage is done.
"""

import importlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from weaklib.arms.stage import Stage, fingerprint
from weaklib.training.scratch import scratch_of


@dataclass(frozen=True)
class Store:
    root: Path

    def folder(self, stage: Stage) -> Path:
        """Where the artifact of ``stage`` is or will be."""
        return self.root / stage.name / stage.key

    def has(self, stage: Stage) -> bool:
        return self.folder(stage).is_dir()

    def records(self) -> list[dict]:
        """The ``stage.json`` of every stored artifact."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.root.glob("*/*/stage.json"))]

    def compute(self, stage: dict) -> None:
        """Compute an artifact from stored inputs, unless it is there already; ``stage`` is :meth:`Stage.describe`'s.

        The lock makes equal keys run once even when two clusters share a store; the operating system releases it when a
        process dies.
        """
        module, target = f"weaklib.{stage['module']}", self.root / stage["stage"] / stage["key"]
        aside = self.root / ".partial" / stage["key"]
        aside.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(aside.with_suffix(".lock")):
            if target.is_dir():
                return
            if fingerprint(module) != stage["code"]:
                raise RuntimeError("weaklib has changed since this worker started: restart the kernel or the cluster")
            shutil.rmtree(aside, ignore_errors=True)  # what a killed process left
            aside.mkdir()
            try:
                folders = {name: self.root / folder for name, folder in (stage["inputs"] | stage["folders"]).items()}
                run = importlib.import_module(module).run
                started = time.perf_counter()  # the first stage of its kind in a worker would count the imports
                run(aside, **folders, **stage["parameters"], **stage["execution"])
                record = stage | {"seconds": round(time.perf_counter() - started, 2)}
                (aside / "stage.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                target.parent.mkdir(parents=True, exist_ok=True)
                aside.rename(target)
                shutil.rmtree(scratch_of(aside), ignore_errors=True)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
