"""What can be wrong with a request beyond its parameters, found out before anything runs or is written."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from weaklib import judge, preference_datasets, running
from weaklib.files import local_folder
from weaklib.parameters import RequestError
from weaklib.preference_files import BadFile, part_sizes, read_pairs
from weaklib.preflight_models import MODEL_FILES, check_machine, check_models
from weaklib.profile import Profile
from weaklib.sections import DatasetTask, FileTask

# The notebooks that ask the judge.
ASK_THE_JUDGE = ("01_supervisor_size", "08_judge", "10_feedback_quality")


def check(profile: Profile, folders: list[Path], notebooks: Iterable[str], elsewhere: bool = False) -> None:
    """Whether stages run ``elsewhere``, on workers of a cluster, and this machine needs no GPU for them.

    Raises:
        RequestError: the task's file, a model folder, the device or the judge's server is not what the profile or one of the
        ``notebooks`` needs, or a folder cannot be written; one line that names it.
    """
    for folder in folders:
        _writable(folder)
    if isinstance(profile.task, FileTask):
        _enough_pairs(profile)
    if isinstance(profile.task, DatasetTask):
        _tokenizer(*profile.models.source(profile.task.tokenizer))
        _dataset(profile)
    notebooks = list(notebooks)
    check_models(profile, notebooks)
    asks_the_judge = profile.annotator.kind == "judge" or set(notebooks) & set(ASK_THE_JUDGE)
    if asks_the_judge and profile.judge is None:
        raise RequestError("judge: this profile has no such section, and what was asked for needs it")
    if running.planning():
        return  # a plan may be of another machine than this one
    if not elsewhere:
        check_machine(profile)
    if asks_the_judge and profile.judge.base_url is not None:
        judge.probe(profile.judge)


def enough_disk(store: Path, needed_gib: float) -> None:
    """Raises:
    RequestError: less than ``needed_gib`` is free where ``store`` is or will be.
    """
    free_gib = shutil.disk_usage(_existing(store)).free / 2**30
    if needed_gib > free_gib:
        raise RequestError(
            f"store {store}: the plan needs {needed_gib:.3g} GiB of disk, {free_gib:.3g} GiB are free: name another by --store, or run "
            "fewer notebooks"
        )


def _existing(folder: Path) -> Path:
    """``folder``, or what is there of the path to it."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _writable(folder: Path) -> None:
    """Without making it: what is there of the path must be a folder, and ours to write in."""
    there = _existing(folder)
    if not there.is_dir():
        raise RequestError(f"{folder}: cannot be written: {there} is not a folder")
    try:
        tempfile.TemporaryDirectory(dir=there).cleanup()
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written: {there}: {error.strerror}") from None


def _enough_pairs(profile: Profile) -> None:
    task = profile.task
    try:
        pairs, _ = read_pairs(Path(task.path), task.on_bad_row)
    except BadFile as error:
        raise RequestError(str(error)) from None
    sizes = part_sizes(
        len({pair["prompt"] for pair in pairs}), task.demonstrations_share, task.proxy_share, task.test_share
    )
    sizes |= _split_sizes(profile, sizes["pairs"])
    for part, size in sizes.items():
        if size < 2:
            raise RequestError(f"{task.path}: {len(pairs)} pairs are too few for this split: {part} would have {size}")


def _split_sizes(profile: Profile, prompts: int) -> dict[str, int]:
    labeled = round(profile.labeled_fraction * prompts)
    return {"labeled part": labeled, "unlabeled part": prompts - labeled}


def _dataset(profile: Profile) -> None:
    """What is here of the dataset is read, but for the lengths of its texts; what the stage will fetch is not asked for."""
    from huggingface_hub import is_offline_mode

    task = profile.task
    try:
        files = preference_datasets.locate(task.name, task.parts, task.source, task.revision, download=False)
    except BadFile as error:
        if local_folder(task.source) is None and (running.planning() or not is_offline_mode()):
            return
        raise RequestError(str(error)) from None
    if running.planning():
        return  # reading takes seconds
    shares = {"demonstrations_share": task.demonstrations_share, "proxy_share": task.proxy_share}
    try:
        pairs = {
            split: preference_datasets.read(paths.values(), task.name, task.on_bad_row)[0]
            for split, paths in files.items()
        }
        rng = np.random.default_rng(task.seed)
        parts = preference_datasets.draw(
            **pairs, rng=rng, max_pairs=task.max_pairs, test_prompts=task.test_prompts, **shares
        )
    except BadFile as error:
        raise RequestError(str(error)) from None
    for part, size in _split_sizes(profile, parts["pairs"]["prompt"].nunique()).items():
        if size < 2:
            raise RequestError(f"task: {len(pairs['train'])} training pairs are too few: {part} would have {size}")


def _tokenizer(name: str, revision: str | None) -> None:
    from huggingface_hub import is_offline_mode, try_to_load_from_cache

    needed = MODEL_FILES["tokenizer"]
    if folder := local_folder(name):
        if not any((folder / file).is_file() for file in needed):
            raise RequestError(f"task.tokenizer: {folder}: no tokenizer in it (one of {', '.join(needed)})")
    elif revision is None:
        raise RequestError(f"task.tokenizer: no commit of {name} is named: {name}@COMMIT")
    elif is_offline_mode() and not running.planning():
        found = [try_to_load_from_cache(name, file, revision=revision) for file in needed]
        if not any(isinstance(file, str) for file in found):  # else None, or a mark that the hub has no such file
            raise RequestError(
                f"task.tokenizer: {name} is not in the hub's cache at revision {revision}, fetch it by: "
                f"hf download {name} --revision {revision} --include '*.json' --include '*.txt' --include '*.model'"
            )
