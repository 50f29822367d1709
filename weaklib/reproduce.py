"""Regenerating a profile: its notebooks run by papermill on one cluster, and a manifest written last."""

import contextlib
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from weaklib import gallery, preflight, running
from weaklib.costs import GPUS, Costs
from weaklib.files import save_json
from weaklib.parameters import RequestError, load_profile, notebook_path
from weaklib.paths import figures_folder, runs_folder, store_folder
from weaklib.plan import stages_asked_for
from weaklib.stage import Stage
from weaklib.store import Store

# Notebooks whose data are the other notebooks' figures.
READ_OTHERS = ("14_claims",)


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
    enabled = parameters.notebooks
    notebooks = [notebook_path(name) for name in only or enabled]
    if absent := [path.stem for path in notebooks if path.stem not in enabled]:
        raise RequestError(f"profile {profile!r} does not run {absent[0]}: {', '.join(enabled)}")
    folders = [store_folder(), figures_folder(), runs_folder()]
    preflight.check(parameters, folders, [path.stem for path in notebooks], elsewhere=scheduler is not None)
    if scheduler is not None:
        running.check_scheduler(scheduler, 0 if parameters.device == "cpu" else parameters.hardware.gpus)
    first = [path.stem for path in notebooks if path.stem not in READ_OTHERS]
    stages = [stage for name in first for stage in stages_asked_for(name, profile, overrides)]
    missing = running.missing_stages(stages, Store(store_folder()))
    at_once = workers or len(os.sched_getaffinity(0))
    preflight.enough_disk(store_folder(), Costs(parameters, GPUS["a100-80gb"]).disk(missing, at_once))

    folder = runs_folder() / profile
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.json"
    manifest.unlink(missing_ok=True)
    here = {"device": parameters.device, "gpus_of_a_stage": parameters.hardware.gpus}
    with running.cluster(workers, **here) if scheduler is None else contextlib.nullcontext(scheduler) as address:
        os.environ[running.SCHEDULER] = address
        records = _execute_all(notebooks, stages, folder, profile, overrides)
    page = str(gallery.write())
    return save_json({"profile": profile, "overrides": overrides, "notebooks": records, "page": page}, manifest)


def _execute_all(
    notebooks: list[Path], stages: list[Stage], folder: Path, profile: str, overrides: dict
) -> dict[str, dict]:
    """The record of each notebook. Of several, all stages run first, so that no worker waits for a notebook to draw, and the notebooks
    then side by side; those that read the others' data last.
    """
    first = [path for path in notebooks if path.stem not in READ_OTHERS]
    # a user's own IPython start-up files do not belong to the study
    with tempfile.TemporaryDirectory() as ipython, _environment(IPYTHONDIR=ipython):
        if len(notebooks) == 1:
            return {path.stem: _execute(path, folder, profile, overrides, sys.stdout) for path in notebooks}
        with contextlib.suppress(running.StageFailed):  # the notebook that needs it fails with it, and says where
            running.run(stages, Store(store_folder()))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            running_now = {path.stem: pool.submit(_execute, path, folder, profile, overrides) for path in first}
            try:
                records = {name: future.result() for name, future in running_now.items()}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        last = (path for path in notebooks if path not in first)
        return records | {path.stem: _execute(path, folder, profile, overrides) for path in last}


def _execute(notebook: Path, folder: Path, profile: str, overrides: dict, terminal: TextIO | None = None) -> dict:
    """Runs one notebook in a kernel of its own; its record is what it wrote as its last act. ``terminal`` shows what it prints."""
    import papermill  # takes a second or two, and a wrong request shall be told at once
    from papermill.exceptions import PapermillExecutionError

    record = folder / f"{notebook.stem}.json"
    record.unlink(missing_ok=True)
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            notebook,
            folder / notebook.name,
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
    print(f"{notebook.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    return json.loads(record.read_text(encoding="utf-8"))


@contextlib.contextmanager
def _environment(**variables: str):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
