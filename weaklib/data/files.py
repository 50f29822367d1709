"""Files that are whole or absent."""

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def aside(folder: Path):
    """Yields a folder to write into; its files replace those of ``folder`` only when all of them are written."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".aside-", dir=folder) as place:
        yield Path(place)
        for file in sorted(Path(place).iterdir()):
            file.replace(folder / file.name)


def save_json(content: dict, path: Path) -> Path:
    with aside(path.parent) as place:
        (place / path.name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_folder(name: str) -> Path | None:
    """The folder that ``name`` means, there or not; ``None`` where it is a hub id (``owner/name``)."""
    folder = Path(name).expanduser()
    hub_id = name.count("/") == 1 and not folder.is_absolute() and not name.startswith((".", "~"))
    return None if hub_id and not folder.is_dir() else folder
