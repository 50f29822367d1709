"""What a profile would run: the stages its notebooks ask for, those stored already, and the time the others take."""

import json
import statistics
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from io import StringIO

from weaklib import running
from weaklib.parameters import load_profile, notebook_path
from weaklib.paths import store_folder
from weaklib.stage import Stage, upstream
from weaklib.store import Store


def plan(profile: str, only: list[str], overrides: dict) -> dict:
    """Counts of stages, and seconds of work estimated from the stages that this store has timed.

    A stage is ``timed`` when one of its shape (all but the seeds) is stored, ``guessed`` from others of its name,
    or ``unknown``, and then adds nothing.
    """
    store = Store(store_folder())
    names = only or load_profile(profile, overrides).notebooks
    asked = {notebook_path(name).stem: stages_asked_for(name, profile, overrides) for name in names}
    distinct = upstream(stage for stages in asked.values() for stage in stages)
    to_run = running.missing_stages([stage for stages in asked.values() for stage in stages], store)
    estimates = _estimates(store, to_run)
    known = Counter(how for how, _ in estimates.values())
    seconds = {key: value for key, (_, value) in estimates.items()}
    by_stage = {}
    for name in dict.fromkeys(stage.name for stage in distinct):
        missing = [stage for stage in to_run if stage.name == name]
        by_stage[name] = {
            "distinct": sum(stage.name == name for stage in distinct),
            "to_run": len(missing),
            "seconds": round(sum(seconds[stage.key] for stage in missing), 1),
        }
    return {
        "profile": profile,
        "notebooks": {name: len(upstream(stages)) for name, stages in asked.items()},
        "asked_for": sum(len(upstream(stages)) for stages in asked.values()),
        "distinct": len(distinct),
        "stored": sum(map(store.has, distinct)),
        "to_run": len(to_run),
        "timed": known["timed"],
        "guessed": known["guessed"],
        "unknown": known["unknown"],
        "seconds": round(sum(seconds.values()), 1),
        "by_stage": by_stage,
    }


def as_text(planned: dict) -> str:
    lines = [f"{'stage':<12}{'distinct':>9}{'to run':>9}{'seconds':>10}"]
    for name, row in planned["by_stage"].items():
        lines.append(f"{name:<12}{row['distinct']:>9}{row['to_run']:>9}{row['seconds']:>10.0f}")
    lines.append(
        f"profile {planned['profile']}: {planned['asked_for']} stages asked for, {planned['distinct']} distinct, "
        f"{planned['stored']} stored already, {planned['to_run']} to run"
    )
    lines.append(
        f"about {planned['seconds'] / 60:.1f} minutes of work for one worker: {planned['timed']} stages timed here before, "
        f"{planned['guessed']} guessed from others of their name, {planned['unknown']} unknown and left out"
    )
    return "\n".join(lines)


def stages_asked_for(notebook: str, profile: str, overrides: dict) -> list[Stage]:
    """The stages that a notebook asks for: its cells up to the last one tagged ``run``, with nothing run."""
    cells = json.loads(notebook_path(notebook).read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    last = max(number for number, names in enumerate(tags) if "run" in names)
    namespace: dict = {}
    with running.recording() as recorded, redirect_stdout(StringIO()):
        for cell, names in zip(cells[: last + 1], tags):
            exec(compile("".join(cell["source"]), notebook, "exec"), namespace)
            if "parameters" in names:
                namespace |= {"profile": profile, "overrides": overrides}
    return recorded


def _estimates(store: Store, stages: list[Stage]) -> dict[str, tuple[str, float]]:
    """key → how it is known (``timed``, ``guessed`` or ``unknown``) and the seconds it may take."""
    by_shape, by_name = defaultdict(list), defaultdict(list)
    for record in store.records():
        by_shape[record["shape"]].append(record["seconds"])
        by_name[record["stage"]].append(record["seconds"])
    estimates = {}
    for stage in stages:
        if stage.shape in by_shape:
            estimates[stage.key] = ("timed", statistics.median(by_shape[stage.shape]))
        elif stage.name in by_name:
            estimates[stage.key] = ("guessed", statistics.median(by_name[stage.name]))
        else:
            estimates[stage.key] = ("unknown", 0.0)
    return estimates
