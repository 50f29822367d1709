"""An LLM as judge, asked over the OpenAI chat-completions protocol, or simulated where the truth is known."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from string import Template
from threading import Lock
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pydantic
from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from weaklib.data.errors import RequestError, no_use_of_a_proxy, proxy_set
from weaklib.supervisors.verdicts import REPLIES, verdict_of

KEY = "OPENAI_API_KEY"  # of the environment; the key itself is written nowhere
_RENAMED: set[tuple] = set()  # servers and models whose limit is called ``max_completion_tokens``
_AGAIN = "That was not one JSON object of the form that was asked for. Reply with that object and nothing else."


class Settings(BaseModel):
    model_config = {"strict": True, "extra": "forbid", "frozen": True, "allow_inf_nan": False}


class SimulatedJudge(Settings):
    noise: PositiveFloat  # in gold reward
    position_bias: float  # for the first position, in log-odds


class TokenPrice(Settings):
    input: NonNegativeFloat
    output: NonNegativeFloat

    def usd(self, read: int, written: int) -> float:
        return (read * self.input + written * self.output) / 1e6


class Judge(Settings):
    """An LLM asked which of two responses is better; without a ``base_url`` it is simulated from the truth."""

    base_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    model: str | None = None
    form: Literal["pairwise", "rating"]
    structured: bool
    prompts: PositiveInt
    repeats: PositiveInt
    examples: NonNegativeInt
    temperature: NonNegativeFloat
    max_tokens: PositiveInt
    concurrency: PositiveInt
    max_retries: NonNegativeInt
    timeout_s: PositiveFloat
    max_requests: PositiveInt
    max_cost_usd: PositiveFloat
    usd_per_million_tokens: TokenPrice
    simulated: SimulatedJudge

    @pydantic.model_validator(mode="after")
    def a_server_needs_a_model(self):
        if self.base_url is not None and self.model is None:
            raise ValueError("judge.base_url needs judge.model, the model's name on that server")
        return self


HANDFUL = 8  # questions: if of so many none is answered in a way that can be read, no more are asked


class JudgeFailed(Exception):
    """A budget, a server or replies that say nothing stopped the judge; what was answered is kept."""


class Refused(RequestError):
    """A server's answer to one question is that it gets none: a content filter, a prompt that is too long."""


class Question(NamedTuple):
    prompt: str
    first: str
    second: str
    repeat: int = 0
    examples: str = ""  # what stands before it


def ask(settings: Judge, form: str, questions: list[Question], folder: Path) -> list[dict]:
    """A record of each question: ``verdict`` (``first``, ``second``, ``tie``; None: refused, or two replies that could
    not be read), last ``reply``, ``requests``, ``input_tokens``, ``output_tokens``. ``form`` is the text of a question;
    each reply is kept in ``folder`` as it comes: no question is paid for twice. Raises JudgeFailed: what stopped it."""
    server, failed = _Server(settings, form, folder), []
    waiting = [question for question in dict.fromkeys(questions) if not server.record(question)["answered"]]

    def answer(question: Question) -> None:
        try:
            while not failed and not server.record(question)["answered"]:
                server.ask(question)
        except RequestError as error:
            failed.append(error)

    with ThreadPoolExecutor(settings.concurrency) as threads:
        for some in ([], waiting[:HANDFUL], waiting[HANDFUL:]):
            list(threads.map(answer, some))
            records = [record for record in map(server.record, dict.fromkeys(questions)) if record["answered"]]
            if not failed and len(records) >= HANDFUL and not any(record["verdict"] for record in records):
                last = records[-1]["refused"] or f"the last is {records[-1]['reply']!r:.100}"
                said = f"of {len(records)} questions none has an answer that can be read: {last}"
                failed.append(RequestError(f"judge.model {settings.model}: {said}"))
    if failed:
        answered = sum(server.record(question)["answered"] for question in waiting)
        raise JudgeFailed(f"{failed[0]}; {answered} of {len(waiting)} questions are answered and kept")
    return [server.record(question) for question in questions]


def simulate(settings: Judge, questions: list[Question], gold_reward, seed: int | list[int]) -> list[dict]:
    """Verdicts of a judge who knows the truth but for noise, and who favours the first position:
    P(first) = σ((R*(first) − R*(second)) / noise + position_bias), R* the ``gold_reward(prompt, response)``."""
    rng, simulated = np.random.default_rng(seed), settings.simulated
    gaps = np.array([gold_reward(q.prompt, q.first) - gold_reward(q.prompt, q.second) for q in questions])
    first = rng.random(len(questions)) < 1 / (1 + np.exp(-(gaps / simulated.noise + simulated.position_bias)))
    nothing = {"requests": 0, "input_tokens": 0, "output_tokens": 0}
    return [{"verdict": "first" if chosen else "second"} | nothing for chosen in first]


def probe(settings: Judge) -> None:
    """One short completion. Raises RequestError: one line that says whether address, key or model is at fault."""
    hasty = settings.model_copy(update={"max_retries": 0, "timeout_s": 4.0})
    _complete(_client(hasty), hasty, ["Say yes."], max_tokens=1)


class _Server:
    """A judge (server, model, form, settings), its replies, in a file of JSON lines that only grows, and their costs.
    A question is answered by a reply that can be read, by two that cannot, or by a refusal."""

    def __init__(self, settings: Judge, form: str, folder: Path):
        identity = settings.model_dump(include={"base_url", "model", "form", "structured", "temperature", "max_tokens"})
        self.settings, self.form, self.usd = settings, Template(form), settings.usd_per_million_tokens.usd
        self.client, self.lock, self.replies = _client(settings), Lock(), {}
        self.costs: list[float] = []  # in USD, of each request; of one on its way the most that it can be
        self.path = folder / f"{_digest(identity | {'text': form})}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            text = file.read()
            file.write("" if text[-1:] in ("", "\n") else "\n")
        for line in text.splitlines():
            with suppress(ValueError):  # the end of a line that a killed run was writing
                reply = json.loads(line)
                self.replies.setdefault(reply["question"], []).append(reply)
                self.costs.append(self.usd(reply["input_tokens"], reply["output_tokens"]))

    def record(self, question: Question) -> dict:
        replies = self.replies.get(_digest(question), [])
        last = {"reply": "", "refused": ""} | (replies[-1] if replies else {})
        record = {name: last[name] for name in ("reply", "refused")} | {"requests": len(replies)}
        record["verdict"] = last.get("verdict") or verdict_of(self.settings.form, last["reply"])
        record |= {name: sum(reply[name] for reply in replies) for name in ("input_tokens", "output_tokens")}
        return record | {"answered": bool(record["verdict"] or record["refused"] or record["requests"] >= 2)}

    def ask(self, question: Question) -> None:
        """Asks once, with the first reply if that could not be read, and keeps what comes."""
        settings, before = self.settings, self.record(question)
        shown = {name: getattr(question, name).strip() for name in ("prompt", "first", "second")}
        texts = [question.examples + self.form.substitute(shown)]
        texts += [before["reply"], _AGAIN] if before["reply"] else []
        how = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, "seed": question.repeat}
        if settings.structured:
            schema = {"name": settings.form, "strict": True, "schema": REPLIES[settings.form].model_json_schema()}
            how["response_format"] = {"type": "json_schema", "json_schema": schema}
        most = len(json.dumps(texts)), settings.max_tokens  # no tokenizer makes more tokens than bytes
        with self.lock:
            number, usd = len(self.costs), self.usd(*most)
            for budget, spent in (("max_requests", number + 1), ("max_cost_usd", sum(self.costs) + usd)):
                if spent > (limit := getattr(settings, budget)):
                    raise RequestError(f"judge.{budget}: {limit:.10g} is reached")
            self.costs.append(usd)
        entry = {"question": _digest(question), "reply": "", "input_tokens": 0, "output_tokens": 0}
        try:
            reply, used = _complete(self.client, settings, texts, **how)
            read, written = (getattr(used, f"{what}_tokens", None) for what in ("prompt", "completion"))
            read, written = (n if isinstance(n, int) else at_most for n, at_most in zip((read, written), most))
            entry |= {"reply": _scrubbed(reply), "input_tokens": read, "output_tokens": written}
            if entry["reply"] != reply:  # judged as it was received
                entry["verdict"] = verdict_of(settings.form, reply)
        except Refused as refusal:
            entry["refused"], read, written = str(refusal), 0, 0
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.costs[number] = self.usd(read, written)
        self.replies.setdefault(entry["question"], []).append(entry)


def _complete(client, settings: Judge, texts: list[str], **how) -> tuple:
    """The reply, and the server's count of tokens, if any. Raises RequestError, which names it, never the key."""
    import openai

    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts)]
    if (settings.base_url, settings.model) in _RENAMED:
        how["max_completion_tokens"] = how.pop("max_tokens")
    try:
        completion = client.chat.completions.create(model=settings.model, messages=messages, **how)
        choice = completion.choices[0] if completion.choices else None
        if choice and (choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None)):
            raise Refused(f"judge.base_url {settings.base_url}: the question was refused")
        said = (choice and choice.message.content) or ""
        return said if isinstance(said, str) else "".join(part.get("text") or "" for part in said), completion.usage
    except (openai.APIError, AttributeError, ValueError, TypeError) as error:  # but the first: no completion
        status = getattr(error, "status_code", None)
        said = " ".join(_scrubbed(str(error)).split())[:200]
        unknown = getattr(error, "param", None) == "max_tokens" or "max_completion_tokens" in str(error)
        if status == 400 and unknown and "max_tokens" in how:
            _RENAMED.add((settings.base_url, settings.model))  # newer models of OpenAI's
            return _complete(client, settings, texts, **how)
        if isinstance(error, openai.APIConnectionError):
            said = "no answer in time" if isinstance(error, openai.APITimeoutError) else "nothing answers there"
            said += f" (through {proxy})" if (proxy := proxy_set()) else ""
        elif status in (401, 403):
            refused = "refused the key in" if os.environ.get(KEY) else "asks for a key; put it into"
            said = f"the server {refused} {KEY} (status {status})"
        elif status == 404:
            said = f"no model {settings.model!r} there, or no chat completions (status 404)"
        else:
            said = f"status {status}: {said}" if status else f"not a chat completion: {said}"
        of_one = status in (400, 413, 422) and getattr(error, "param", None) not in how  # not of a setting
        kind = Refused if of_one else RequestError
        raise kind(f"judge.base_url {settings.base_url}: {said}") from None


def _client(settings: Judge):
    import openai  # two seconds

    key = os.environ.get(KEY) or "no-key-is-set"  # a server without keys takes any; the client insists on one
    limits = {"max_retries": settings.max_retries, "timeout": settings.timeout_s}
    with no_use_of_a_proxy():
        return openai.OpenAI(base_url=settings.base_url, api_key=key, **limits)


def _scrubbed(text: str) -> str:
    """Without the key, if it is one: what some local servers take for a key (``1``, ``EMPTY``) occurs in any text."""
    key = os.environ.get(KEY, "")
    return text.replace(key, "…") if len(key) >= 8 else text


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
