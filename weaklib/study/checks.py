"""What can be wrong with a request beyond its parameters, found out before anything runs or is written."""

import json
import tempfile
from pathlib import Path

import numpy as np

from weaklib.arms import running
from weaklib.data import preference_datasets
from weaklib.data.errors import BadFile, RequestError
from weaklib.data.files import local_folder
from weaklib.data.preference_files import part_sizes, read_pairs
from weaklib.study.profile import Profile
from weaklib.study.sections import DatasetTask, FileTask
from weaklib.supervisors import judge

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


def check(profile: Profile, folders: list[Path], elsewhere: bool = False) -> None:
    """Whether stages run ``elsewhere``, on workers of a cluster, and this machine needs no GPU for them.

    Raises:
        RequestError: the task's file, a model folder or the device is not what the profile needs, or a folder cannot be written; one
        line that names it.
    """
    for folder in folders:
        _writable(folder)
    if isinstance(profile.task, FileTask):
        _enough_pairs(profile)
    if isinstance(profile.task, DatasetTask):
        _tokenizer(*profile.models.source(profile.task.tokenizer))
        _dataset(profile)
    check_models(profile)
    if profile.device != "cpu" and not elsewhere and not running.planning():
        import torch  # only here: it takes seconds

        count = torch.cuda.device_count()
        if not count:
            raise RequestError(f"device: {profile.device} is not there: torch sees {count} GPUs on this machine")


def check_models(profile: Profile) -> None:
    """Raises:
    RequestError: a model is not where it is said to be, or lacks what it is needed for; one line that names it.
    """
    models, here = profile.models, profile.models.pretrained_here
    for name in sorted({*models.weak, *models.strong, models.proxy} - {None}):
        folder = None if name in here else _folder(*models.source(name))
        if folder and not _in_tokenizer(folder, "eos_token"):
            raise RequestError(f"model folder {folder}: its tokenizer has no eos_token, which ends every response")
        if profile.dialogue == "chat" and (name in here or (folder and not _has_chat_template(folder))):
            raise RequestError(f"dialogue: chat was asked for, the tokenizer of {name} has no chat template")
    if models.gold is not None:
        check_gold(profile, models.gold)


def check_gold(profile: Profile, name: str) -> None:
    """Raises:
    RequestError: the gold model ``name`` is not where it is said to be, or is no reward model.
    """
    gold, key = profile.gold_models[name], f"gold_models.{name}"
    if gold.model in profile.models.pretrained_here or not (folder := _folder(*profile.models.source(gold.model))):
        return
    config = _json(folder / "config.json")
    if not any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        raise RequestError(f"{key}: {folder} has no classification head: it is {config.get('architectures')}")
    outputs = len(config.get("id2label") or (0, 1))  # transformers writes no labels where there are two
    if gold.output >= outputs:
        raise RequestError(f"{key}: {folder}: output {gold.output} was asked for, it has {outputs}")
    if gold.format == "chat" and not _has_chat_template(folder):
        raise RequestError(f"{key}: {folder}: format chat was asked for, its tokenizer has no chat template")


def check_judge(profile: Profile) -> None:
    """Raises:
    RequestError: the profile has no judge, or nothing that could judge answers at its address.
    """
    if profile.judge is None:
        raise RequestError("judge: this profile has no such section, and what was asked for needs it")
    if profile.judge.base_url is not None and not running.planning():
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
    pairs, _ = read_pairs(Path(task.path), task.on_bad_row)
    shares = task.model_dump(include={"demonstrations_share", "proxy_share", "test_share"})
    sizes = part_sizes(len({pair["prompt"] for pair in pairs}), **shares)
    _not_too_few(profile, sizes["pairs"], f"{task.path}: {len(pairs)} pairs are too few for this split", sizes)


def _not_too_few(profile: Profile, prompts: int, line: str, others: dict | None = None) -> None:
    labeled = round(profile.labeled_fraction * prompts)
    for part, size in {**(others or {}), "labeled part": labeled, "unlabeled part": prompts - labeled}.items():
        if size < 2:
            raise RequestError(f"{line}: {part} would have {size}")


def _dataset(profile: Profile) -> None:
    """What is here of the dataset is read, but for the lengths of its texts; what the stage will fetch is not asked for."""
    from huggingface_hub import is_offline_mode

    task = profile.task
    try:
        files = preference_datasets.locate(task.name, task.parts, task.source, task.revision, download=False)
    except BadFile:
        if local_folder(task.source) is None and (running.planning() or not is_offline_mode()):
            return
        raise
    if running.planning():
        return  # reading takes seconds
    pairs = {
        split: preference_datasets.read(paths.values(), task.name, task.on_bad_row)[0] for split, paths in files.items()
    }
    settings = task.model_dump(include={"max_pairs", "test_prompts", "demonstrations_share", "proxy_share"})
    parts = preference_datasets.draw(**pairs, rng=np.random.default_rng(task.seed), **settings)
    line = f"task: {len(pairs['train'])} training pairs are too few"
    _not_too_few(profile, parts["pairs"]["prompt"].nunique(), line)


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


def _folder(model: str, revision: str | None) -> Path | None:
    """The folder of a model that is on this machine, whole; ``None`` for one that the hub has."""
    if folder := local_folder(model):
        if not folder.is_dir():  # a path that is not there would be taken for a hub id and fail late
            known = "not a hub id, and not in models.pretrained_here or models.published"
            raise RequestError(f"model {model!r}: no such folder, {known}")
        if part := _lacks(folder):
            raise RequestError(f"model folder {folder}: no {part} in it (one of {', '.join(MODEL_FILES[part])})")
        return folder
    from huggingface_hub import is_offline_mode, try_to_load_from_cache

    if revision is None:
        raise RequestError(f"model {model}: no commit of the hub is named: {model}@COMMIT")
    config = try_to_load_from_cache(model, "config.json", revision=revision)
    if isinstance(config, str) and not _lacks(Path(config).parent):
        return Path(config).parent
    if not running.planning():
        _on_the_hub(model, revision, is_offline_mode())
    return None


def _lacks(folder: Path) -> str | None:
    """The first part of a model that a folder does not have."""
    return next((part for part, files in MODEL_FILES.items() if not any((folder / f).is_file() for f in files)), None)


def _on_the_hub(model: str, revision: str, offline: bool) -> None:
    """Asks the hub whether it would give a model that is not here, in its cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    fetch = f"fetch it by: hf download {model} --revision {revision}"
    if offline:
        raise RequestError(f"model {model} is not in the hub's cache at revision {revision}, {fetch}")
    try:
        HfApi().auth_check(model)
        HfApi().model_info(model, revision=revision, timeout=10)
    except GatedRepoError:
        line = f"model {model} is gated: accept its terms on its page of the hub, then `hf auth login`"
    except RevisionNotFoundError:
        line = f"model {model}: the hub has no revision {revision} of it"
    except RepositoryNotFoundError:
        line = f"model {model}: the hub has no such model, or hides it from you"
    except HTTPError as error:
        cause = str(error).partition("\n")[0]
        line = f"model {model} is not in the hub's cache, and the hub cannot be asked ({cause}), {fetch}"
    else:
        return
    raise RequestError(line)


def _in_tokenizer(folder: Path, key: str) -> bool:
    files = [folder / name for name in ("special_tokens_map.json", "tokenizer_config.json")]
    return any(_json(file).get(key) for file in files if file.is_file())


def _has_chat_template(folder: Path) -> bool:
    return _in_tokenizer(folder, "chat_template") or (folder / "chat_template.jinja").is_file()


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path}: not JSON: {error}") from None
