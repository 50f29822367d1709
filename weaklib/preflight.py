"""What can be wrong with a request beyond its parameters, found out before anything runs or is written."""

import itertools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from weaklib import judge, preference_datasets, running
from weaklib.files import local_folder
from weaklib.parameters import RequestError
from weaklib.preference_files import BadFile, part_sizes, read_pairs
from weaklib.profile import DatasetTask, FileTask, GoldModel, Profile

# A model folder needs one of each.
MODEL_FILES = {
    "config": ("config.json",),
    "weights": (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
    "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"),
}


# The notebooks that ask the judge.
ASK_THE_JUDGE = ("01_supervisor_size", "08_judge", "10_feedback_quality")


def check(profile: Profile, folders: list[Path], notebooks: Iterable[str]) -> None:
    """Raises:
    RequestError: the task's file, a model folder, the device or the judge's server is not what the profile or one of the
        ``notebooks`` needs, or a folder cannot be written; one line that names it.
    """
    for folder in folders:
        _writable(folder)
    if isinstance(profile.task, FileTask):
        _enough_pairs(profile)
    if isinstance(profile.task, DatasetTask):
        _tokenizer(profile.task.tokenizer, profile.models.revisions)
        _dataset(profile)
    swept = [*(profile.supervisors or []), *(profile.students or []), *itertools.chain(*profile.families or [])]
    for model in {*profile.models.weak, *profile.models.strong, profile.models.proxy, *swept} - {None}:
        if model not in profile.models.pretrained_here:
            _model_folder(model)
    for name, gold in profile.gold_models.items():
        if gold.model not in profile.models.pretrained_here:
            _model_folder(gold.model)
            _reward_model(name, gold)
    if profile.device != "cpu":
        _gpu(profile.device)
    if profile.annotator.kind == "judge" or set(notebooks) & set(ASK_THE_JUDGE):
        if profile.judge is None:
            raise RequestError("judge: this profile has no such section, and what was asked for needs it")
        if profile.judge.base_url is not None:
            judge.probe(profile.judge)


def _writable(folder: Path) -> None:
    """Without making it: what is there of the path must be a folder, and ours to write in."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
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


def _tokenizer(name: str, revisions: dict[str, str]) -> None:
    from huggingface_hub import is_offline_mode, try_to_load_from_cache

    needed = MODEL_FILES["tokenizer"]
    if folder := local_folder(name):
        if not any((folder / file).is_file() for file in needed):
            raise RequestError(f"task.tokenizer: {folder}: no tokenizer in it (one of {', '.join(needed)})")
    elif is_offline_mode() and not running.planning():
        found = [try_to_load_from_cache(name, file, revision=revisions[name]) for file in needed]
        if not any(isinstance(file, str) for file in found):  # else None, or a mark that the hub has no such file
            raise RequestError(
                f"task.tokenizer: {name} is not in the hub's cache at revision {revisions[name]}, fetch it by: "
                f"hf download {name} --revision {revisions[name]} --include '*.json' --include '*.txt' --include '*.model'"
            )


def _model_folder(model: str) -> None:
    folder = Path(model).expanduser()
    if not folder.is_dir():
        # a path that is not there would be taken for a hub id and fail late
        if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
            raise RequestError(f"model {model!r}: no such folder, not a hub id, and not in models.pretrained_here")
        return
    for part, names in MODEL_FILES.items():
        if not any((folder / name).is_file() for name in names):
            raise RequestError(f"model folder {folder}: no {part} in it (one of {', '.join(names)})")


def _reward_model(name: str, gold: GoldModel) -> None:
    folder = Path(gold.model).expanduser()
    if not folder.is_dir():
        return
    where = f"gold_models.{name}: {folder}"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{where}/config.json: not JSON: {error}") from None
    if not any(
        architecture.endswith("ForSequenceClassification") for architecture in config.get("architectures") or ()
    ):
        raise RequestError(f"{where} has no classification head: it is {config.get('architectures')}")
    outputs = len(config.get("id2label") or (0, 1))  # transformers writes no labels where there are two
    if gold.output >= outputs:
        raise RequestError(f"{where}: output {gold.output} was asked for, it has {outputs}")
    tokenizer = folder / "tokenizer_config.json"
    in_config = tokenizer.is_file() and "chat_template" in json.loads(tokenizer.read_text(encoding="utf-8"))
    if gold.format == "chat" and not in_config and not (folder / "chat_template.jinja").is_file():
        raise RequestError(f"{where}: format chat was asked for, its tokenizer has no chat template")


def _gpu(device: str) -> None:
    import torch  # only here: it takes seconds

    count = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= count:
        raise RequestError(f"device: {device} is not there: torch sees {count} GPUs on this machine")
