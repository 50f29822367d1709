"""``python -m weaklib``: the study from the command line."""

import argparse
import importlib
import os
import re
import sys
from pathlib import Path

from weaklib.data.errors import RequestError, StudyFailed
from weaklib.study.parameters import parse_value

# Keys whose value is a path or a name: it is taken as it stands, whatever YAML would make of it.
PATH = re.compile(r"task\.(path|source|tokenizer)|models\.published\..+|gold_models\..+\.model")


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done and verified, 1 the study failed, 2 the request was wrong."""
    for stream in (sys.stdout, sys.stderr):  # one that has no such character gets its escape
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = vars(_parser().parse_args(arguments))
        for name in {"store", "figures", "runs"} & options.keys():
            if (folder := options.pop(name)) is not None:
                os.environ[f"WEAKLIB_{name.upper()}"] = str(Path(folder).absolute())
        if "overrides" in options:
            options["overrides"] = dict(options["overrides"])
        # what a command needs takes a second or two to import
        module, command = options.pop("command").split(".")
        getattr(importlib.import_module(f"weaklib.reproduce.{module}"), command)(**options)
    except (RequestError, StudyFailed) as error:
        print(f"weaklib: {error}", file=sys.stderr)
        return 1 if isinstance(error, StudyFailed) else 2
    return 0


def _setting(text: str) -> tuple:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise RequestError(f"--set {text}: KEY=VALUE is needed")
    if PATH.fullmatch(key):
        literal = value not in ("null", "~") and not value[:1] == value[-1:] == '"'  # as the ledger's commands write it
    else:
        literal = key.startswith("models.") and bool(value) and os.path.exists(value)
    return key, value if literal else parse_value(value)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, not {text!r}")
    return int(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message):  # one line, like every other wrong request
        self.exit(2, f"weaklib: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m weaklib", description=__doc__.partition(": ")[2], allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: str, what: str):
        added = commands.add_parser(name, help=what, allow_abbrev=False)
        added.set_defaults(command=function)
        return added.add_argument

    reproduce = command("reproduce", "run.reproduce", "run the notebooks of a profile: every figure and table")
    plan = command("plan", "run.show_plan", "what would run, and how long")
    verify = command("verify", "verify.verify", "regenerated figure data against the committed")
    cite = command("cite", "gallery.cite", "caption, BibTeX and provenance of a figure")
    check = command("check", "run.check_files", "validate parameter files")
    for add in (reproduce, plan, verify):
        add("--profile", default="sandbox", help="a file of params/ (default: %(default)s)")
    for add in (reproduce, plan):
        add("--only", nargs="+", default=[], metavar="NB", help="these notebooks only")
        several = {"dest": "overrides", "type": _setting, "nargs": "+", "action": "extend", "default": []}
        add("--set", metavar="KEY=VALUE", help="override parameters", **several)
        add("--store", metavar="DIR", help="default: WEAKLIB_STORE, or artifacts/ of the repository")
    reproduce("--workers", type=_positive, help="processes on this machine (default: its cores)")
    reproduce("--scheduler", metavar="URL", help="use this Dask cluster instead")
    cite("figure", metavar="NOTEBOOK/NAME")
    cite("--profile", default="sandbox", help="a folder of the figures (default: %(default)s)")
    for add in (reproduce, verify, cite):
        add("--figures", metavar="DIR", help="default: WEAKLIB_FIGURES, or figures/ of the repository")
    reproduce("--runs", metavar="DIR", help="default: WEAKLIB_RUNS, or runs/ of the repository")
    plan("--json", dest="as_json", action="store_true", help="as JSON")
    check("files", nargs="+", metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
