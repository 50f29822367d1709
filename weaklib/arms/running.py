"""Running stages: tasks of a ``distributed`` client, each key once, with a progress bar."""

import importlib
import logging
import os
import re
import subprocess
import sys
import traceback
from contextlib import contextmanager, nullcontext

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, as_completed
from distributed.comm import resolve_address
from tqdm import tqdm

from weaklib.arms.stage import Stage, Store, upstream
from weaklib.data.errors import RequestError, StudyFailed

SCHEDULER = "WEAKLIB_SCHEDULER"  # the address of the cluster that `weaklib reproduce` shares among its notebooks
# What every worker's environment says before a library is imported: no traffic, no chatter, one thread a stage, which
# gives the same numbers on any number of cores: parallelism comes from many stages at once.
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
WORKER_ENVIRONMENT |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
WORKER_ENVIRONMENT |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
WORKER_ENVIRONMENT |= {"PYTHONWARNINGS": "ignore::FutureWarning"}


class StageFailed(Exception):
    """A stage raised an error: the study failed. IPython shows the worker's traceback, then our line."""

    def _render_traceback_(self) -> list[str]:
        return [*"".join(traceback.format_exception(self.__cause__)).splitlines(), f"StageFailed: {self}"]


recorded: list[Stage] | None = None  # a list: `run` runs nothing, and only notes in it what it is asked for
planning = False  # that is for a plan, perhaps of another machine: what only a run needs may be missing


@contextmanager
def cluster(workers: int | None = None, device: str = "cpu"):
    """A cluster on this machine: one process with one thread a worker, so that no result depends on their number.
    Where ``device`` is a GPU, a further worker for each one holds the resource ``GPU``, and sees no other."""
    options = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "silence_logs": logging.CRITICAL}
    own: list[dict] = [{}] * (workers or len(os.sched_getaffinity(0)))  # LocalCluster's are all alike
    if device != "cpu":
        own += [{"env": {"CUDA_VISIBLE_DEVICES": gpu}, "resources": {"GPU": 1}} for gpu in visible_gpus()]
    spec = {number: {"cls": Nanny, "options": options | more} for number, more in enumerate(own)}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}}
    # before the process starts, for libraries read it when they are loaded; a failing stage is reported by the client
    environment = {"distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT}
    with dask.config.set(environment):
        try:
            local = SpecCluster(spec, scheduler, silence_logs=logging.CRITICAL)
        except (OSError, RuntimeError) as error:
            first: BaseException = error
            while before := first.__cause__ or first.__context__:
                first = before
            needed = "each is a process that needs semaphores (/dev/shm) and a port of 127.0.0.1"
            raise StudyFailed(f"no worker can be started on this machine: {first!r}; {needed}") from None
        with local:
            yield local.scheduler_address


def visible_gpus() -> list[str]:
    """As ``CUDA_VISIBLE_DEVICES`` names them, or by ``nvidia-smi``'s identifiers; without importing torch."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    return re.findall(r"UUID: (GPU-[^)]+)", subprocess.getoutput("nvidia-smi --list-gpus"))


def check_scheduler(address: str, device: str = "cpu") -> None:
    """Raises RequestError where nothing answers, or a cluster without workers, or without one for stages on a GPU."""
    try:
        resolve_address(address)
        with Client(address, timeout=5, set_as_default=False) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
        problem = None if workers else "it has no workers"
        if workers and device != "cpu" and not any(worker["resources"].get("GPU") for worker in workers):
            problem = "no worker has the resource GPU=1; start workers with --resources GPU=1"
    except ValueError:
        problem = "an address like tcp://HOST:PORT is needed"
    except OSError:
        problem = "nothing answers there"
    if problem:
        raise RequestError(f"scheduler {address}: {problem}")


def run(stages, store: Store) -> bool:
    """Computes on the cluster at hand what of ``stages`` is not in ``store``, each key once. Returns whether it is: not
    while stages are only ``recorded``. Raises StageFailed, which names a stage that raised, and what it raised."""
    stages = list(stages)
    if recorded is not None:
        recorded.extend(stages)
        return False
    if not (missing := upstream(stages, store)):
        print(f"{len(upstream(stages))} stages, all stored already")
        return True
    gpu = {stage.key: {"GPU": 1} for stage in missing if stage.parameters.get("device", "cpu") != "cpu"}
    device, given = "cuda" if gpu else "cpu", os.environ.get(SCHEDULER)
    with nullcontext(given) if given else cluster(device=device) as address:
        check_scheduler(address, device)
        with Client(address, set_as_default=False) as client:
            futures: dict = {}
            for stage in missing:
                needed = [futures[other.key] for other in stage.inputs.values() if other.key in futures]
                options = {"key": str(stage), "pure": False, "resources": gpu.get(stage.key)}
                futures[stage.key] = client.submit(_compute, store, stage.record, needed, **options)
            done = as_completed(futures.values(), loop=client.loop)
            with tqdm(done, "stages", len(futures), unit="stage", file=sys.stdout, mininterval=1) as progress:
                for future in progress:
                    if error := future.exception():
                        raise StageFailed(f"stage {future.key}: {type(error).__name__}: {error}") from error
                    progress.set_postfix_str(future.key.split("/")[0], refresh=False)
    return True


def _compute(store: Store, stage: dict, _needed) -> None:
    os.environ.update(WORKER_ENVIRONMENT)  # an external worker may have come up with another
    if "device" in stage["parameters"]:
        importlib.import_module("torch").set_num_threads(1)
    store.compute(stage)
