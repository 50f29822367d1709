"""What can be wrong with the models of a request and the machine they shall run on."""

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from weaklib import running
from weaklib.files import local_folder
from weaklib.parameters import RequestError
from weaklib.profile import SWEEPS, Profile
from weaklib.sections import GoldModel, Lora

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

# Packages that are no requirement of the study, and what does without.
OPTIONAL = {"vllm": "engine: transformers", "deepspeed": "strategy: fsdp"}
OPTIONAL |= {tracker: "tracker: none" for tracker in ("tensorboard", "trackio", "wandb")}


def check_models(profile: Profile, notebooks: Iterable[str]) -> None:
    """The models of a profile and of the sweeps of ``notebooks``.

    Raises:
        RequestError: a model is not where it is said to be, lacks what it is needed for, or is no model; one line that names it.
    """
    models, here = profile.models, profile.models.pretrained_here
    swept = {key for notebook in notebooks for key in SWEEPS.get(notebook, ())}
    weak, strong = set(models.weak), set(models.strong)
    if "supervisors" in swept:
        weak |= {*profile.supervisors}
    if "students" in swept:
        strong |= {*profile.students}
    if "families" in swept:
        weak |= {weaker for weaker, _ in profile.families}
        strong |= {stronger for _, stronger in profile.families}
    for name in sorted({*weak, *strong, models.proxy} - {None}):
        folder = None if name in here else _folder(*models.source(name))
        if folder:
            _ends_texts(folder)
        if profile.dialogue == "chat" and (name in here or (folder and not _has_chat_template(folder))):
            raise RequestError(f"dialogue: chat was asked for, the tokenizer of {name} has no chat template")
        for key, of in (("annotator", weak), ("sft", strong), ("policy", strong)):
            lora = getattr(profile, key).lora
            if lora and name in of and (name in here or folder):
                _lora_targets(f"{key}.lora.targets", lora, name, here.get(name) or folder)
    for name, gold in profile.gold_models.items():
        wanted = name == models.gold or "07_gold_reward" in notebooks
        if wanted and gold.model not in here and (folder := _folder(*models.source(gold.model))):
            _reward_model(f"gold_models.{name}", gold, folder)


def check_machine(profile: Profile) -> None:
    """Raises:
    RequestError: the device is not there or cannot compute in the precision asked for, or a library is not installed.
    """
    chosen = {
        "sampling.engine": profile.sampling.engine,
        "hardware.strategy": profile.hardware.strategy,
        "hardware.tracker": profile.hardware.tracker,
    }
    for key, package in chosen.items():
        if package in OPTIONAL and not importlib.util.find_spec(package):
            raise RequestError(
                f"{key}: {package} is not installed in this environment: pip install {package}, or {OPTIONAL[package]}"
            )
    if profile.device != "cpu":
        _gpu(profile)


def _folder(model: str, revision: str | None) -> Path | None:
    """The folder of a model that is on this machine, whole; ``None`` for one that the hub has."""
    folder = local_folder(model)
    if folder is None:
        folder = _cached(model, revision)
    elif not folder.is_dir():
        # a path that is not there would be taken for a hub id and fail late
        raise RequestError(
            f"model {model!r}: no such folder, not a hub id, and not in models.pretrained_here or models.published"
        )
    if folder and (part := _lacks(folder)):
        raise RequestError(f"model folder {folder}: no {part} in it (one of {', '.join(MODEL_FILES[part])})")
    return folder


def _lacks(folder: Path) -> str | None:
    """The first part of a model that a folder does not have."""
    return next((part for part, files in MODEL_FILES.items() if not any((folder / f).is_file() for f in files)), None)


def _cached(model: str, revision: str | None) -> Path | None:
    """The snapshot of a hub's model in the local cache; without one, the hub is asked whether it would give it."""
    from huggingface_hub import is_offline_mode, try_to_load_from_cache

    if revision is None:
        raise RequestError(f"model {model}: no commit of the hub is named: {model}@COMMIT")
    config = try_to_load_from_cache(model, "config.json", revision=revision)
    if isinstance(config, str) and not _lacks(Path(config).parent):
        return Path(config).parent
    if not running.planning():
        _on_the_hub(model, revision, is_offline_mode())
    return None


def _on_the_hub(model: str, revision: str, offline: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    fetch = f"hf download {model} --revision {revision}"
    if offline:
        raise RequestError(f"model {model} is not in the hub's cache at revision {revision}, fetch it by: {fetch}")
    try:
        HfApi().auth_check(model)
        HfApi().model_info(model, revision=revision, timeout=10)
    except GatedRepoError:
        raise RequestError(
            f"model {model} is gated: accept its terms on its page of the hub, then `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise RequestError(f"model {model}: the hub has no revision {revision} of it") from None
    except RepositoryNotFoundError:
        raise RequestError(f"model {model}: the hub has no such model, or hides it from you") from None
    except HTTPError as error:
        cause = str(error).partition("\n")[0]
        raise RequestError(
            f"model {model} is not in the hub's cache, and the hub cannot be asked ({cause}), fetch it by: {fetch}"
        ) from None


def _ends_texts(folder: Path) -> None:
    tokens = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            tokens |= _json(folder / name)
    if not tokens.get("eos_token"):
        raise RequestError(f"model folder {folder}: its tokenizer has no eos_token, which ends every response")


def _has_chat_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    in_config = config.is_file() and "chat_template" in _json(config)
    return in_config or (folder / "chat_template.jinja").is_file()


def _lora_targets(key: str, lora: Lora, name: str, configuration: dict | Path) -> None:
    """Only a profile that uses LoRA waits for the import."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made_here = isinstance(configuration, dict)
    config = AutoConfig.for_model(**configuration) if made_here else AutoConfig.from_pretrained(configuration)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    linear = {
        module.rpartition(".")[2] for module, kind in network.named_modules() if isinstance(kind, torch.nn.Linear)
    }
    if unknown := set(lora.targets) - linear:
        raise RequestError(f"{key}: {name} has no module {sorted(unknown)[0]!r}: {', '.join(sorted(linear))}")


def _reward_model(key: str, gold: GoldModel, folder: Path) -> None:
    config = _json(folder / "config.json")
    if not any(
        architecture.endswith("ForSequenceClassification") for architecture in config.get("architectures") or ()
    ):
        raise RequestError(f"{key}: {folder} has no classification head: it is {config.get('architectures')}")
    outputs = len(config.get("id2label") or (0, 1))  # transformers writes no labels where there are two
    if gold.output >= outputs:
        raise RequestError(f"{key}: {folder}: output {gold.output} was asked for, it has {outputs}")
    if gold.format == "chat" and not _has_chat_template(folder):
        raise RequestError(f"{key}: {folder}: format chat was asked for, its tokenizer has no chat template")


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path}: not JSON: {error}") from None


def _gpu(profile: Profile) -> None:
    import torch  # only here: it takes seconds

    count = torch.cuda.device_count()
    if not count:
        raise RequestError(f"device: {profile.device} is not there: torch sees {count} GPUs on this machine")
    if profile.hardware.precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RequestError(f"hardware.precision: {torch.cuda.get_device_name()} does not compute in bfloat16")
