"""``python -m weaklib``: the study from the command line."""

import argparse
import os
import sys
from pathlib import Path

from weaklib.parameters import RequestError, parse_value

FOLDERS = {"store": "WEAKLIB_STORE", "runs": "WEAKLIB_RUNS", "figures": "WEAKLIB_FIGURES"}


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the study failed, 2 the request was wrong."""
    options = _parser().parse_args(arguments)
    for name, variable in FOLDERS.items():
        if getattr(options, name) is not None:
            os.environ[variable] = str(Path(getattr(options, name)).absolute())
    try:
        return options.command(options)
    except RequestError as error:
        print(f"weaklib: {error}", file=sys.stderr)
        return 2


def _reproduce(options) -> int:
    from weaklib.reproduce import NotebookFailed, reproduce  # papermill and distributed take a second to import

    try:
        manifest = reproduce(options.profile, options.only, _overrides(options.set), options.workers, options.scheduler)
    except NotebookFailed as error:
        print(f"weaklib: {error}", file=sys.stderr)
        return 1
    print(f"done: {manifest}")
    return 0


def _overrides(settings: list[str]) -> dict:
    overrides = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise RequestError(f"--set {setting}: KEY=VALUE is needed")
        overrides[key] = parse_value(value)
    return overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m weaklib", description=__doc__.partition(": ")[2])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    reproduce = commands.add_parser("reproduce", help="run the notebooks of a profile: every figure and table")
    reproduce.set_defaults(command=_reproduce)
    reproduce.add_argument("--profile", default="sandbox", help="a file of params/ (default: %(default)s)")
    reproduce.add_argument("--only", nargs="+", default=[], metavar="NB", help="these notebooks only")
    reproduce.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override parameters")
    reproduce.add_argument("--workers", type=int, help="processes on this machine (default: its cores)")
    reproduce.add_argument("--scheduler", metavar="URL", help="use this Dask cluster instead")
    for name in FOLDERS:
        reproduce.add_argument(f"--{name}", metavar="DIR", help=f"default: {FOLDERS[name]}, or the repository's own")
    return parser


if __name__ == "__main__":
    sys.exit(main())
