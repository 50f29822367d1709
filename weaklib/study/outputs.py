"""What a notebook writes: figures, tables and contrasts with their provenance, findings, and the record that it came to its end."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from weaklib.arms.folders import figures_folder, runs_folder
from weaklib.arms.stage import Stage
from weaklib.data.files import save_json, sha256
from weaklib.figures import save
from weaklib.figures.style import readable
from weaklib.study.profile import Profile

# Points of GRA on either side that the study's intervals aim at.
AIM = 3.0


class Outputs:
    """Of one notebook, made with the effective parameters of its profile."""

    notebook: str
    profile: Profile
    profile_name: str

    def __init__(self) -> None:
        self.outputs: list[Path] = []
        self._stages: dict[str, Stage] = {}  # by their keys, those that the notebook has used
        self._read: dict[str, str] = {}

    def interval_note(self, units: str = "test prompts") -> str:
        """What the intervals of this run cover, for captions; ``units`` are what was scored."""
        seeds = len(self.profile.seeds)
        covers = f"{seeds} seeds and the {units}" if seeds > 1 else f"the {units} only (one seed)"
        return f"95% intervals over {covers}"

    def counts(self) -> dict:
        """What was met in the task's file; see :class:`weaklib.study.study.Study`."""
        raise NotImplementedError

    def reads(self, files: Iterable[Path]) -> None:
        """Counts data of other notebooks as used by this one: their hashes are part of its key and provenance."""
        self._read |= {f"{path.parent.name}/{path.name}": sha256(path) for path in files}

    def save_figure(
        self, figure, name: str, data: pd.DataFrame, caption: str, units: str | None = "test prompts"
    ) -> None:
        """Writes ``figures/PROFILE/NOTEBOOK/NAME.{svg,pdf,png,csv,json}``; ``data`` is what the figure shows.

        Caption and figure are told what the intervals cover, the seeds and the ``units``, unless these are None.
        """
        if units:
            figure.supxlabel(self.interval_note(units), fontsize=6)
        folder, key = self._folder(), self._key()
        files = save.save_figure(figure, folder, name, f"{self.notebook}: {name}", key)
        files.append(save.save_csv(data, folder, name))
        said: dict[str, Any] = {
            "caption": self._whole(caption, units),
            "notebook": self.notebook,
            "profile": self.profile_name,
        }
        said |= {"parameters": self.profile.model_dump(), "task_counts": self.counts(), "key": key}
        said |= {"stages": sorted(map(str, self._stages.values())), "read": self._read, **save.provenance()}
        said |= {"device": self.profile.device, "sha256": {path.name: sha256(path) for path in files}}
        self.outputs += [*files, save_json(said, folder / f"{name}.json")]

    def save_table(self, frame: pd.DataFrame, name: str, caption: str, units: str | None = "test prompts"):
        """Writes ``figures/PROFILE/tables/NOTEBOOK/NAME.{md,tex,csv}``; returns the table for a notebook to show."""
        folder = figures_folder() / self.profile_name / "tables" / self.notebook
        self.outputs += save.save_table(frame, folder, name, self._whole(caption, units))
        return readable(frame)

    def save_contrasts(self, contrasts: pd.DataFrame) -> None:
        """Writes ``figures/PROFILE/NOTEBOOK/contrasts.csv``: what arms differ by (:func:`weaklib.contrasts`), for the ledger of claims.

        Prints how small a difference in GRA they can decide.
        """
        self.outputs.append(save.save_csv(contrasts, self._folder(), "contrasts"))
        in_gra = contrasts[contrasts["metric"] == "gra"]
        half = 50 * (in_gra["ci_high"] - in_gra["ci_low"])
        print(
            f"{len(half)} differences in GRA: {(half <= AIM).sum()} are known to ±{AIM:g} points or better, half of them to "
            f"±{half.median():.1f}, the widest to ±{half.max():.1f}; smaller ones are not decided here"
        )

    def say(self, *sentences: str | Iterable[str]) -> None:
        """Prints findings as a list."""
        for sentence in sentences:
            for line in [sentence] if isinstance(sentence, str) else sentence:
                print("-", line)

    def finish(self) -> None:
        """The notebook's last word: writes the list of its outputs, by which ``reproduce`` knows that it succeeded."""
        outputs = {str(path): sha256(path) for path in self.outputs}
        record = {"notebook": self.notebook, "outputs": outputs, "stages": sorted(map(str, self._stages.values()))}
        save_json(record, runs_folder() / self.profile_name / f"{self.notebook}.json")
        print(f"{len(outputs)} files written, from {len(self._stages)} stages")

    def _folder(self) -> Path:
        return figures_folder() / self.profile_name / self.notebook

    def _whole(self, caption: str, units: str | None) -> str:
        p = self.profile
        tail = f"{p.objective.upper()}, β = {p.beta:g} unless said, profile {self.profile_name}"
        return f"{caption} {tail}" + (f"; {self.interval_note(units)}." if units else ".")

    def _key(self) -> str:
        """One key for everything the notebook has used."""
        return hashlib.sha256(" ".join(sorted([*self._stages, *self._read.values()])).encode()).hexdigest()[:24]
