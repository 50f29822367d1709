"""An LLM as judge, asked over the OpenAI chat-completions protocol, or simulated where the truth is known.

A question shows a prompt and two responses in an order; its verdict is ``first``, ``second``, ``tie``, or None when two replies could not be
read. Every reply is written to a journal in the store as it arrives: a run that was stopped goes on where it was, and no question
is paid for twice. The key is the environment variable ``OPENAI_API_KEY`` and is written nowhere.
"""

import asyncio
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template

import numpy as np

from weaklib.data.errors import RequestError
from weaklib.supervisors.journal import FIELDS, Journal, Question
from weaklib.supervisors.judge_settings import Judge

FORMS = Path(__file__).parent / "forms"
KEY = "OPENAI_API_KEY"

_AGAIN = "That was not one JSON object of the form that was asked for. Reply with that object and nothing else."


class JudgeFailed(Exception):
    """The judge could not go on: a budget or a server; what was answered is in the journal."""


def ask(settings: Judge, form: str, questions: list[Question], folder: Path) -> list[dict]:
    """A record of each question: ``verdict``, ``reply`` (the last one), ``requests``, ``input_tokens``, ``output_tokens``.

    Args:
        form: the text of a question (:func:`form_text`).
        folder: where the journals lie, one for each judge (server, model, form and settings).

    Raises:
        JudgeFailed: says what stopped it and how many questions are answered.
    """
    journal = Journal(folder, settings, form)
    waiting = [question for question in dict.fromkeys(questions) if not journal.answered(question)]
    if waiting:
        _run(_ask_all(settings, Template(form), waiting, journal))
    return [journal.record(question) for question in questions]


def simulate(
    settings: Judge, questions: list[Question], gold_reward: Callable[[str, str], float], seed: int | list[int]
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

    try:
        _run(once())
    except _faults() as error:
        raise RequestError(_explained(settings, error)) from None


class _Budget:
    """What has been asked of this judge in all runs with this journal, and what is being asked."""

    def __init__(self, settings: Judge, journal: Journal):
        before = journal.all()
        self.settings, self.price, self.requests = settings, settings.usd_per_million_tokens, len(before)
        self.usd = self.price.usd(*(sum(reply[name] for reply in before) for name in ("input_tokens", "output_tokens")))

    def reserve(self, text: str) -> float:
        """Counts a request before it is sent, at the most that it can cost; returns that."""
        most = self.price.usd(len(text.encode()), self.settings.max_tokens)  # no tokenizer makes more tokens than bytes
        if self.requests + 1 > self.settings.max_requests:
            raise JudgeFailed(f"judge.max_requests: {self.settings.max_requests} is reached")
        if self.usd + most > self.settings.max_cost_usd:
            raise JudgeFailed(f"judge.max_cost_usd: {self.settings.max_cost_usd:g} is reached")
        self.requests += 1
        self.usd += most
        return most


async def _ask_all(settings: Judge, form: Template, waiting: list[Question], journal: Journal) -> None:
    budget, limit = _Budget(settings, journal), asyncio.Semaphore(settings.concurrency)
    failed: list[str] = []

    async def one(client, question):
        async with limit:
            try:
                while not failed and not journal.answered(question):
                    journal.add(
                        question, *await _reply(client, settings, form, budget, question, journal.record(question))
                    )
            except JudgeFailed as error:
                failed.append(str(error))
            except _faults() as error:
                failed.append(_explained(settings, error))

    async with _client(settings, settings.max_retries, settings.timeout_s) as client:
        await asyncio.gather(*(one(client, question) for question in waiting))
    if failed:
        answered = sum(map(journal.answered, waiting))
        raise JudgeFailed(f"{failed[0]}; {answered} of {len(waiting)} questions are answered and kept")


async def _reply(
    client, settings: Judge, form: Template, budget: _Budget, question: Question, before: dict
) -> tuple[str, int, int]:
    """The next reply to a question, and its tokens read and written; ``before`` is the record of an unreadable one, if there was."""
    text = question.examples + form.substitute(
        prompt=question.prompt.strip(), first=question.first.strip(), second=question.second.strip()
    )
    messages = [_message(text)]
    if before["requests"]:
        messages += [{"role": "assistant", "content": before["reply"]}, _message(_AGAIN)]
    reserved = budget.reserve(json.dumps(messages))
    completion = await client.chat.completions.create(
        model=settings.model,
        messages=messages,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=question.repeat,
        **({"response_format": _response_format(settings.form)} if settings.structured else {}),
    )
    reply = (completion.choices[0].message.content if completion.choices else None) or ""
    used = completion.usage
    tokens = (used.prompt_tokens, used.completion_tokens) if used else (len(text.encode()), settings.max_tokens)
    budget.usd += budget.price.usd(*tokens) - reserved
    return _without_key(reply), *tokens


def _faults() -> tuple[type[Exception], ...]:
    from openai import APIError

    return APIError, ValueError  # the second: a page that is no JSON


def _explained(settings: Judge, error: Exception) -> str:
    """One line that names the server and never the key."""
    import openai

    where = f"judge.base_url {settings.base_url}"
    if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        what = "refused the key in" if os.environ.get(KEY) else "asks for a key; put it into"
        return f"{where}: the server {what} {KEY} (status {error.status_code})"
    if isinstance(error, openai.NotFoundError):
        return f"{where}: no model {settings.model!r} there, or no chat completions (status 404)"
    if isinstance(error, openai.APITimeoutError):
        return f"{where}: no answer in time"
    if isinstance(error, openai.APIConnectionError):
        return f"{where}: nothing answers there"
    line = _without_key(" ".join(str(error).split()))[:200]
    return (
        f"{where}: status {error.status_code}: {line}"
        if isinstance(error, openai.APIStatusError)
        else f"{where}: not a chat completion: {line}"
    )


def _run(work):
    # a notebook's kernel has an event loop running already, and that cannot wait for another
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


def _client(settings: Judge, max_retries: int, timeout: float):
    from openai import AsyncOpenAI  # half a second

    # a server without keys takes any; the client insists on one
    key = os.environ.get(KEY) or "none"
    return AsyncOpenAI(base_url=settings.base_url, api_key=key, max_retries=max_retries, timeout=timeout)


def form_text(name: str) -> str:
    """The text of a question in the form ``name``, with ``$prompt``, ``$first`` and ``$second``."""
    return (FORMS / f"{name}.txt").read_text(encoding="utf-8")


def _response_format(form: str) -> dict:
    fields = FIELDS[form]
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": form, "strict": True, "schema": schema}}


def _message(text: str) -> dict:
    return {"role": "user", "content": text}


def _without_key(text: str) -> str:
    key = os.environ.get(KEY)
    return text.replace(key, "…") if key else text
