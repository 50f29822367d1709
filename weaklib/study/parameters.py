"""Parameters: a profile as ``params/PROFILE.yaml`` and a user's overrides give it.

Everything is checked here, before any stage runs: an unknown name, a wrong type or a value out of range raises
:class:`weaklib.data.errors.RequestError` with one line that names the file or option, the key and the value.
"""

import copy
import os
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from weaklib.arms.folders import PARAMS
from weaklib.data.errors import RequestError
from weaklib.study.profile import Profile


def load_profile(name: str, overrides: dict[str, Any] | None = None) -> Profile:
    """The profile ``name`` with ``overrides`` (dotted key → value) applied; the name of a sweep stands for its values.

    Raises:
        RequestError: no such profile, or a key or value of it or of the overrides is wrong.
    """
    path = PARAMS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PARAMS.glob("*.yaml")))
        raise RequestError(f"unknown profile {name!r}: there are {known}")
    values = read_profile(path)
    for key, value in (overrides or {}).items():
        _set(values, key, copy.deepcopy(value))  # what another key of the overrides changes is not the override itself
    task = values.get("task")
    if isinstance(task, dict) and task.get("kind") == "file" and task.get("path") is None:
        task["path"] = os.environ.get("WEAKLIB_HH_FILE")
        if not task["path"]:
            raise RequestError(
                "task.path: no preference file is named. Download harmless-base/test.jsonl.gz of the dataset "
                "Anthropic/hh-rlhf and give it by --set task.path=FILE or WEAKLIB_HH_FILE"
            )
    return validate(values, path, overrides or {})


def read_profile(path: Path) -> dict:
    """The values of a parameter file, not yet validated.

    Raises:
        RequestError: it cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise RequestError(f"{path}: a profile is a mapping of keys to values, this is a {type(values).__name__}")
    return values


def validate(values: dict, path: Path, overrides: dict[str, Any]) -> Profile:
    """The profile that ``values`` make; ``path`` and ``overrides`` are where they came from.

    Raises:
        RequestError: the first thing that is wrong, with its file and line or its override.
    """
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise RequestError(_one_line(error, path, overrides)) from None


def sweep(name: str, profile: str, overrides: dict[str, Any]) -> list:
    """The values of the sweep ``name``, each of them tried as a value of the key that it is swept over.

    Raises:
        RequestError: the profile lacks it, or it is no list of different values that its key can have.
    """
    keys, values = load_profile(profile, overrides).sweep(name)
    where = f"override {name}" if name in overrides else f"{PARAMS / profile}.yaml: sweeps.{name}"
    if not isinstance(values, list):
        raise RequestError(f"{where}: Input should be a valid list (got {values!r})")
    if not values:
        raise RequestError(f"{where}: List should have at least 1 item (got {values!r})")
    for number, value in enumerate(values):
        if value in values[:number]:
            raise RequestError(f"{where}: values repeat (got {values!r})")
        if len(keys) > 1 and not isinstance(value, list):
            raise RequestError(f"{where}.{number}: Input should be a valid list (got {value!r})")
        if len(keys) > 1 and len(value) != len(keys):
            raise RequestError(f"{where}.{number}: List should have at least {len(keys)} items (got {value!r})")
        try:
            load_profile(profile, overrides | dict(zip(keys, value if len(keys) > 1 else [value])))
        except RequestError as error:
            said = str(error)
            key = next((f"override {key}" for key in keys if said.startswith(f"override {key}")), None)
            raise RequestError(f"{where}.{number}" + (said.removeprefix(key) if key else f": {said}")) from None
    whole = bool(keys) and all(type(value) in (int, float) for value in values)
    return [float(value) for value in values] if whole else values  # numbers of a key are all of one type


def parse_value(text: Any) -> Any:
    """A value as a YAML file would give it; papermill and ``--set`` deliver strings."""
    return read_yaml(text, repr(text)) if isinstance(text, str) else text


def read_yaml(text: str, origin: str) -> Any:
    """YAML 1.2, so that ``1e-3`` is a number and ``yes`` is not a truth value; repeated keys are errors."""
    return copy.deepcopy(_read_yaml(text, origin))


@cache  # a sweep reads its profile once a point, and the parser is slow
def _read_yaml(text: str, origin: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}" if mark else origin
        raise RequestError(f"{where}: not YAML: {getattr(error, 'problem', error)}") from None


def _set(values: dict, dotted: str, value: Any) -> None:
    if dotted in (sweeps := values.get("sweeps") or {}):
        keys = list(sweeps[dotted]) if isinstance(sweeps[dotted], dict) else []
        sweeps[dotted] = {keys[0]: value} if keys and value is not None else value
        return
    *sections, last = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RequestError(f"override {dotted}: {section} is not a section")
    values[last] = value


def _one_line(error: ValidationError, path: Path, overrides: dict) -> str:
    first = error.errors(include_url=False)[0]
    # pydantic names the chosen kind of task as a step of the path; a user's key has no such step
    steps = [step for step in first["loc"] if step not in ("world", "file", "dataset")]
    key = ".".join(map(str, steps)) or "profile"
    given = any(key == k or key.startswith(f"{k}.") or k.startswith(f"{key}.") for k in overrides)
    where = f"override {key}" if given else f"{path}:{_line(path, steps)}: {key}"
    value = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f" (got {first['input']!r})"
    more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{value}{more}"


def _line(path: Path, steps: list) -> int:
    """The line of a key in a YAML file, counted from 1; of a missing key, that of its section."""
    node, line = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8")), 1
    for step in steps:
        try:
            line = (node.lc.item(step) if isinstance(step, int) else node.lc.key(step))[0] + 1
            node = node[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line
