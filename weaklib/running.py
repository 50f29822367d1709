"""Running stages: tasks of a ``distributed`` client, each key once, with a progress bar."""

import logging
import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import contextmanager

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, as_completed
from distributed.comm import get_address_host_port
from tqdm import tqdm

from weaklib import gpus
from weaklib.parameters import RequestError
from weaklib.stage import Stage, upstream
from weaklib.store import Store

# The address of the cluster that `python -m weaklib reproduce` shares among the notebooks it runs.
SCHEDULER = "WEAKLIB_SCHEDULER"

# What every worker's environment says before a library is imported: one thread, no traffic, no chatter.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore::FutureWarning",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # workers are daemons, which have no children
}


class StageFailed(Exception):
    """A stage raised an error: the study failed."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: the worker's traceback, then our line
        worker = traceback.format_exception(self.__cause__) if self.__cause__ else []
        return [*"".join(worker).splitlines(), f"StageFailed: {self}"]


_recorder: list[Stage] | None = None


@contextmanager
def recording():
    """Within it nothing runs: ``run`` only notes what it is asked for, in the list that this yields."""
    global _recorder
    _recorder = []
    try:
        yield _recorder
    finally:
        _recorder = None


def planning() -> bool:
    """Whether this is within :func:`recording`: nothing will run, so what only a run needs may be missing."""
    return _recorder is not None


@contextmanager
def cluster(workers: int | None = None, device: str = "cpu", gpus_of_a_stage: int = 1):
    """A cluster on this machine: one process with one thread a worker, so that no result depends on their number.

    Where ``device`` is a GPU, further workers hold the resource ``GPU``: one for every ``gpus_of_a_stage`` GPUs, and it sees
    no other.
    """
    options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.CRITICAL}
    count = workers or len(os.sched_getaffinity(0))
    spec = {f"cpu-{number}": {"cls": Nanny, "options": options} for number in range(count)}
    for number, ids in enumerate(gpus.groups(device, gpus_of_a_stage)):
        own = {"env": {"CUDA_VISIBLE_DEVICES": ids}, "resources": {"GPU": gpus_of_a_stage}}
        spec[f"gpu-{number}"] = {"cls": Nanny, "options": options | own}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}}
    # before the process starts: some libraries read the environment when they are loaded
    environment = dask.config.set({"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT})
    with (
        environment,
        # a failing stage is reported once, by the client
        SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL) as local,
    ):
        yield local.scheduler_address


def check_scheduler(address: str, gpus_of_a_stage: int = 0) -> None:
    """Raises:
    RequestError: nothing answers at ``address``, or a cluster without workers, or without one for stages of so many GPUs.
    """
    try:
        get_address_host_port(address)
        with Client(address, timeout=3, set_as_default=False) as client:
            _check_workers(client, address, gpus_of_a_stage)
    except ValueError:
        raise RequestError(f"scheduler {address}: an address like tcp://HOST:PORT is needed") from None
    except OSError:
        raise RequestError(f"scheduler {address}: nothing answers there") from None


def _check_workers(client: Client, address: str, gpus_of_a_stage: int) -> None:
    workers = client.scheduler_info()["workers"].values()
    if not workers:
        raise RequestError(f"scheduler {address}: it has no workers")
    if all(worker["resources"].get("GPU", 0) < gpus_of_a_stage for worker in workers):
        raise RequestError(
            f"scheduler {address}: no worker has the resource GPU={gpus_of_a_stage}; "
            f"start workers with --resources GPU={gpus_of_a_stage}"
        )


def run(stages: Iterable[Stage], store: Store) -> bool:
    """Bring the artifacts of ``stages`` into ``store``: what is missing, each key once, on the cluster at hand.

    Returns:
        whether they are there now; not so within :func:`recording`.

    Raises:
        StageFailed: a stage raised; the message names it and says why.
        RequestError: no worker has the GPUs that a stage needs.
    """
    stages = list(stages)
    if _recorder is not None:
        _recorder.extend(stages)
        return False
    missing = missing_stages(stages, store)
    if not missing:
        print(f"{len(upstream(stages))} stages, all stored already")
    elif address := os.environ.get(SCHEDULER):
        _run_on(address, missing, store)
    else:
        device = next((d for stage in missing if (d := stage.parameters.get("device", "cpu")) != "cpu"), "cpu")
        with cluster(device=device, gpus_of_a_stage=_most_gpus(missing) or 1) as address:
            _run_on(address, missing, store)
    return True


def missing_stages(stages: Iterable[Stage], store: Store) -> list[Stage]:
    """The stages to run, inputs first. What lies behind a stored artifact is not needed."""
    needed, waiting = {}, list(stages)
    while waiting:
        stage = waiting.pop()
        if stage.key not in needed and not store.has(stage):
            needed[stage.key] = stage
            waiting += stage.inputs.values()
    return [stage for stage in upstream(needed.values()) if stage.key in needed]


def _most_gpus(stages: list[Stage]) -> int:
    return max((gpus.needed(stage.parameters) for stage in stages), default=0)


def _run_on(address: str, missing: list[Stage], store: Store) -> None:
    with Client(address, set_as_default=False) as client:
        _check_workers(client, address, _most_gpus(missing))
        futures = {}
        for stage in missing:
            needed = [futures[other.key] for other in stage.inputs.values() if other.key in futures]
            resources = {"GPU": count} if (count := gpus.needed(stage.parameters)) else None
            futures[stage.key] = client.submit(
                _compute, store, stage.describe(), needed, key=str(stage), pure=False, resources=resources
            )
        with tqdm(total=len(futures), desc="stages", unit="stage", file=sys.stdout, mininterval=1) as progress:
            for future in as_completed(futures.values(), loop=client.loop):
                if future.status == "error":
                    error = future.exception()
                    raise StageFailed(f"stage {future.key}: {type(error).__name__}: {error}") from error
                progress.set_postfix_str(future.key.split("/")[0], refresh=False)
                progress.update()


def _compute(store: Store, stage: dict, _needed) -> None:
    # External workers may have come up with another environment; libraries read it when they are imported.
    os.environ.update(WORKER_ENVIRONMENT)
    store.compute(stage)
