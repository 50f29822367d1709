"""An LLM as judge, asked over the OpenAI chat-completions protocol, or simulated where the truth is known."""

import hashlib
import json
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
from weaklib.supervisors.completions import Refused, client, complete, scrubbed
from weaklib.supervisors.verdicts import REPLIES, verdict_of

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
    """One short completion, asked for as a question is. Raises RequestError: one line that says whether address, key,
    model or a setting is at fault."""
    hasty = settings.model_copy(update={"max_retries": 0})
    complete(client(hasty), hasty, ["Say yes."], **_how(settings, repeat=0))


def _how(settings: Judge, repeat: int) -> dict:
    how = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, "seed": repeat}
    if settings.structured:
        schema = {"name": settings.form, "strict": True, "schema": REPLIES[settings.form].model_json_schema()}
        how["response_format"] = {"type": "json_schema", "json_schema": schema}
    return how


class _Server:
    """A judge (server, model, form, settings), its replies, in a file of JSON lines that only grows, and their costs.
    A question is answered by a reply that can be read, by two that cannot, or by a refusal."""

    def __init__(self, settings: Judge, form: str, folder: Path):
        identity = settings.model_dump(include={"base_url", "model", "form", "structured", "temperature", "max_tokens"})
        self.settings, self.form, self.usd = settings, Template(form), settings.usd_per_million_tokens.usd
        self.client, self.lock, self.replies = client(settings), Lock(), {}
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
        if all(said.get("refused") for some in self.replies.values() for said in some):
            self.replies = {}  # a server that refused every question was not ready for any

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
        most = len(json.dumps(texts)), settings.max_tokens  # no tokenizer makes more tokens than bytes
        with self.lock:
            number, usd = len(self.costs), self.usd(*most)
            for budget, spent in (("max_requests", number + 1), ("max_cost_usd", sum(self.costs) + usd)):
                if spent > (limit := getattr(settings, budget)):
                    raise RequestError(f"judge.{budget}: {limit:.10g} is reached")
            self.costs.append(usd)
        entry = {"question": _digest(question), "reply": "", "input_tokens": 0, "output_tokens": 0}
        try:
            answered = any(not said.get("refused") for some in list(self.replies.values()) for said in some)
            reply, used = complete(self.client, settings, texts, answered, **_how(settings, question.repeat))
            read, written = (getattr(used, f"{what}_tokens", None) for what in ("prompt", "completion"))
            read, written = (n if isinstance(n, int) else at_most for n, at_most in zip((read, written), most))
            entry |= {"reply": scrubbed(reply), "input_tokens": read, "output_tokens": written}
            if entry["reply"] != reply:  # judged as it was received
                entry["verdict"] = verdict_of(settings.form, reply)
        except Refused as refusal:
            entry["refused"], read, written = str(refusal), 0, 0
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.costs[number] = self.usd(read, written)
        self.replies.setdefault(entry["question"], []).append(entry)


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
