"""How a model reads a dialogue: the tokens of prompts and responses, alike in training, scoring and sampling."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoTokenizer

from weaklib.data.conversations import as_message, chat
from weaklib.data.files import save_json

SHORT = as_message("asked"), "answered"  # a prompt and a reply, to see what a template does
load_tokenizer = AutoTokenizer.from_pretrained


class Reader:
    """A model's tokenizer and the ``limits`` of a profile: ``max_prompt_tokens``, ``max_response_tokens``, ``dialogue``
    (``plain``: HH-RLHF's text; ``chat``: the model's chat template) and ``on_bad_row``. Prompts lose their beginning,
    for the question is at the end, responses their end; ``cuts`` counts both, and pairs that are equal once cut."""

    def __init__(self, tokenizer, limits: dict):
        self.tokenizer, self.limits, self.chat = tokenizer, limits, limits.get("dialogue") == "chat"
        self.cuts = {"prompts_cut": 0, "responses_cut": 0, "equal_after_cut": 0}
        if self.chat and self.tokenizer.chat_template is None:
            raise ValueError(f"{tokenizer.name_or_path}: dialogue chat was asked for, it has no chat template")

    @cached_property
    def turn(self) -> tuple[str, str, str, str]:
        """What stands around a reply: what begins one; what the template adds when the reply is there (an empty
        thought), which we put into the prompt; a space; and what follows the reply."""
        if not self.chat:
            return ":", "", "", ""
        known = self.tokenizer
        begun = known.apply_chat_template(chat(SHORT[0]), tokenize=False, add_generation_prompt=True)
        whole, _, after = known.apply_chat_template(chat(*SHORT), tokenize=False).rpartition("answered")
        if not whole:
            raise ValueError(f"{known.name_or_path}: its chat template does not give a reply as it is")
        between = whole[len(begun) :] if whole.startswith(begun) else ""
        added = between.rstrip(" ")
        return begun, added, between[len(added) :], after

    @cached_property
    def closing(self) -> list[int]:
        """The tokens after a response: its end, as the template ends a turn, and a blank before that."""
        *before, after = self.turn
        ids, names = self._after("".join(before) + "answered", [after])[0], self.tokenizer.convert_ids_to_tokens
        end = next((i for i, token in enumerate(names(ids)) if token in self.control and token in after), None)
        return [self.tokenizer.eos_token_id] if end is None else ids[: end + 1]

    @cached_property
    def ends(self) -> list[int]:
        """What ends a response; sampling stops there and, if it is another, at eos."""
        return list(dict.fromkeys([self.closing[-1], self.tokenizer.eos_token_id]))

    @cached_property
    def start(self) -> list[int]:
        """What the tokenizer puts before a text. What it puts after one, an end, is no part of a prompt."""
        text, whole = self._of_text(["a"])[0], self.tokenizer("a")["input_ids"]
        return next((whole[:i] for i in range(len(whole) + 1) if whole[i : i + len(text)] == text), [])

    @cached_property
    def control(self) -> dict[str, int]:
        """Tokens that no text is made of, with their numbers: special ones, and what else the chat template writes."""
        known, written = self.tokenizer, ""
        if self.chat:
            written = known.apply_chat_template(chat(*SHORT), tokenize=False)
        added = {
            token.content: number
            for number, token in known.added_tokens_decoder.items()
            if token.special or (token.content.strip() and token.content in written)
        }
        return dict(zip(known.all_special_tokens, known.all_special_ids)) | added

    def prompts(self, prompts: pd.DataFrame) -> list[list[int]]:
        """Tokens of each row's prompt (``prompt``, ``messages``), one at least."""
        if self.chat:
            [added] = self._after(self.turn[0], self.turn[1:2])
            found = [self._of_chat(chat(messages)) + added for messages in prompts["messages"]]
        else:
            found = [self.start + ids for ids in self._of_text(prompts["prompt"].tolist())]
        bos, longest = self.tokenizer.bos_token_id, self.limits["max_prompt_tokens"]
        self.cuts["prompts_cut"] += sum(len(ids) > longest for ids in found)
        first = [self.tokenizer.eos_token_id if bos is None else bos]

        def cut(ids: list[int]) -> list[int]:
            head = first if ids[0] == bos and longest > 1 else []
            return head + ids[len(ids) - longest + len(head) :]

        return [cut(ids) if len(ids) > longest else ids or first for ids in found]

    def responses(self, responses: list[str]) -> list[list[int]]:
        """Tokens of each response with its end."""
        if self.chat:
            responses = [self.turn[2] + response.strip() for response in responses]
        placed, longest = self._after("".join(self.turn[:2]), responses), self.limits["max_response_tokens"]
        for i, own in enumerate(self._of_text(responses)):
            if any(token in responses[i] for token in self.control):
                placed[i] = own
        whole = [ids + self.closing for ids in placed]
        self.cuts["responses_cut"] += sum(len(ids) > longest for ids in whole)
        return [ids[:longest] for ids in whole]

    def pairs(self, pairs: pd.DataFrame, first: str, second: str) -> tuple[list[dict], np.ndarray]:
        """The pairs of a prompt and two columns of responses as ``prompt_ids, chosen_ids, rejected_ids``, and which of
        the rows these are, (len(pairs),): not those whose responses are equal once cut. Raises ValueError for such a
        pair where the profile says that a bad row is an error."""
        columns = [self.prompts(pairs), *(self.responses(pairs[side].tolist()) for side in (first, second))]
        rows = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), row)) for row in zip(*columns, strict=True)]
        differ = np.array([row["chosen_ids"] != row["rejected_ids"] for row in rows], bool)
        self.cuts["equal_after_cut"] += int((~differ).sum())
        if self.limits.get("on_bad_row") == "error" and not differ.all():
            which = f"{(~differ).sum()} of {len(pairs)} pairs have two responses that are equal once cut"
            said = f"max_response_tokens is {self.limits['max_response_tokens']}, task.on_bad_row=drop leaves them out"
            raise ValueError(f"{which} ({said}); the first is {pairs['prompt'][~differ].iloc[0]!r:.80}")
        return [row for row, kept in zip(rows, differ) if kept], differ

    def save_cuts(self, out: Path) -> None:
        save_json(self.cuts, out / "cuts.json")

    def _after(self, before: str, texts: Sequence[str]) -> list[list[int]]:
        """Texts where they stand: a tokenizer that begins a text with a space of its own begins none within one."""
        before = before[max(0, *(before.rfind(token) for token in self.control)) :]
        encode = partial(self.tokenizer, add_special_tokens=False)
        first, *whole = encode([before, *(before + text for text in texts)])["input_ids"]
        same = [ids[: len(first)] == first for ids in whole]
        return [ids[len(first) :] if fits else encode(text)["input_ids"] for ids, fits, text in zip(whole, same, texts)]

    def _of_text(self, texts: list[str]) -> list[list[int]]:
        """What looks like a control token in a text is text."""
        encode, how = self.tokenizer, {"add_special_tokens": False, "split_special_tokens": True}
        found, control = encode(texts, **how)["input_ids"], set(self.control.values())
        for i, ids in enumerate(found):
            if not control.isdisjoint(ids) and (apart := self.apart(texts[i])) != texts[i]:
                found[i] = encode(apart, **how)["input_ids"]
        return found

    def _of_chat(self, messages: list[dict]) -> list[int]:
        apart = [message | {"content": self.apart(message["content"])} for message in messages]
        encode, how = self.tokenizer.apply_chat_template, {"add_generation_prompt": True}
        if apart == messages:
            return encode(messages, **how)["input_ids"]
        try:
            return encode(messages, sanitize_control_tokens=True, **how)["input_ids"]
        except (NotImplementedError, ValueError):
            return encode(apart, **how)["input_ids"]

    def apart(self, text: str) -> str:
        """Control tokens written apart, for tokenizers that make them of any text that reads so."""
        for token in self.control:
            text = text.replace(token, f"{token[0]} {token[1:]}") if len(token.strip()) > 1 else text
        return text
