"""Parameters: a profile as ``params/PROFILE.yaml`` and a user's overrides give it, checked before any stage runs."""

import copy
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError, conlist
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from weaklib.arms.folders import PARAMS
from weaklib.data.errors import RequestError
from weaklib.study.profile import Distinct, Profile


def load_profile(name: str, overrides: dict[str, Any] | None = None) -> Profile:
    """The profile ``name`` with ``overrides`` (of dotted keys or sweeps). Raises RequestError where one is wrong."""
    known = {path.stem: path for path in sorted(PARAMS.glob("*.yaml"))}
    if name not in known:
        raise RequestError(f"unknown profile {name!r}: there are {', '.join(known)}")
    return validate(known[name], overrides or {})


def validate(path: Path, overrides: dict[str, Any], at: list | None = None) -> Profile:
    """The profile of a file with ``overrides``. Raises RequestError at the line or override of an error, or ``at``."""
    values = copy.deepcopy(read_profile(path))
    for key, value in overrides.items():
        _set(values, key, copy.deepcopy(value))  # what another key of the overrides changes is not the override itself
    profile = _checked(Profile, values, lambda steps: _where(at or steps, path, overrides))
    for broken, said, *section in profile.rules():
        if broken:
            raise RequestError(f"{_where(at or section, path, overrides)}: {said}")
    return profile


def read_profile(path: Path) -> dict:
    """The values of a parameter file, not validated. Raises RequestError where it cannot be read, or is no mapping."""
    try:
        values = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(values, dict):
        raise RequestError(f"{path}: a profile is a mapping of keys to values, this is a {type(values).__name__}")
    return values


def sweep(name: str, profile: str, overrides: dict[str, Any]) -> list:
    """The values of the sweep ``name``, each of them tried as a value of the key that it is swept over.
    Raises RequestError where the profile lacks it, or it is no list of different values that its key can have.
    """
    path, (keys, values) = PARAMS / f"{profile}.yaml", load_profile(profile, overrides).sweep(name)
    count = len(keys)
    value = conlist(Any, min_length=count, max_length=count) if count > 1 else Any
    _checked(Distinct[value], values, lambda steps: _where(["sweeps", name, *steps], path, overrides))
    for number, value in enumerate(values):
        validate(path, overrides | dict(zip(keys, value if count > 1 else [value])), at=["sweeps", name, number])
    numbers = keys and all(type(value) in (int, float) for value in values)
    return [float(value) for value in values] if numbers else values  # numbers of a key are all of one type


def parse_value(text: Any) -> Any:
    """A value as a YAML file would give it; papermill and ``--set`` deliver strings."""
    return read_yaml(text, repr(text)) if isinstance(text, str) else text


@cache  # a sweep reads its profile once a point, and the parser is slow
def read_yaml(text: str, origin: str) -> Any:
    """YAML 1.2: ``1e-3`` is a number, ``yes`` no truth value, a repeated key an error. Not to be changed in place."""
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        where = f":{error.problem_mark.line + 1}" if hasattr(error, "problem_mark") else ""
        raise RequestError(f"{origin}{where}: not YAML: {getattr(error, 'problem', error)}") from None


def _set(values: dict, dotted: str, value: Any) -> None:
    if dotted in (sweeps := values.get("sweeps") or {}):
        swept = sweeps[dotted] if isinstance(sweeps[dotted], dict) else {}
        sweeps[dotted] = dict.fromkeys(swept, value) if swept and value is not None else value
        return
    *sections, last = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise RequestError(f"override {dotted}: {section} is not a section")
    values[last] = value


def _checked(kind: Any, value: Any, where) -> Any:
    """``value``, strictly as a ``kind``; of errors the first is told, ``where`` names its key."""
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first, more = error.errors(include_url=False)[0], error.error_count() - 1
        # pydantic names the chosen kind of task as a step of the path; a user's key has no such step
        steps = [step for step in first["loc"] if step not in ("world", "file", "dataset")]
        got = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f" (got {first['input']!r})"
        said = first["msg"].removeprefix("Value error, ") + got + (f"; and {more} more" if more else "")
        raise RequestError(f"{where(steps)}: {said}") from None


def _where(steps: Any, path: Path, overrides: dict) -> str:
    """The override that a key was given by, or its line in the file; of a missing key, that of its section."""
    key = ".".join(map(str, steps)) or "profile"
    name = key.removeprefix("sweeps.")
    if any(f"{name}.".startswith(f"{given}.") or given.startswith(f"{name}.") for given in overrides):
        return f"override {name}"
    node, line = YAML().load(path), 1
    with suppress(AttributeError, KeyError, IndexError, TypeError):
        for step in steps:
            line, node = node.lc.key(step)[0] + 1, node[step]
    return f"{path}:{line}: {key}"
