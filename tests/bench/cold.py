"""Whole commands, timed: notebooks run anew, by default with a store of their own that is empty."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

GIB = 2**30


def cold_seconds(profile: str, notebook: str, *more: str, timeout: float | None = None) -> float:
    """Of one notebook, with the arguments ``more``. Errors as :func:`timed`."""
    return timed(profile, "--only", notebook, *more, timeout=timeout)["seconds"]


def timed(profile: str, *more: str, store: Path | None = None, timeout: float | None = None) -> dict:
    """``weaklib reproduce`` with the arguments ``more``; its figures are thrown away.

    Returns:
        ``seconds``, ``peak_gib`` (the processes' memory together, what they share counted once, looked at every second) and
        ``stages_run``.

    Raises:
        RuntimeError: it failed; its last line.
        subprocess.TimeoutExpired: it took longer than ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as place:
        folders = {
            "store": store or Path(place, "store"),
            "runs": Path(place, "runs"),
            "figures": Path(place, "figures"),
        }
        options = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
        stored, peak, started = _stored(folders["store"]), 0, time.perf_counter()
        command = [sys.executable, "-m", "weaklib", "reproduce", "--profile", profile, *options, *more]
        with open(Path(place, "said"), "w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as running:
            while running.poll() is None:
                peak = max(peak, _memory(running.pid))
                try:
                    running.wait(1)
                except subprocess.TimeoutExpired:
                    if timeout and time.perf_counter() - started > timeout:
                        running.kill()
                        raise
            seconds = time.perf_counter() - started
            said.seek(0)
            if running.returncode:
                raise RuntimeError(said.read().strip().rpartition("\n")[2])
        return {
            "seconds": round(seconds, 1),
            "peak_gib": round(peak / GIB, 2),
            "stages_run": _stored(folders["store"]) - stored,
        }


def _stored(store: Path) -> int:
    return sum(1 for _ in store.glob("*/*/stage.json"))


def _memory(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except (psutil.Error, AttributeError):  # gone meanwhile, or a system that does not say
                continue
    except psutil.Error:
        pass
    return total
