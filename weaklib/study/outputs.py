"""What a notebook uses and writes: stages, figures and tables with provenance, findings, the record of its end."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from weaklib.arms import folders, graph, running
from weaklib.arms.stage import Stage, Store, upstream
from weaklib.data.files import save_json, sha256
from weaklib.figures import save
from weaklib.figures.tables import readable
from weaklib.study.profile import Profile


class Outputs:
    """Of one notebook, made with the effective parameters of its profile."""

    def __init__(self, notebook: str, profile_name: str, profile: Profile):
        self.notebook, self.profile_name, self.profile = notebook, profile_name, profile
        self.store, self.folder = Store(folders.store_folder()), folders.figures_folder() / profile_name / notebook
        self.outputs, self._stages, self._read = [], {}, {}  # files; stages by key; hashes of other notebooks' data
        self.missing: list[str] = []  # why estimates are missing

    def compute(self, stages: Iterable[Stage]) -> bool:
        """Brings ``stages`` into the store and counts them as used here. Returns whether they are there now: not while
        they are only listed (``weaklib.arms.running.recorded``), when nothing runs.
        """
        stages = list(stages)
        self._stages |= {stage.key: stage for stage in upstream(stages)}
        return running.run(stages, self.store)

    def read(self, stage: Stage, table: str) -> pd.DataFrame:
        """One table of a stored artifact."""
        return pd.read_parquet(self.store.folder(stage) / f"{table}.parquet")

    def record(self, stage: Stage, name: str):
        """One JSON file of a stored artifact."""
        return json.loads((self.store.folder(stage) / f"{name}.json").read_text(encoding="utf-8"))

    def tables(self, stages: list[tuple[dict, Stage]], table: str) -> pd.DataFrame:
        """One table of several stored artifacts, each beside the columns that name it."""
        return pd.concat([self.read(stage, table).assign(**named) for named, stage in stages], ignore_index=True)

    def counts(self) -> dict:
        """What was met in the task's file (rows, dropped, empty responses, …); empty for the controlled world."""
        task = graph.task(self.profile)
        return self.record(task, "counts") if (self.store.folder(task) / "counts.json").is_file() else {}

    def cuts(self) -> dict:
        """How often the stages used here cut a prompt or a response, or met a pair that was equal once cut."""
        files = (self.store.folder(stage) / "cuts.json" for stage in self._stages.values())
        counted = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
        return {name: sum(cuts.get(name, 0) for cuts in counted) for name in sorted(set().union(*counted))}

    def reads(self, files: Iterable[Path]) -> None:
        """Counts data of other notebooks as used by this one: their hashes are part of its key and provenance."""
        self._read |= {f"{path.parent.name}/{path.name}": sha256(path) for path in files}

    def save_figure(self, figure, name: str, data: pd.DataFrame, caption: str, units: str | None = "test prompts"):
        """Writes ``figures/PROFILE/NOTEBOOK/NAME.{svg,pdf,png,csv,json}``; ``data`` is what the figure shows. Figure
        and caption say what the intervals cover, the seeds and the ``units``, unless these are None.
        """
        if units:
            figure.supxlabel(self._covered(units), fontsize=6)
        key = hashlib.sha256(" ".join(sorted([*self._stages, *self._read.values()])).encode()).hexdigest()[:24]
        files = save.save_figure(figure, self.folder, name, f"{self.notebook}: {name}", key)
        files.append(save.save_csv(data, self.folder, name))
        said = {"caption": self._whole(caption, units), "notebook": self.notebook, "profile": self.profile_name}
        said |= {"parameters": self.profile.model_dump(), "task_counts": self.counts(), "key": key}
        said |= {"cuts": self.cuts()}
        said |= {"stages": sorted(map(str, self._stages.values())), "read": self._read, **save.provenance()}
        said |= {"device": self.profile.device, "sha256": {path.name: sha256(path) for path in files}}
        self.outputs += [*files, save_json(said, self.folder / f"{name}.json")]

    def save_table(self, frame: pd.DataFrame, name: str, caption: str, units: str | None = "test prompts"):
        """Writes ``figures/PROFILE/tables/NOTEBOOK/NAME.{md,tex,csv}``; returns the table for a notebook to show."""
        folder = self.folder.parent / "tables" / self.notebook
        self.outputs += save.save_table(frame, folder, name, self._whole(caption, units))
        return readable(frame)

    def save_contrasts(self, contrasts: pd.DataFrame) -> None:
        """Writes ``figures/PROFILE/NOTEBOOK/contrasts.csv`` (:func:`weaklib.contrasts`) for the ledger of claims, and
        prints how small a difference in GRA it can decide: the study's intervals aim at ±3 points.
        """
        self.outputs.append(save.save_csv(contrasts, self.folder, "contrasts"))
        in_gra = contrasts[contrasts["metric"] == "gra"]
        half = 50 * (in_gra["ci_high"] - in_gra["ci_low"])
        known = f"{(half <= 3).sum()} are known to ±3 points or better, half of them to ±{half.median():.1f}"
        decided = f"the widest to ±{half.max():.1f}; smaller ones are not decided here"
        print(f"{len(half)} differences in GRA: {known}, {decided}")

    def say(self, sentences: str | Iterable[str]) -> None:
        """Prints findings as a list."""
        for sentence in [sentences] if isinstance(sentences, str) else sentences:
            print("-", sentence)

    def finish(self) -> None:
        """The notebook's last word: writes the list of its outputs, by which ``reproduce`` knows that it succeeded."""
        outputs = {str(path): sha256(path) for path in self.outputs}
        record = {"notebook": self.notebook, "outputs": outputs, "stages": sorted(map(str, self._stages.values()))}
        save_json(record, folders.runs_folder() / self.profile_name / f"{self.notebook}.json")
        if cut := ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in self.cuts().items() if count):
            print(f"to the profile's numbers of tokens, over all stages: {cut}")
        print(f"{len(outputs)} files written, from {len(self._stages)} stages")

    def _covered(self, units: str) -> str:
        seeds = len(self.profile.seeds)
        return f"95% intervals over {f'{seeds} seeds and the {units}' if seeds > 1 else f'the {units} only (one seed)'}"

    def _whole(self, caption: str, units: str | None) -> str:
        tail = f"{self.profile.objective.upper()}, β = {self.profile.beta:g} unless said, profile {self.profile_name}"
        return " ".join([f"{caption} {tail}" + (f"; {self._covered(units)}." if units else "."), *self.missing])
