"""What a profile would run: the stages its notebooks ask for, those stored already, the time the others take, and what all cost on a GPU."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import asdict, astuple, fields
from io import StringIO

import numpy as np

from weaklib import running
from weaklib.costs import GPUS, Cost, Costs
from weaklib.parameters import load_profile, notebook_path
from weaklib.paths import store_folder
from weaklib.stage import Stage, upstream
from weaklib.store import Store

# Columns of costs and their headings, as wide as they are printed.
_COLUMNS = {
    "parameters": "  parameters",
    "tokens": "    tokens",
    "flops": "     FLOPs",
    "peak_gib": "  peak GiB",
    "disk_gib": "  disk GiB",
    "scratch_gib": "  scratch GiB",
    "gpu_hours": "  GPU hours",
}
_HEADINGS = "".join(_COLUMNS.values())
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
# Of stages together the largest, not the sum: no two need to be there at once.
_LARGEST = ("parameters", "peak_gib", "scratch_gib")


def plan(profile: str, only: list[str], overrides: dict, gpu: str = "a100-80gb", utilisation: float = 0.4) -> dict:
    """Counts of stages, seconds of work estimated from the stages that this store has timed, and what :mod:`weaklib.costs` says of
    them on one ``gpu`` of its table at ``utilisation`` of the rates.

    In seconds a stage is ``timed`` when one of its shape (all but the seeds) is stored, ``guessed`` from others of its name and device,
    or ``unknown``, and then adds nothing. Costs that are not known, and sums with them, are None.
    """
    store, parameters = Store(store_folder()), load_profile(profile, overrides)
    names = only or parameters.notebooks
    asked = {notebook_path(name).stem: stages_asked_for(name, profile, overrides) for name in names}
    distinct = upstream(stage for stages in asked.values() for stage in stages)
    by_notebook = {name: upstream(stages) for name, stages in asked.items()}
    times_asked = Counter(stage.key for stages in by_notebook.values() for stage in stages)
    costs = Costs(parameters, GPUS[gpu], utilisation)
    cost = {stage.key: costs.of(stage) for stage in distinct}
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
            **_sum(cost[stage.key] for stage in distinct if stage.name == name),
        }
    return {
        "profile": profile,
        "notebooks": {name: len(stages) for name, stages in by_notebook.items()},
        "asked_for": times_asked.total(),
        "distinct": len(distinct),
        "stored": sum(map(store.has, distinct)),
        "to_run": len(to_run),
        "timed": known["timed"],
        "guessed": known["guessed"],
        "unknown": known["unknown"],
        "seconds": round(sum(seconds.values()), 1),
        "by_stage": by_stage,
        "gpu": {"name": gpu, **asdict(GPUS[gpu]), "utilisation": utilisation},
        "by_notebook": {
            name: _sum(cost[stage.key] for stage in stages)
            | {"shared": _sum(cost[stage.key] for stage in stages if times_asked[stage.key] > 1)}
            | {"shared_stages": sum(times_asked[stage.key] > 1 for stage in stages)}
            for name, stages in by_notebook.items()
        },
        "total": _sum(cost.values()),
        "total_to_run": _sum(cost[stage.key] for stage in to_run),
        "total_without_sharing": _sum(cost[stage.key] for stages in by_notebook.values() for stage in stages),
        "unknown_models": sorted({c.model for c in cost.values() if c.model and c.parameters != c.parameters}),
        "do_not_fit": _too_large(distinct, cost, GPUS[gpu].gib),
    }


def _sum(costs: Iterable[Cost]) -> dict[str, float | None]:
    """Costs of stages together: sums, but of memory the most at once and of models the largest; None if one of them is not known."""
    columns = [np.array(column) for column in zip(*(astuple(cost)[1:] for cost in [Cost(), *costs]))]
    merged = {
        field.name: (column.max if field.name in _LARGEST else column.sum)()
        for field, column in zip(fields(Cost)[1:], columns, strict=True)
    }
    return {name: None if np.isnan(value) else float(f"{value:.6g}") for name, value in merged.items()}


def _too_large(stages: list[Stage], cost: dict[str, Cost], gib: float) -> list[dict]:
    """For each stage name and model that does not fit on a GPU: the most memory it needs."""
    most: dict[tuple, float] = {}
    for stage in stages:
        needed = cost[stage.key]
        if needed.peak_gib > gib:
            most[stage.name, needed.model] = max(needed.peak_gib, most.get((stage.name, needed.model), 0))
    return [{"stage": name, "model": model, "peak_gib": round(peak, 1)} for (name, model), peak in most.items()]


def as_text(planned: dict) -> str:
    gpu = planned["gpu"]
    lines = [
        f"costs on one {gpu['name']} ({gpu['tera_flops']:.0f} TFLOP/s in bfloat16, {gpu['gib']} GiB) at a utilisation of "
        f"{gpu['utilisation']:g}; what weaklib/costs.py says they are",
        "",
        f"{'stage':<22}{'distinct':>9}{'to run':>9}{'seconds':>10}{_HEADINGS}",
    ]
    for name, row in planned["by_stage"].items():
        lines.append(f"{name:<22}{row['distinct']:>9}{row['to_run']:>9}{row['seconds']:>10.0f}{_columns(row)}")
    totals = {"total": "total", "still to run": "total_to_run", "without sharing": "total_without_sharing"}
    counts = planned["distinct"], planned["to_run"], planned["asked_for"]
    lines += [f"{title:<22}{n:>9}{'':>19}{_columns(planned[key])}" for (title, key), n in zip(totals.items(), counts)]
    lines += ["", f"{'notebook':<22}{'stages':>9}{'shared':>9}{'shared h':>10}{_HEADINGS}"]
    for name, row in planned["by_notebook"].items():
        shared = f"{row['shared_stages']:>9}{_short(row['shared']['gpu_hours']):>10}"
        lines.append(f"{name:<22}{planned['notebooks'][name]:>9}{shared}{_columns(row)}")
    lines += ["", *_remarks(planned)]
    lines.append(
        f"profile {planned['profile']}: {planned['asked_for']} stages asked for, {planned['distinct']} distinct, "
        f"{planned['stored']} stored already, {planned['to_run']} to run"
    )
    lines.append(
        f"about {planned['seconds'] / 60:.1f} minutes of work for one worker: {planned['timed']} stages timed here before, "
        f"{planned['guessed']} guessed from others of their name and device, {planned['unknown']} unknown and left out"
    )
    return "\n".join(lines)


def _remarks(planned: dict) -> list[str]:
    lines = []
    if too_large := planned["do_not_fit"]:
        names = ", ".join(f"{each['stage']} of {each['model']} ({each['peak_gib']:.0f} GiB)" for each in too_large)
        lines.append(
            f"does not fit on one {planned['gpu']['name']}: {names}: lower batch_tokens (of responses sampling.batch_tokens; for "
            "sft raise sft.gradient_accumulation_steps), or use hardware.gradient_checkpointing, lora, or hardware.gpus with fsdp or deepspeed"
        )
    if planned["unknown_models"]:
        lines.append(f"sizes unknown, and so what they cost: {', '.join(planned['unknown_models'])}")
    return lines


def _columns(row: dict) -> str:
    return "".join(f"{_short(row[name], name == 'flops'):>{len(title)}}" for name, title in _COLUMNS.items())


def _short(value: float | None, exponent: bool = False) -> str:
    """Three digits: 125M, 0.25, or 3.07e+18."""
    if value is None:
        return "unknown"
    if exponent:
        return f"{value:.2e}"
    size, unit = next((some for some in _UNITS if value >= some[0]), (1, ""))
    return f"{value / size:.3g}{unit}"


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
        by_name[record["stage"], record["parameters"].get("device")].append(record["seconds"])
    estimates = {}
    for stage in stages:
        like = stage.name, stage.parameters.get("device")
        if stage.shape in by_shape:
            estimates[stage.key] = ("timed", statistics.median(by_shape[stage.shape]))
        elif like in by_name:
            estimates[stage.key] = ("guessed", statistics.median(by_name[like]))
        else:
            estimates[stage.key] = ("unknown", 0.0)
    return estimates
