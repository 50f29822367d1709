"""An LLM as judge, asked over the OpenAI chat-completions protocol, or simulated where the truth is known."""

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from string import Template
from threading import Lock
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pydantic
from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from weaklib.data.errors import RequestError

FORMS = Path(__file__).parents[2] / "params" / "forms"
KEY = "OPENAI_API_KEY"  # of the environment; the key itself is written nowhere
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


_RATING = (int, Field(ge=1, le=10))
# What a reply to each form must be; asked of the server only if ``structured`` says so, and checked in any case.
_REPLIES = {
    "pairwise": pydantic.create_model("Pairwise", __base__=Settings, better=(Literal["1", "2", "tie"], ...)),
    "rating": pydantic.create_model("Rating", __base__=Settings, rating_1=_RATING, rating_2=_RATING),
}


class JudgeFailed(Exception):
    """A budget or a server stopped the judge; what was answered is kept."""


class Question(NamedTuple):
    prompt: str
    first: str
    second: str
    repeat: int = 0
    examples: str = ""  # what stands before it


def form_text(name: str) -> str:
    """The text of a question in the form ``name``, with ``$prompt``, ``$first`` and ``$second``."""
    return (FORMS / f"{name}.txt").read_text(encoding="utf-8")


def verdict_of(form: str, reply: str) -> str | None:
    """What a reply says, strictly: one JSON object, bare or in a code fence, with the form's fields and no others."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", reply.strip(), re.DOTALL)
    try:
        said = _REPLIES[form].model_validate_json(fenced.group(1) if fenced else reply)
    except ValueError:
        return None
    lead = {"1": 1, "2": -1, "tie": 0}[said.better] if form == "pairwise" else said.rating_1 - said.rating_2
    return "first" if lead > 0 else "second" if lead < 0 else "tie"


def ask(settings: Judge, form: str, questions: list[Question], folder: Path) -> list[dict]:
    """A record of each question: ``verdict`` (``first``, ``second``, ``tie``; None: two replies could not be read),
    last ``reply``, ``requests``, ``input_tokens``, ``output_tokens``. ``form`` is the text of a question; each reply
    is kept in ``folder`` as it comes: no question is paid for twice. Raises JudgeFailed, which says what stopped it."""
    server, failed = _Server(settings, form, folder), []
    waiting = [question for question in dict.fromkeys(questions) if not server.record(question)["answered"]]

    def answer(question: Question) -> None:
        try:
            while not failed and not server.record(question)["answered"]:
                server.ask(question)
        except RequestError as error:
            failed.append(error)

    with ThreadPoolExecutor(settings.concurrency) as threads:
        list(threads.map(answer, waiting))
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
    A question is answered by a reply that can be read, or by two."""

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
        last = replies[-1]["reply"] if replies else ""
        record = {"verdict": verdict_of(self.settings.form, last), "reply": last, "requests": len(replies)}
        record |= {name: sum(reply[name] for reply in replies) for name in ("input_tokens", "output_tokens")}
        return record | {"answered": record["verdict"] is not None or record["requests"] >= 2}

    def ask(self, question: Question) -> None:
        """Asks once, with the first reply if that could not be read, and keeps what comes."""
        settings, before = self.settings, self.record(question)
        shown = {name: getattr(question, name).strip() for name in ("prompt", "first", "second")}
        texts = [question.examples + self.form.substitute(shown)]
        texts += [before["reply"], _AGAIN] if before["requests"] else []
        how = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, "seed": question.repeat}
        if settings.structured:
            schema = {"name": settings.form, "strict": True, "schema": _REPLIES[settings.form].model_json_schema()}
            how["response_format"] = {"type": "json_schema", "json_schema": schema}
        most = len(json.dumps(texts)), settings.max_tokens  # no tokenizer makes more tokens than bytes
        with self.lock:
            number, usd = len(self.costs), self.usd(*most)
            for budget, spent in (("max_requests", number + 1), ("max_cost_usd", sum(self.costs) + usd)):
                if spent > (limit := getattr(settings, budget)):
                    raise RequestError(f"judge.{budget}: {limit:.10g} is reached")
            self.costs.append(usd)
        reply, used = _complete(self.client, settings, texts, **how)
        read, written = (used.prompt_tokens, used.completion_tokens) if used else most
        entry = {"question": _digest(question), "reply": reply, "input_tokens": read, "output_tokens": written}
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.costs[number] = self.usd(read, written)
        self.replies.setdefault(entry["question"], []).append(entry)


def _complete(client, settings: Judge, texts: list[str], **how) -> tuple:
    """The reply, and the server's count of tokens, if any. Raises RequestError, which names it, never the key."""
    import openai

    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts)]
    try:
        completion = client.chat.completions.create(model=settings.model, messages=messages, **how)
        reply = (completion.choices[0].message.content if completion.choices else None) or ""
        return reply.replace(client.api_key, "…"), completion.usage
    except (openai.APIError, AttributeError, ValueError) as error:  # the last two: a page that is no completion
        status = getattr(error, "status_code", None)
        said = " ".join(str(error).replace(client.api_key, "…").split())[:200]
        if isinstance(error, openai.APIConnectionError):
            said = "no answer in time" if isinstance(error, openai.APITimeoutError) else "nothing answers there"
        elif status in (401, 403):
            refused = "refused the key in" if os.environ.get(KEY) else "asks for a key; put it into"
            said = f"the server {refused} {KEY} (status {status})"
        elif status == 404:
            said = f"no model {settings.model!r} there, or no chat completions (status 404)"
        else:
            said = f"status {status}: {said}" if status else f"not a chat completion: {said}"
        raise RequestError(f"judge.base_url {settings.base_url}: {said}") from None


def _client(settings: Judge):
    import openai  # two seconds

    key = os.environ.get(KEY) or "no-key-is-set"  # a server without keys takes any; the client insists on one
    limits = {"max_retries": settings.max_retries, "timeout": settings.timeout_s}
    return openai.OpenAI(base_url=settings.base_url, api_key=key, **limits)


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
