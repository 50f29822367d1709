"""What a profile would run: the stages its notebooks ask for, those stored already, and the time the others take."""

import statistics
from collections import defaultdict
from contextlib import redirect_stdout
from io import StringIO

import nbformat

from weaklib import running
from weaklib.parameters import load_profile, notebook_path
from weaklib.paths import store_folder
from weaklib.stage import Stage, upstream
from weaklib.store import Store


def plan(profile: str, only: list[str], overrides: dict) -> dict:
    """Counts of stages, and seconds of work estimated from the stages that this store has timed.

    A stage takes what stored ones of its shape (all but the seeds) took, else what others of its name did; with neither it
    is counted under ``untimed`` and adds nothing.
    """
    store = Store(store_folder())
    names = only or load_profile(profile, overrides).notebooks
    asked = {notebook_path(name).stem: _asked_for(name, profile, overrides) for name in names}
    distinct = upstream(stage for stages in asked.values() for stage in stages)
    to_run = running.missing_stages([stage for stages in asked.values() for stage in stages], store)
    seconds = _estimates(store, to_run)
    by_stage = {}
    for name in dict.fromkeys(stage.name for stage in distinct):
        missing = [stage for stage in to_run if stage.name == name]
        by_stage[name] = {
            "distinct": sum(stage.name == name for stage in distinct),
            "to_run": len(missing),
            "seconds": round(sum(seconds[stage.key] or 0 for stage in missing), 1),
        }
    return {
        "profile": profile,
        "notebooks": {name: len(upstream(stages)) for name, stages in asked.items()},
        "asked_for": sum(len(upstream(stages)) for stages in asked.values()),
        "distinct": len(distinct),
        "stored": sum(map(store.has, distinct)),
        "to_run": len(to_run),
        "untimed": sum(value is None for value in seconds.values()),
        "seconds": round(sum(value or 0 for value in seconds.values()), 1),
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
    untimed = f"; {planned['untimed']} of a kind never timed here are not in it" if planned["untimed"] else ""
    lines.append(f"about {planned['seconds'] / 60:.1f} minutes of work for one worker{untimed}")
    return "\n".join(lines)


def _asked_for(notebook: str, profile: str, overrides: dict) -> list[Stage]:
    """The stages that a notebook asks for: its cells up to the last one tagged ``run``, with nothing run."""
    cells = [cell for cell in nbformat.read(notebook_path(notebook), as_version=4).cells if cell.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in cells]
    last = max(number for number, names in enumerate(tags) if "run" in names)
    namespace: dict = {}
    with running.recording() as recorded, redirect_stdout(StringIO()):
        for cell, names in zip(cells[: last + 1], tags):
            try:
                exec(compile(cell.source, notebook, "exec"), namespace)
            except running.Recorded:
                pass
            if "parameters" in names:
                namespace |= {"profile": profile, "overrides": overrides}
    return recorded


def _estimates(store: Store, stages: list[Stage]) -> dict[str, float | None]:
    by_shape, by_name = defaultdict(list), defaultdict(list)
    for record in store.records():
        by_shape[record["shape"]].append(record["seconds"])
        by_name[record["stage"]].append(record["seconds"])
    known = [by_shape.get(stage.shape) or by_name.get(stage.name) for stage in stages]
    return {stage.key: statistics.median(times) if times else None for stage, times in zip(stages, known)}
