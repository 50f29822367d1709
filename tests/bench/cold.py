"""A notebook run anew, with a store of its own that is empty."""

import subprocess
import sys
import tempfile
import time


def cold_seconds(profile: str, notebook: str, *more: str, timeout: float | None = None) -> float:
    """Of the whole command, with the arguments ``more``.

    Raises:
        RuntimeError: it failed; its last line.
    """
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "weaklib", "reproduce", "--profile", profile, "--only", notebook]
        folders = [part for name in ("store", "runs", "figures") for part in (f"--{name}", f"{place}/{name}")]
        started = time.perf_counter()
        done = subprocess.run([*command, *folders, *more], capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
        return time.perf_counter() - started
