"""base: a base language model, pre-trained here on the task's text or taken from a local folder or the hub."""

from pathlib import Path

import pandas as pd
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from trl import SFTConfig

from weaklib.training.language_models import load_whole
from weaklib.training.trainers import TextTrainer, train_and_save, trainer_settings

END, PAD = "<|endoftext|>", "<|pad|>"


def run(out: Path, *, model: str | dict, revision: str | None = None, precision: str = "float32", **settings) -> None:
    """Writes a model folder. ``model`` is a configuration to pre-train, or the folder or hub id of a finished model,
    stored in ``precision``. ``revision`` of a local folder is the hash of its files, which loading ignores."""
    if isinstance(model, dict):
        return _pretrain(out, model, **settings)
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    if tokenizer.eos_token is None:
        raise ValueError(f"{model}: its tokenizer has no end-of-text token, which ends every response")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    load_whole(AutoModelForCausalLM, model, revision=revision, dtype=precision).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _pretrain(out: Path, model: dict, task: Path, training: dict, limits: dict, **execution) -> None:
    texts = pd.read_parquet(task / "corpus.parquet")["text"].tolist()
    tokenizer = train_tokenizer(texts, training["vocabulary"])
    settings = trainer_settings(training, out=out, **execution)  # seeds the network's weights, too
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**model, **special, vocab_size=len(tokenizer)))
    longest = limits["max_prompt_tokens"] + limits["max_response_tokens"]
    ids = [(i + [tokenizer.eos_token_id])[:longest] for i in tokenizer(texts)["input_ids"]]
    rows = [{"input_ids": i, "labels": i} for i in ids]
    train_and_save(out, TextTrainer, network, SFTConfig(**settings), rows, tokenizer)


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text is legal and decoding gives it back exactly."""
    bpe, special = ByteLevelBPETokenizer(), {"special_tokens": [END, PAD], "show_progress": False}
    bpe.train_from_iterator(texts, vocab_size=vocabulary, min_frequency=2, **special)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, pad_token=PAD)
