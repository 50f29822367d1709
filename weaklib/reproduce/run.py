"""Regenerating a profile: its notebooks run by papermill on one cluster, and a manifest written last."""

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from weaklib.arms import running
from weaklib.arms.folders import figures_folder, runs_folder, store_folder
from weaklib.arms.stage import Stage
from weaklib.arms.store import Store
from weaklib.data.errors import RequestError
from weaklib.data.files import aside, save_json
from weaklib.reproduce import gallery
from weaklib.reproduce.plan import notebook_path, stages_asked_for
from weaklib.study import checks
from weaklib.study.parameters import load_profile, sweep


class NotebookFailed(Exception):
    """A notebook did not get to its end."""


def reproduce(profile: str, only: list[str], overrides: dict, workers: int | None, scheduler: str | None) -> Path:
    """Runs the notebooks of ``profile`` (or those of ``only``) headlessly.

    Returns:
        the manifest, ``runs/PROFILE/manifest.json``: it exists only if every notebook came to its end.

    Raises:
        RequestError: an unknown profile, notebook or parameter; nothing has been run.
        NotebookFailed: says which notebook, cell and stage.
    """
    parameters = load_profile(profile, overrides)
    notebooks = [notebook_path(name) for name in only or parameters.notebooks]
    if absent := [path.stem for path in notebooks if path.stem not in parameters.notebooks]:
        raise RequestError(f"profile {profile!r} does not run {absent[0]}: {', '.join(parameters.notebooks)}")
    if scheduler is not None:
        running.check_scheduler(scheduler, parameters.device)
        os.environ[running.SCHEDULER] = scheduler
    # each notebook checks its own parameters, too, but drawing libraries take a second to import
    for name in set(overrides) & set(name for name, values in parameters.sweeps.items() if values is not None):
        sweep(name, profile, overrides)
    checks.check(parameters, [store_folder(), figures_folder(), runs_folder()], elsewhere=scheduler is not None)
    asked = {path: stages_asked_for(path.stem, profile, overrides) for path in notebooks}

    folder = runs_folder() / profile
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    manifest.unlink(missing_ok=True)
    own = running.cluster(workers, parameters.device) if scheduler is None else contextlib.nullcontext(scheduler)
    with own as address:
        os.environ[running.SCHEDULER] = address
        records = _execute_all(asked, folder, profile, overrides)
    page = str(gallery.write())
    return save_json({"profile": profile, "overrides": overrides, "notebooks": records, "page": page}, manifest)


def _execute_all(asked: dict[Path, list[Stage]], folder: Path, profile: str, overrides: dict) -> dict[str, dict]:
    """The record of each notebook. Of several, all stages run first, so that no worker waits for a notebook to draw, and the notebooks
    then side by side; those that ask for no stage read what the others have written, and come last.
    """
    first, last = ([path for path, stages in asked.items() if bool(stages) is runs] for runs in (True, False))
    # a user's own IPython start-up files do not belong to the study
    with tempfile.TemporaryDirectory() as ipython, _environment(IPYTHONDIR=ipython):
        if len(asked) == 1:
            return {path.stem: _execute(path, folder, profile, overrides, sys.stdout) for path in asked}
        with contextlib.suppress(running.StageFailed):  # the notebook that needs it fails with it, and says where
            running.run([stage for stages in asked.values() for stage in stages], Store(store_folder()))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            running_now = {path.stem: pool.submit(_execute, path, folder, profile, overrides) for path in first}
            try:
                records = {name: future.result() for name, future in running_now.items()}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return records | {path.stem: _execute(path, folder, profile, overrides) for path in last}


def _execute(notebook: Path, folder: Path, profile: str, overrides: dict, terminal: TextIO | None = None) -> dict:
    """Runs one notebook in a kernel of its own; its record is what it wrote as its last act. ``terminal`` shows what it prints."""
    import papermill  # takes a second or two, and a wrong request shall be told at once
    from papermill.exceptions import PapermillExecutionError

    record, executed = folder / f"{notebook.stem}.json", folder / notebook.name
    record.unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            {"profile": profile, "overrides": overrides},
            progress_bar=False,
            stdout_file=terminal,
            coalesce_streams=True,  # a progress bar is one line of the stored notebook, not hundreds
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own chatter
        )
    except PapermillExecutionError as error:
        if error.ename == "RequestError":
            raise RequestError(error.evalue) from None
        what = f"{error.ename}: {error.evalue}"
        raise NotebookFailed(f"{notebook.stem}, cell [{error.exec_count}]: {what}") from None
    # Papermill calls a notebook completed whose kernel has died or that left early; only its record tells.
    if not record.is_file():
        raise NotebookFailed(f"{notebook.stem} did not come to its end: it wrote no record of its outputs")
    _show_own_pictures(executed, profile)
    print(f"{notebook.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    return json.loads(record.read_text(encoding="utf-8"))


def _show_own_pictures(executed: Path, profile: str) -> None:
    """A notebook shows the figures committed beside it; executed, it shows those that it has drawn, from where it lies now."""
    here = os.path.relpath(figures_folder() / profile, executed.parent)
    text = executed.read_text(encoding="utf-8")
    with aside(executed.parent) as place:
        moved = re.sub(r"\]\(\.\./figures/[^/]+/", lambda _: f"]({here}/", text)
        (place / executed.name).write_text(moved, encoding="utf-8")


@contextlib.contextmanager
def _environment(**variables: str):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
