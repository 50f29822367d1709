"""``python -m weaklib``: the study from the command line."""

import argparse
import json
import os
import sys
from pathlib import Path

from weaklib.data.errors import RequestError
from weaklib.study.parameters import parse_value, read_profile, validate

FOLDERS = {"store": "WEAKLIB_STORE", "runs": "WEAKLIB_RUNS", "figures": "WEAKLIB_FIGURES"}


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done and verified, 1 the study failed, 2 the request was wrong."""
    options = _parser().parse_args(arguments)
    for name, variable in FOLDERS.items():
        if getattr(options, name, None) is not None:
            os.environ[variable] = str(Path(getattr(options, name)).absolute())
    try:
        return options.command(options)
    except RequestError as error:
        print(f"weaklib: {error}", file=sys.stderr)
        return 2


def _reproduce(options) -> int:
    from weaklib.reproduce.run import NotebookFailed, reproduce  # papermill and distributed take a second to import

    try:
        manifest = reproduce(options.profile, options.only, _overrides(options.set), options.workers, options.scheduler)
    except NotebookFailed as error:
        print(f"weaklib: {error}", file=sys.stderr)
        return 1
    print(f"done: {manifest}")
    return 0


def _plan(options) -> int:
    from weaklib.reproduce.plan import as_text, plan

    planned = plan(options.profile, options.only, _overrides(options.set))
    print(json.dumps(planned, indent=1) if options.json else as_text(planned))
    return 0


def _verify(options) -> int:
    from weaklib.reproduce.verify import verify  # pandas

    comparisons = verify(options.profile)
    print(*comparisons, sep="\n")
    failed = [comparison.file for comparison in comparisons if not comparison.verified]
    if failed:
        print(f"weaklib: not verified: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _cite(options) -> int:
    from weaklib.reproduce.cite import cite

    print(cite(options.figure, options.profile))
    return 0


def _check(options) -> int:
    wrong = []
    for path in map(Path, options.files):
        try:
            validate(read_profile(path), path, {})
            print(f"{path}: valid")
        except RequestError as error:
            wrong.append(error)
    for error in wrong:
        print(f"weaklib: {error}", file=sys.stderr)
    return 2 if wrong else 0


def _overrides(settings: list[str]) -> dict:
    overrides = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise RequestError(f"--set {setting}: KEY=VALUE is needed")
        overrides[key] = parse_value(value)
    return overrides


class _Parser(argparse.ArgumentParser):
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, allow_abbrev=False, **settings)

    def error(self, message):  # one line, like every other wrong request
        self.exit(2, f"weaklib: {message}\n")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, not {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m weaklib", description=__doc__.partition(": ")[2])
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--profile", default="sandbox", help="a file of params/ (default: %(default)s)")
    asked.add_argument("--only", nargs="+", default=[], metavar="NB", help="these notebooks only")
    asked.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override parameters")
    asked.add_argument("--store", metavar="DIR", help="default: WEAKLIB_STORE, or artifacts/ of the repository")

    reproduce = commands.add_parser(
        "reproduce", parents=[asked], help="run the notebooks of a profile: every figure and table"
    )
    reproduce.set_defaults(command=_reproduce)
    reproduce.add_argument("--workers", type=_positive, help="processes on this machine (default: its cores)")
    reproduce.add_argument("--scheduler", metavar="URL", help="use this Dask cluster instead")
    reproduce.add_argument("--figures", metavar="DIR", help="default: WEAKLIB_FIGURES, or figures/ of the repository")
    reproduce.add_argument("--runs", metavar="DIR", help="default: WEAKLIB_RUNS, or runs/ of the repository")

    plan = commands.add_parser("plan", parents=[asked], help="what would run, and how long")
    plan.set_defaults(command=_plan)
    plan.add_argument("--json", action="store_true", help="as JSON")

    verify = commands.add_parser("verify", help="regenerated figure data against the committed")
    verify.set_defaults(command=_verify)
    verify.add_argument("--profile", default="sandbox", help="a file of params/ (default: %(default)s)")
    verify.add_argument("--figures", metavar="DIR", help="default: WEAKLIB_FIGURES, or figures/ of the repository")

    cite = commands.add_parser("cite", help="caption, BibTeX and provenance of a figure")
    cite.set_defaults(command=_cite)
    cite.add_argument("figure", metavar="NOTEBOOK/NAME")
    cite.add_argument("--profile", default="sandbox", help="a folder of the figures (default: %(default)s)")
    cite.add_argument("--figures", metavar="DIR", help="default: WEAKLIB_FIGURES, or figures/ of the repository")

    check = commands.add_parser("check", help="validate parameter files")
    check.set_defaults(command=_check)
    check.add_argument("files", nargs="+", metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
