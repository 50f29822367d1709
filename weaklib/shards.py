"""Shards: long work kept piece by piece, so that a stopped stage goes on after the last finished one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weaklib import files
from weaklib.scratch import scratch


@dataclass(frozen=True)
class Shards:
    """``every`` so many items are a shard, kept in the scratch of the stage that writes ``out``.

    Without ``every`` there are none, and nothing is kept. Work of one stage on two models has two ``name``s.
    """

    out: Path | None = None
    every: int | None = None
    name: str = "shards"

    def map(self, compute: Callable, items: list) -> list:
        """``compute(item)`` of each item, which must be what JSON holds: numbers are kept exactly."""
        if self.every is None:
            return [compute(item) for item in items]
        results = []
        for start in range(0, len(items), self.every):
            shard = items[start : start + self.every]
            file = scratch(self.out) / self.name / f"{start}-{start + len(shard)}.json"
            if not file.is_file():
                values = [compute(item) for item in shard]
                with files.aside(file.parent) as place:
                    (place / file.name).write_text(json.dumps(values), encoding="utf-8")
            results += json.loads(file.read_text(encoding="utf-8"))
        return results


AT_ONCE = Shards()
