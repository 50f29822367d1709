"""What a profile would run: the stages its notebooks ask for, those stored already, and the time the others take."""

import json
import statistics
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from weaklib.arms import running
from weaklib.arms.folders import NOTEBOOKS, store_folder
from weaklib.arms.stage import Stage, upstream
from weaklib.arms.store import Store
from weaklib.data.errors import RequestError
from weaklib.study.parameters import load_profile


def notebook_path(name: str) -> Path:
    """The notebook ``name`` (with or without ``.ipynb``).

    Raises:
        RequestError: there is no such notebook.
    """
    path = NOTEBOOKS / f"{name.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
        raise RequestError(f"unknown notebook {name!r}: there are {known}")
    return path


def plan(profile: str, only: list[str], overrides: dict) -> dict:
    """Counts of stages, and seconds of work for one worker.

    A stage's time is that of stages of the same kind and size (all but the seeds) that this store has timed. Where any stage to run has
    none, the time of its kind and that of the whole are unknown: None.
    """
    store, names = Store(store_folder()), only or load_profile(profile, overrides).notebooks
    asked = {notebook_path(name).stem: stages_asked_for(name, profile, overrides, plan=True) for name in names}
    by_notebook = {name: upstream(stages) for name, stages in asked.items()}
    times_asked = Counter(stage.key for stages in by_notebook.values() for stage in stages)
    distinct = upstream(stage for stages in asked.values() for stage in stages)
    to_run = running.missing_stages([stage for stages in asked.values() for stage in stages], store)
    timed = defaultdict(list)
    for record in store.records():
        timed[record["shape"]].append(record["seconds"])
    by_stage = {}
    for name in dict.fromkeys(stage.name for stage in distinct):
        missing = [stage for stage in to_run if stage.name == name]
        known = [statistics.median(timed[stage.shape]) for stage in missing if stage.shape in timed]
        by_stage[name] = {
            "distinct": sum(stage.name == name for stage in distinct),
            "to_run": len(missing),
            "unknown": len(missing) - len(known),
            "seconds": round(sum(known), 1) if len(known) == len(missing) else None,
        }
    times = [row["seconds"] for row in by_stage.values()]
    return {
        "profile": profile,
        "notebooks": {name: len(stages) for name, stages in by_notebook.items()},
        "shared": {name: sum(times_asked[s.key] > 1 for s in stages) for name, stages in by_notebook.items()},
        "asked_for": times_asked.total(),
        "distinct": len(distinct),
        "stored": sum(map(store.has, distinct)),
        "to_run": len(to_run),
        "unknown": sum(row["unknown"] for row in by_stage.values()),
        "seconds": None if None in times else round(sum(times), 1),
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
    lines += ["", f"profile {planned['profile']}: {counts.format(**planned)}"]
    if planned["seconds"] is None:
        lines.append(
            f"time unknown: this machine has timed no stage of the kind and size of {planned['unknown']} of them"
        )
    else:
        lines.append(f"about {planned['seconds'] / 60:.1f} minutes of work for one worker, as timed here")
    return "\n".join(lines)


def stages_asked_for(notebook: str, profile: str, overrides: dict, plan: bool = False) -> list[Stage]:
    """The stages that a notebook asks for: its cells up to the last one tagged ``run``, or ``parameters`` and the one after it if none
    is, with nothing run.

    Raises:
        RequestError: a parameter of it is wrong.
    """
    cells = json.loads(notebook_path(notebook).read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    last = max([tags.index(["parameters"]) + 1, *(number for number, names in enumerate(tags) if "run" in names)])
    namespace: dict = {}
    with running.recording(plan) as recorded, redirect_stdout(StringIO()):
        for cell, names in zip(cells[: last + 1], tags):
            exec(compile("".join(cell["source"]), notebook, "exec"), namespace)
            if "parameters" in names:
                namespace |= {"profile": profile, "overrides": overrides}
    return recorded
