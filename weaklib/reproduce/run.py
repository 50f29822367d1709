"""What a profile would run, and running it: its notebooks by papermill on one cluster, and a manifest written last."""

import contextlib
import io
import json
import logging
import os
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pandas as pd

from weaklib.arms import running
from weaklib.arms.folders import NOTEBOOKS, figures_folder, runs_folder, store_folder
from weaklib.arms.stage import Stage, Store, upstream
from weaklib.data.errors import RequestError, StudyFailed
from weaklib.data.files import save_json
from weaklib.reproduce import gallery
from weaklib.study import checks
from weaklib.study.parameters import load_profile, sweep, validate


def notebook_path(name: str) -> Path:
    """The notebook ``name`` (with or without ``.ipynb``). Raises RequestError where there is none."""
    path = NOTEBOOKS / f"{name.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
        raise RequestError(f"unknown notebook {name!r}: there are {known}")
    return path


def stages_asked_for(notebook: str, profile: str, overrides: dict, plan: bool = False) -> list[Stage]:
    """The stages that a notebook asks for: its cells up to the last one tagged ``run``, or ``parameters`` and the one
    after it if none is, with nothing run. Raises RequestError where a parameter of it is wrong.
    """
    cells = json.loads(notebook_path(notebook).read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    last = max([tags.index(["parameters"]) + 1, *(number for number, names in enumerate(tags) if "run" in names)])
    namespace: dict = {}
    running.recorded, running.planning = [], plan
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for cell, names in zip(cells[: last + 1], tags):
                exec(compile("".join(cell["source"]), notebook, "exec"), namespace)
                if "parameters" in names:
                    namespace |= {"profile": profile, "overrides": overrides}
        return running.recorded
    finally:
        running.recorded, running.planning = None, False


def plan(profile: str, only: list[str], overrides: dict) -> dict:
    """Counts of stages, and seconds of work for one worker: a stage's time is that of stages of the same kind and size
    (all but the seeds) that this store has timed. Where any to run has none, its kind's and the whole time are None.
    """
    store, names = Store(store_folder()), only or load_profile(profile, overrides).notebooks
    asked = {notebook_path(name).stem: stages_asked_for(name, profile, overrides, plan=True) for name in names}
    by_notebook = {name: upstream(stages) for name, stages in asked.items()}
    times_asked = Counter(stage.key for stages in by_notebook.values() for stage in stages)
    every = [stage for stages in asked.values() for stage in stages]
    distinct, to_run = upstream(every), upstream(every, store)
    records = [json.loads(file.read_text(encoding="utf-8")) for file in store.root.glob("*/*/stage.json")]
    timed = pd.DataFrame(records, columns=["shape", "seconds"]).groupby("shape")["seconds"].median()
    by_stage = {}
    for name, count in Counter(stage.name for stage in distinct).items():
        times = [timed.get(stage.record["shape"]) for stage in to_run if stage.name == name]
        unknown = times.count(None)
        seconds = None if unknown else round(sum(times), 1)
        by_stage[name] = {"distinct": count, "to_run": len(times), "unknown": unknown, "seconds": seconds}
    unknown = sum(row["unknown"] for row in by_stage.values())
    return {
        "profile": profile,
        "notebooks": {name: len(stages) for name, stages in by_notebook.items()},
        "shared": {name: sum(times_asked[s.key] > 1 for s in stages) for name, stages in by_notebook.items()},
        "asked_for": times_asked.total(),
        "distinct": len(distinct),
        "stored": sum(store.folder(stage).is_dir() for stage in distinct),
        "to_run": len(to_run),
        "unknown": unknown,
        "seconds": None if unknown else round(sum(row["seconds"] for row in by_stage.values()), 1),
        "by_stage": by_stage,
    }


def as_text(planned: dict) -> str:
    lines = [f"{'stage':<22}{'distinct':>9}{'to run':>9}{'seconds':>10}"]
    for name, row in planned["by_stage"].items():
        seconds = "unknown" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(f"{name:<22}{row['distinct']:>9}{row['to_run']:>9}{seconds:>10}")
    lines += ["", f"{'notebook':<22}{'stages':>9}{'shared':>9}"]
    lines += [f"{name:<22}{count:>9}{planned['shared'][name]:>9}" for name, count in planned["notebooks"].items()]
    counts = "{asked_for} stages asked for, {distinct} distinct, {stored} stored already, {to_run} to run"
    time = f"time unknown: this machine has timed no stage of the kind and size of {planned['unknown']} of them"
    if planned["seconds"] is not None:
        time = f"about {planned['seconds'] / 60:.1f} minutes of work for one worker, as timed here"
    return "\n".join([*lines, "", f"profile {planned['profile']}: {counts.format(**planned)}", time])


def show_plan(profile: str, only: list[str], overrides: dict, as_json: bool) -> None:
    planned = plan(profile, only, overrides)
    print(json.dumps(planned, indent=1) if as_json else as_text(planned))


def reproduce(profile: str, only: list[str], overrides: dict, workers: int | None, scheduler: str | None) -> Path:
    """Runs the notebooks of ``profile`` (or ``only`` some). Returns the manifest, there only if all came to their ends.
    Raises RequestError for a wrong request (nothing has been run), and StudyFailed with the notebook, cell and stage.
    """
    parameters = load_profile(profile, overrides)
    notebooks = [notebook_path(name) for name in only or parameters.notebooks]
    if absent := [path.stem for path in notebooks if path.stem not in parameters.notebooks]:
        raise RequestError(f"profile {profile!r} does not run {absent[0]}: {', '.join(parameters.notebooks)}")
    if scheduler is not None:
        running.check_scheduler(scheduler, parameters.device)
        os.environ[running.SCHEDULER] = scheduler
    # each notebook checks its own parameters, too, but drawing libraries take a second to import
    for name in [key for key in overrides if parameters.sweeps.get(key) is not None]:
        sweep(name, profile, overrides)
    checks.check(parameters, elsewhere=scheduler is not None)
    asked = {path: stages_asked_for(path.stem, profile, overrides) for path in notebooks}
    manifest = runs_folder() / profile / "manifest.json"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)
    own = running.cluster(workers, parameters.device) if scheduler is None else contextlib.nullcontext(scheduler)
    with own as address:
        os.environ[running.SCHEDULER] = address
        record = {"profile": profile, "overrides": overrides}
        record |= {"notebooks": _execute_all(asked, manifest.parent, record)}
    print(f"done: {save_json(record | {'page': str(gallery.write())}, manifest)}")
    return manifest


def _execute_all(asked: dict[Path, list], folder: Path, parameters: dict) -> dict[str, dict]:
    """The record of each notebook. Of several, all stages run first, so that no worker waits for a notebook to draw,
    then the notebooks side by side; those that ask for no stage read what the others have written, and come last.
    """
    alone = len(asked) == 1
    execute = partial(_execute, folder, parameters, sys.stdout if alone else None)
    first, last = ([path for path, stages in asked.items() if bool(stages) is runs] for runs in (True, False))
    if not alone:
        with contextlib.suppress(running.StageFailed):  # the notebook that needs it fails with it, and says where
            running.run([stage for stages in asked.values() for stage in stages], Store(store_folder()))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        side_by_side = map if alone else pool.map  # a single one can be interrupted
        records = [*side_by_side(execute, first), *map(execute, last)]
    return dict(zip([path.stem for path in [*first, *last]], records))


def _execute(folder: Path, parameters: dict, terminal, notebook: Path) -> dict:
    """Runs a notebook in a kernel of its own, and shows what it prints; its record is what it wrote as its last act."""
    import nbformat  # these take a second or two, and a wrong request shall be told at once
    import papermill
    from nbclient.exceptions import DeadKernelError

    record, executed = folder / f"{notebook.stem}.json", folder / notebook.name
    record.unlink(missing_ok=True)
    started = time.perf_counter()
    # a user's own IPython start-up files do not belong to the study
    with tempfile.TemporaryDirectory() as ipython:
        kernel = ["--log-level=CRITICAL", f"--ipython-dir={ipython}"]
        options = {"progress_bar": False, "stdout_file": terminal, "extra_arguments": kernel}
        options["coalesce_streams"] = True  # a progress bar is one line of the stored notebook, not hundreds
        logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say is said in one line below
        logging.getLogger("traitlets").setLevel(logging.CRITICAL)
        # papermill fills in what stands in braces, of which a folder's name may have some
        paths = (re.sub(r"[{}]", r"\g<0>\g<0>", str(path)) for path in (notebook, executed))
        try:
            papermill.execute_notebook(*paths, parameters, **options)
        except DeadKernelError:
            cells = nbformat.read(executed, as_version=4).cells if executed.is_file() else []
            begun = [cell.execution_count for cell in cells if cell.get("execution_count")]
            where = f"{notebook.stem}, cell [{max(begun, default=0) + 1}]"
            raise StudyFailed(f"{where}: its process was killed, for want of memory perhaps; see {executed}") from None
        except papermill.PapermillExecutionError as error:
            if error.ename == "RequestError":
                raise RequestError(error.evalue) from None
            cell = f"{notebook.stem}, cell [{error.exec_count}]"
            raise StudyFailed(f"{cell}: {error.ename}: {error.evalue}") from None
    # Papermill calls a notebook completed whose kernel has died or that left early; only its record tells.
    if not record.is_file():
        raise StudyFailed(f"{notebook.stem} did not come to its end: it wrote no record of its outputs")
    # a notebook shows the figures committed beside it; executed, those that it has drawn, from where it lies now
    here = os.path.relpath(figures_folder() / parameters["profile"], folder)
    text = re.sub(r"\]\(\.\./figures/[^/]+/", lambda _: f"]({here}/", executed.read_text(encoding="utf-8"))
    executed.write_text(text, encoding="utf-8")
    print(f"{notebook.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    return json.loads(record.read_text(encoding="utf-8"))


def check_files(files: list[str]) -> None:
    wrong = []
    for path in map(Path, files):
        try:
            validate(path, {})
            print(f"{path}: valid")
        except RequestError as error:
            wrong.append(str(error))
    if wrong:
        raise RequestError("\nweaklib: ".join(wrong))
