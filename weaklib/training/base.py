"""base: a base language model, pre-trained here on the task's text or taken from a local folder or the hub."""

from pathlib import Path

import pandas as pd
from datasets import Dataset
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from trl import SFTConfig

from weaklib.training.language_models import save
from weaklib.training.trainers import TextTrainer, train_and_save, trainer_settings

END, PAD = "<|endoftext|>", "<|pad|>"


def run(
    out: Path,
    *,
    model: str | dict,
    revision: str | None = None,
    task: Path | None = None,
    pretraining: dict | None = None,
    max_tokens: int | None = None,
    device: str | None = None,
    seed: int = 0,
    precision: str = "float32",
    **execution,
) -> None:
    """Writes a model folder. ``model`` is a configuration to pre-train, or the folder or hub id of a finished model.

    ``revision`` of a local folder is the hash of its files: it is part of the stage's key, not of the loading. ``precision`` is that of
    a finished model's weights in the store. ``execution``: see :func:`weaklib.training.trainers.trainer_settings`.
    """
    if isinstance(model, str):
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        if tokenizer.eos_token is None:
            raise ValueError(f"{model}: its tokenizer has no end-of-text token, which ends every response")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        save(out, AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype=precision), tokenizer)
        return

    texts = pd.read_parquet(task / "corpus.parquet")["text"].tolist()
    tokenizer = train_tokenizer(texts, pretraining["vocabulary"])
    settings = trainer_settings(pretraining, seed, device, out, **execution)
    configuration = AutoConfig.for_model(
        **model,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    network = AutoModelForCausalLM.from_config(configuration)
    ids = [(i + [tokenizer.eos_token_id])[:max_tokens] for i in tokenizer(texts)["input_ids"]]
    dataset = Dataset.from_list([{"input_ids": i, "labels": i, "length": len(i)} for i in ids])
    trainer = TextTrainer(network, SFTConfig(**settings), train_dataset=dataset, processing_class=tokenizer)
    train_and_save(trainer, out)


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text is legal and decoding gives it back exactly."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        texts, vocab_size=vocabulary, min_frequency=2, special_tokens=[END, PAD], show_progress=False
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, pad_token=PAD)
