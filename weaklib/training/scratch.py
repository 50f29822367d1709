"""Scratch: where a stage keeps what lets it go on after a stop, checkpoints and finished shards."""

from pathlib import Path


def scratch(out: Path) -> Path:
    """The scratch folder of the stage that writes ``out``, made on first use.

    It outlives a kill and an error, the next attempt at the same stage finds it again, and the store removes it when the
    stage is done.
    """
    folder = scratch_of(out)
    folder.mkdir(exist_ok=True)
    return folder


def scratch_of(out: Path) -> Path:
    """Where that folder is, if it has been made."""
    return out.with_name(f"{out.name}.scratch")
