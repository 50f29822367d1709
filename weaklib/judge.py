"""An LLM as judge, asked over the OpenAI chat-completions protocol, or simulated where the truth is known.

A question shows a prompt and two responses in an order; its verdict is ``first``, ``second``, ``tie``, or None when two replies could not be
read. Every verdict is written to a journal in the store as it arrives: a run that was stopped goes on where it was, and no question
is paid for twice. The key is the environment variable ``OPENAI_API_KEY`` and is written nowhere.
"""

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np

from weaklib.parameters import RequestError
from weaklib.profile import Judge

FORMS = Path(__file__).parent / "judge_forms"
KEY = "OPENAI_API_KEY"

_CHOICE = {"type": "string", "enum": ["1", "2", "tie"]}
_RATING = {"type": "integer", "minimum": 1, "maximum": 10}
# What a reply to each form must be; asked of the server only if ``structured`` says so, and checked in any case.
_FIELDS = {"pairwise": {"better": _CHOICE}, "rating": {"rating_1": _RATING, "rating_2": _RATING}}
_AGAIN = "That was not one JSON object of the form that was asked for. Reply with that object and nothing else."


@dataclass(frozen=True)
class Question:
    prompt: str
    first: str
    second: str
    repeat: int = 0
    examples: str = ""  # what stands before it


class BudgetReached(Exception):
    """The next request would have passed the judge's budget; what was answered is in the journal."""


def ask(settings: Judge, questions: list[Question], folder: Path) -> list[dict]:
    """A record of each question: ``verdict``, ``reply``, ``requests``, ``input_tokens``, ``output_tokens``.

    Args:
        folder: where the journals lie, one for each judge (server, model, form and settings).

    Raises:
        BudgetReached: says how many questions are answered.
        RequestError: the server does not do its part.
    """
    journal = _Journal(folder, settings)
    waiting = [question for question in dict.fromkeys(questions) if question not in journal]
    if waiting:
        _run(_ask_all(settings, waiting, journal))
    return [journal[question] for question in questions]


def simulate(
    settings: Judge, questions: list[Question], gold_reward: Callable[[str, str], float], seed: int
) -> list[dict]:
    """Verdicts of a judge who knows the truth but for noise, and who favours the first position.

    P(first) = σ((R*(first) − R*(second))/``noise`` + ``position_bias``).
    """
    rng, simulated = np.random.default_rng(seed), settings.simulated
    gaps = np.array([gold_reward(q.prompt, q.first) - gold_reward(q.prompt, q.second) for q in questions])
    first = rng.random(len(questions)) < 1 / (1 + np.exp(-(gaps / simulated.noise + simulated.position_bias)))
    return [
        {"verdict": "first" if chosen else "second", "requests": 0, "input_tokens": 0, "output_tokens": 0}
        for chosen in first
    ]


def probe(settings: Judge) -> None:
    """One short completion.

    Raises:
        RequestError: one line that says whether the address, the key or the model is at fault.
    """

    async def once():
        async with _client(settings, max_retries=0, timeout=4.0) as client:
            await client.chat.completions.create(model=settings.model, messages=[_message("Say yes.")], max_tokens=1)

    _run(_explained(settings, once()))


def verdict_of(form: str, reply: str) -> str | None:
    """What a reply says, strictly: one JSON object, as it is or in a code fence, with the form's fields and no others."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", reply.strip(), re.DOTALL)
    try:
        said = json.loads(fenced.group(1) if fenced else reply)
    except ValueError:
        return None
    if not isinstance(said, dict) or set(said) != set(_FIELDS[form]):
        return None
    if form == "pairwise":
        return {"1": "first", "2": "second", "tie": "tie"}.get(str(said["better"]))
    ratings = said["rating_1"], said["rating_2"]
    if not all(type(rating) is int and 1 <= rating <= 10 for rating in ratings):
        return None
    return "tie" if ratings[0] == ratings[1] else "first" if ratings[0] > ratings[1] else "second"


class _Journal:
    """The answered questions of one judge, in a file of JSON lines that only grows."""

    def __init__(self, folder: Path, settings: Judge):
        identity = settings.model_dump(include={"base_url", "model", "form", "structured", "temperature", "max_tokens"})
        identity["text"] = _form(settings.form).template
        self.path = folder / f"{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]}.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.records = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:  # the end of a line that a killed run was writing
                continue
            self.records[record["question"]] = record
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size
        if torn:
            self._append("\n")

    def __contains__(self, question: Question) -> bool:
        return self._key(question) in self.records

    def __getitem__(self, question: Question) -> dict:
        return self.records[self._key(question)]

    def add(self, question: Question, record: dict) -> None:
        record = {"question": self._key(question), **record}
        self._append(json.dumps(record) + "\n")
        self.records[record["question"]] = record

    def total(self, name: str) -> int:
        return sum(record[name] for record in self.records.values())

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    @staticmethod
    def _key(question: Question) -> str:
        return hashlib.sha256(json.dumps([*vars(question).values()]).encode()).hexdigest()[:24]


class _Budget:
    """What has been asked of this judge in all runs with this journal, and what is being asked."""

    def __init__(self, settings: Judge, journal: _Journal):
        self.settings, self.requests = settings, journal.total("requests")
        self.usd = self.cost(journal.total("input_tokens"), journal.total("output_tokens"))

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        price = self.settings.usd_per_million_tokens
        return (input_tokens * price.input + output_tokens * price.output) / 1e6

    def reserve(self, text: str) -> float:
        """Counts a request before it is sent, at the most that it can cost; returns that."""
        most = self.cost(len(text.encode()), self.settings.max_tokens)  # no tokenizer makes more tokens than bytes
        if self.requests + 1 > self.settings.max_requests:
            raise BudgetReached(f"judge.max_requests: {self.settings.max_requests}")
        if self.usd + most > self.settings.max_cost_usd:
            raise BudgetReached(f"judge.max_cost_usd: {self.settings.max_cost_usd:g}")
        self.requests += 1
        self.usd += most
        return most


async def _ask_all(settings: Judge, waiting: list[Question], journal: _Journal) -> None:
    budget, limit = _Budget(settings, journal), asyncio.Semaphore(settings.concurrency)
    failed: list[Exception] = []

    async def one(client, question):
        async with limit:
            if failed:
                return
            try:
                journal.add(question, await _answer(client, settings, budget, question))
            except Exception as error:
                failed.append(error)

    async with _client(settings, settings.max_retries, settings.timeout_s) as client:
        await asyncio.gather(*(one(client, question) for question in waiting))
    if failed:
        answered = sum(question in journal for question in waiting)
        if isinstance(failed[0], BudgetReached):
            raise BudgetReached(f"{failed[0]} is reached with {answered} of {len(waiting)} questions answered and kept")
        await _explained(settings, _raise(failed[0]))


async def _answer(client, settings: Judge, budget: _Budget, question: Question) -> dict:
    text = _form(settings.form).substitute(
        prompt=question.prompt.strip(), first=question.first.strip(), second=question.second.strip()
    )
    text = question.examples + text
    messages, record = [_message(text)], {"requests": 0, "input_tokens": 0, "output_tokens": 0}
    more = {"response_format": _response_format(settings.form)} if settings.structured else {}
    for _ in range(2):
        reserved = budget.reserve(json.dumps(messages))
        completion = await client.chat.completions.create(
            model=settings.model,
            messages=messages,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            seed=question.repeat,
            **more,
        )
        reply = (completion.choices[0].message.content if completion.choices else None) or ""
        used = completion.usage
        tokens = (used.prompt_tokens, used.completion_tokens) if used else (len(text.encode()), settings.max_tokens)
        budget.usd += budget.cost(*tokens) - reserved
        record["requests"] += 1
        record["input_tokens"] += tokens[0]
        record["output_tokens"] += tokens[1]
        verdict = verdict_of(settings.form, reply)
        if verdict is not None:
            break
        messages = [*messages, {"role": "assistant", "content": reply}, _message(_AGAIN)]
    return record | {"verdict": verdict, "reply": reply}


async def _explained(settings: Judge, work):
    """``work``, whose failures become one line that names the server and never the key."""
    import openai

    where = f"judge.base_url {settings.base_url}"
    try:
        return await work
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        what = "refused the key in" if os.environ.get(KEY) else "asks for a key; put it into"
        raise RequestError(f"{where}: the server {what} {KEY} (status {error.status_code})") from None
    except openai.NotFoundError:
        raise RequestError(f"{where}: no model {settings.model!r} there, or no chat completions (status 404)") from None
    except openai.APITimeoutError:
        raise RequestError(f"{where}: no answer in time") from None
    except openai.APIConnectionError:
        raise RequestError(f"{where}: nothing answers there") from None
    except openai.APIStatusError as error:
        raise RequestError(f"{where}: status {error.status_code}: {_without_key(error.message)}") from None
    except (openai.APIError, ValueError) as error:
        raise RequestError(f"{where}: not a chat completion: {_without_key(str(error))}") from None


def _run(work):
    # a notebook's kernel has an event loop running already, and that cannot wait for another
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _raise(error: Exception):
    raise error


def _client(settings: Judge, max_retries: int, timeout: float):
    from openai import AsyncOpenAI  # half a second

    # a server without keys takes any; the client insists on one
    key = os.environ.get(KEY) or "none"
    return AsyncOpenAI(base_url=settings.base_url, api_key=key, max_retries=max_retries, timeout=timeout)


def _form(name: str) -> Template:
    return Template((FORMS / f"{name}.txt").read_text(encoding="utf-8"))


def _response_format(form: str) -> dict:
    fields = _FIELDS[form]
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": form, "strict": True, "schema": schema}}


def _message(text: str) -> dict:
    return {"role": "user", "content": text}


def _without_key(text: str) -> str:
    key = os.environ.get(KEY)
    line = " ".join(text.split())[:200]
    return line.replace(key, "…") if key else line
