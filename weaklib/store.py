"""The store: each stage's artifact in a folder named by its key, whole or absent.

An artifact holds files of the ecosystem's formats (``from_pretrained`` folders, parquet, JSON) and a ``stage.json``
that says what made it. It is written aside and renamed when complete, so a stopped run leaves nothing half-written.
"""

import importlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from weaklib.stage import Stage, fingerprint, library_versions


@dataclass(frozen=True)
class Store:
    root: Path

    def folder(self, stage: Stage) -> Path:
        """Where the artifact of ``stage`` is or will be."""
        return self.root / stage.name / stage.key

    def has(self, stage: Stage) -> bool:
        return self.folder(stage).is_dir()

    def record(self, stage: Stage) -> dict:
        """What ``stage.json`` of a stored artifact says."""
        return json.loads((self.folder(stage) / "stage.json").read_text(encoding="utf-8"))

    def compute(self, name: str, key: str, code: str, inputs: dict[str, str], parameters: dict) -> None:
        """Compute an artifact from stored ``inputs`` (name → folder below the root), unless it is there already.

        The lock makes equal keys run once even when two clusters share a store; the operating system
        releases it when a process dies.
        """
        target = self.root / name / key
        locks = self.root / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / key):
            if target.is_dir():
                return
            module = f"weaklib.stages.{name}"
            if fingerprint(module) != code:
                raise RuntimeError("weaklib has changed since this worker started: restart the kernel or the cluster")
            run = importlib.import_module(module).run
            aside = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=locks))
            try:
                started = time.perf_counter()
                run(aside, **{n: self.root / folder for n, folder in inputs.items()}, **parameters)
                record = {"stage": name, "key": key, "inputs": inputs, "parameters": parameters, "code": code}
                record |= {"libraries": library_versions(), "seconds": round(time.perf_counter() - started, 2)}
                (aside / "stage.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                target.parent.mkdir(parents=True, exist_ok=True)
                os.chmod(aside, 0o755)
                aside.rename(target)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
