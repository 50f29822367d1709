"""What can be wrong with a request beyond its parameters, found out before anything runs or is written."""

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import HfApi, errors, is_offline_mode, try_to_load_from_cache

from weaklib.arms import folders, running
from weaklib.data import preference_datasets
from weaklib.data.conversations import chat
from weaklib.data.errors import RequestError, no_use_of_a_proxy
from weaklib.data.files import local_folder
from weaklib.study.profile import Profile
from weaklib.supervisors import judge

MODEL_FILES = {  # a model's folder needs one of each
    "config": ["config.json"],
    "weights": [f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json")],
    "tokenizer": ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"],
}


def check(profile: Profile, elsewhere: bool = False) -> None:
    """Raises RequestError where the data, a model, a folder or the device (if not ``elsewhere``) is not as needed."""
    for folder in (folders.store_folder(), folders.figures_folder(), folders.runs_folder()):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            tempfile.TemporaryDirectory(dir=there).cleanup()
        except OSError as error:
            cause = f": {error.strerror}" if there.is_dir() else " is not a folder"
            raise RequestError(f"{folder}: cannot be written: {there}{cause}") from None
    pairs = _check_pairs(profile, profile.task)
    if profile.task.kind == "dataset":
        _folder(*profile.models.source(profile.task.tokenizer), "task.tokenizer: ", ["tokenizer"])
    check_models(profile)
    if pairs is not None:
        _check_templates(profile, pairs)
    if profile.device != "cpu" and not elsewhere and not running.planning:
        import torch  # only here: it takes seconds

        if not torch.cuda.device_count():
            raise RequestError(f"device: {profile.device} is not there: torch sees 0 GPUs on this machine")


def check_models(profile: Profile) -> None:
    """Raises RequestError where a model is not where it is said to be, or lacks what it is needed for."""
    models, here = profile.models, profile.models.pretrained_here
    for name in sorted({*models.weak, *models.strong, models.proxy} - {None}):
        folder = None if name in here else _folder(*models.source(name))
        if folder and not _tokenizer_has(folder, "eos_token"):
            raise RequestError(f"model folder {folder}: its tokenizer has no eos_token, which ends every response")
        if profile.dialogue == "chat" and (name in here or (folder and not _tokenizer_has(folder, "chat_template"))):
            raise RequestError(f"dialogue: chat was asked for, the tokenizer of {name} has no chat template")
        if folder:
            _check_weights(folder, "AutoModelForCausalLM", f"model folder {folder}")
    if models.gold is not None:
        check_gold(profile, models.gold)


def check_gold(profile: Profile, name: str) -> None:
    """Raises RequestError where the gold model ``name`` is not where it is said to be, or is no reward model."""
    gold = profile.gold_models[name]
    if gold.model in profile.models.pretrained_here or not (folder := _folder(*profile.models.source(gold.model))):
        return
    config, said = _json(folder / "config.json"), f"gold_models.{name}: {folder}"
    if "ForSequenceClassification" not in str(config.get("architectures")):
        raise RequestError(f"{said} has no classification head: it is {config.get('architectures')}")
    outputs = len(config.get("id2label") or (0, 1))  # transformers writes no labels where there are two
    if gold.output >= outputs:
        raise RequestError(f"{said}: output {gold.output} was asked for, it has {outputs}")
    if gold.format == "chat" and not _tokenizer_has(folder, "chat_template"):
        raise RequestError(f"{said}: format chat was asked for, its tokenizer has no chat template")
    _check_weights(folder, "AutoModelForSequenceClassification", said)


@cache
def _check_weights(folder: Path, kind: str, said: str) -> None:
    """Raises RequestError where a weight of such a model is missing or damaged; none is read but for its name."""
    import transformers  # only here: it takes seconds

    from weaklib.training.language_models import load_whole
    from weaklib.training.tokens import load_tokenizer

    try:
        model, tokens = load_whole(getattr(transformers, kind), folder, device_map="meta"), len(load_tokenizer(folder))
        rows = model.get_input_embeddings().num_embeddings
    except Exception as error:  # files can be damaged in many ways
        raise RequestError(f"{said} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    if tokens > rows:
        raise RequestError(f"{said}: its tokenizer has {tokens} tokens, the model embeds {rows}")


def check_judge(profile: Profile) -> None:
    """Raises RequestError where the profile has no judge, or nothing that could judge answers at its address."""
    if profile.judge is None:
        raise RequestError("judge: this profile has no such section, and what was asked for needs it")
    if profile.judge.base_url is not None and not running.planning:
        judge.probe(profile.judge)


def _check_templates(profile: Profile, pairs: pd.DataFrame) -> None:
    """Raises RequestError where a chat template of a model that is on this machine refuses a dialogue of the data."""
    models, golds = profile.models, {gold.model for gold in profile.gold_models.values() if gold.format == "chat"}
    names = {*models.weak, *models.strong, models.proxy} - {None} if profile.dialogue == "chat" else set()
    names = (names | {gold for gold in golds if local_folder(models.source(gold)[0])}) - {*models.pretrained_here}
    if not (folders := {name: folder for name in sorted(names) if (folder := _folder(*models.source(name)))}):
        return
    from weaklib.training.tokens import Reader, load_tokenizer  # only here: it takes seconds

    roles = pairs["messages"].map(lambda messages: tuple(said["role"] for said in chat(messages)))
    first = pairs.reset_index(drop=True)[~roles.duplicated().to_numpy()]
    for name, folder in folders.items():
        tokenizer = load_tokenizer(folder)
        for number, pair in first.iterrows():
            try:
                if name in golds:
                    tokenizer.apply_chat_template(chat(pair["messages"], pair["chosen"]))
                else:
                    Reader(tokenizer, {"dialogue": "chat", "max_prompt_tokens": 1}).prompts(first.loc[[number]])
            except Exception as error:  # a template raises what it likes
                cause = f"its chat template refuses row {pair['row']} of the data: {' '.join(str(error).split())}"
                raise RequestError(f"{name}: {cause}") from None


def _check_pairs(profile: Profile, task) -> pd.DataFrame | None:
    """What is here of the data, read but for the lengths of its texts; what a stage will fetch is not asked for."""
    if task.kind == "world" or (task.kind == "dataset" and running.planning):  # reading takes seconds
        return None
    if task.kind == "file":
        if task.path is None:
            line = "task.path: no preference file is named. Download harmless-base/test.jsonl.gz of the dataset"
            raise RequestError(f"{line} Anthropic/hh-rlhf and give it by --set task.path=FILE or WEAKLIB_HH_FILE")
        pairs, _ = preference_datasets.read_pairs(Path(task.path), on_bad_row=task.on_bad_row)
        shares = task.model_dump(include={"demonstrations_share", "proxy_share", "test_share"})
        parts = preference_datasets.divide(pairs, np.random.default_rng(task.seed), **shares)
        sizes = {part: some["prompt"].nunique() for part, some in parts.items()}
        line = f"{task.path}: {len(pairs)} pairs are too few for this split"
    else:
        try:
            files = preference_datasets.locate(task.name, task.parts, task.source, task.revision, download=False)
        except RequestError:
            if local_folder(task.source) or is_offline_mode():
                raise
            return None
        reading = {"on_bad_row": task.on_bad_row, "pair_of": preference_datasets.FORMS[task.name][0]}
        train, test = (preference_datasets.read_pairs(*some.values(), **reading)[0] for some in files.values())
        settings = task.model_dump(include={"max_pairs", "test_prompts", "demonstrations_share", "proxy_share"})
        parts = preference_datasets.draw(train, test, np.random.default_rng(task.seed), **settings)
        pairs = pd.concat([train, test])
        sizes, line = {"pairs": parts["pairs"]["prompt"].nunique()}, f"task: {len(train)} training pairs are too few"
    labeled = round(profile.labeled_fraction * sizes["pairs"])
    for part, size in (sizes | {"labeled part": labeled, "unlabeled part": sizes["pairs"] - labeled}).items():
        if size < 2:
            raise RequestError(f"{line}: {part} would have {size}")
    return pairs


def _folder(model: str, revision: str | None, key: str = "model ", parts=tuple(MODEL_FILES)) -> Path | None:
    """The folder of a model that is on this machine with all ``parts``; ``None`` for one that the hub would give."""
    folder = local_folder(model)
    if folder and not folder.is_dir():  # a path that is not there would be taken for a hub id and fail late
        known = "not a hub id, and not in models.pretrained_here or models.published"
        raise RequestError(f"{key}{model!r}: no such folder, {known}")
    if not folder and revision is None:
        raise RequestError(f"{key}{model}: no commit of the hub is named: {model}@COMMIT")
    cached = (try_to_load_from_cache(model, file, revision=revision) for part in parts for file in MODEL_FILES[part])
    here = folder or next((Path(file).parent for file in cached if isinstance(file, str)), None)
    lacking = [part for part in parts if not here or not any((here / file).is_file() for file in MODEL_FILES[part])]
    if not lacking:
        return here
    if folder:
        place = f"{key.replace('model', 'model folder')}{folder}"
        raise RequestError(f"{place}: no {lacking[0]} in it (one of {', '.join(MODEL_FILES[lacking[0]])})")
    if running.planning:
        return None
    try:
        with no_use_of_a_proxy():
            HfApi().auth_check(model)
            HfApi().model_info(model, revision=revision, timeout=10)
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
        only = " --include '*.json' --include '*.txt' --include '*.model'" if parts == ["tokenizer"] else ""
        cause, fetch = str(error).partition("\n")[0], f"fetch it by: hf download {model} --revision {revision}{only}"
        said = {
            errors.GatedRepoError: " is gated: accept its terms on its page of the hub, then `hf auth login`",
            errors.RevisionNotFoundError: f": the hub has no revision {revision} of it",
            errors.RepositoryNotFoundError: ": the hub has no such model, or hides it from you",
            errors.OfflineModeIsEnabled: f" is not in the hub's cache at revision {revision}, {fetch}",
        }
        unknown = f" is not in the hub's cache, and the hub cannot be asked ({cause}), {fetch}"
        raise RequestError(f"{key}{model}{said.get(type(error), unknown)}") from None


def _tokenizer_has(folder: Path, key: str) -> bool:
    files = [folder / name for name in ("special_tokens_map.json", "tokenizer_config.json")]
    return (folder / f"{key}.jinja").is_file() or any(_json(file).get(key) for file in files if file.is_file())


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path}: not JSON: {error}") from None
