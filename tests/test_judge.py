"""The judge over HTTP: a server of the test's own that answers by script, and the simulated judge."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from weaklib.data.errors import RequestError
from weaklib.evaluation.judging import judge_reliability, win_rates
from weaklib.study.parameters import load_profile
from weaklib.supervisors import judge
from weaklib.supervisors.completions import KEY
from weaklib.supervisors.judge import Judge, JudgeFailed, Question, probe, simulate
from weaklib.supervisors.verdicts import form_text, verdict_of

READABLE = '{"better": "1"}'


class Server(ThreadingHTTPServer):
    """Answers with what ``script(number, body, headers)`` returns: (status, reply) or (status, reply, seconds to wait before)."""

    daemon_threads = True

    def __init__(self, script):
        self.script, self.asked, self.answered, self.lock = script, [], [], threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        with self.server.lock:
            self.server.asked.append(body)
            number = len(self.server.asked)
        status, reply, *wait = self.server.script(number, body, self.headers)
        time.sleep(*wait or [0])
        message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        completion = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [message],
            "usage": usage,
        }
        content = json.dumps(
            completion if status == 200 else {"error": {"message": reply} if isinstance(reply, str) else reply}
        ).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            with self.server.lock:
                self.server.answered.append(text)
        except BrokenPipeError:
            pass


@pytest.fixture
def serve():
    servers = []

    def start(script):
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()


def settings(url, **more) -> Judge:
    smoke = load_profile("smoke").judge.model_dump()
    return Judge(**smoke | {"base_url": url, "model": "m", "max_retries": 2, "timeout_s": 5.0} | more)


def ask(one: Judge, asked: list[Question], folder: Path) -> list[dict]:
    return judge.ask(one, form_text(one.form), asked, folder)


def questions(count) -> list[Question]:
    return [Question(f"prompt {i}", f"one {i}", f"two {i}") for i in range(count)]


@pytest.mark.parametrize(
    ("form", "reply", "verdict"),
    [
        ("pairwise", '{"better": "1"}', "first"),
        ("pairwise", ' {"better": "2"}\n', "second"),
        ("pairwise", '```json\n{"better": "tie"}\n```', "tie"),
        ("pairwise", '{"better": "3"}', None),
        ("pairwise", '{"better": 1}', "first"),
        ("pairwise", '{"better": "Tie"}', "tie"),
        ("pairwise", '{"better": true}', None),
        ("pairwise", '{"better": "1"', None),
        ("pairwise", '{"better": "1", "why": "longer"}', "first"),
        ("pairwise", 'I think {"better": "1"}', "first"),
        ("pairwise", 'Both {are} fine.\n```json\n{"better": "2"}\n```\nThat is all.', "second"),
        ("pairwise", '<think>\n{"better": "1"}? No.\n</think>\n\n{"better": "2"}', "second"),
        ("pairwise", '{"better": "1"}? No.</think>{"better": "2"}', "second"),
        ("pairwise", '<think>It is {"better": "1"}', None),
        ("pairwise", '<thinking>{"better": "1"}? But', None),
        ("pairwise", '[THINK]{"better": "1"}?[/THINK]{"better": "2"}', "second"),
        ("pairwise", '{"better": "1", "better": "2"}', None),
        ("pairwise", 'Either {"better": "1"} or {"better": "2"}', None),
        ("pairwise", "{" * 200_000, None),
        ("pairwise", '{"result": {"better": "2"}}', "second"),
        ("pairwise", '{"options": [{"better": "2"}], "better": "1"}', "first"),
        ("pairwise", '["1"]', None),
        ("pairwise", "", None),
        ("rating", '{"rating_1": 7, "rating_2": 3}', "first"),
        ("rating", '{"rating_1": 3, "rating_2": 10}', "second"),
        ("rating", '{"rating_1": 5, "rating_2": 5}', "tie"),
        ("rating", '{"rating_1": "7", "rating_2": 3.0, "reason": "kinder"}', "first"),
        ("rating", '{"rating_1": 0, "rating_2": 5}', None),
        ("rating", '{"rating_1": 5.5, "rating_2": 5}', None),
        ("rating", '{"rating_1": true, "rating_2": 5}', None),
        ("rating", '{"better": "1"}', None),
    ],
)
def test_the_verdict_is_read_whatever_stands_around_it(form, reply, verdict):
    assert verdict_of(form, reply) == verdict


def test_an_unreadable_reply_is_asked_again_once_and_then_reported(serve, tmp_path):
    def script(number, body, headers):
        about = body["messages"][0]["content"]
        if "prompt 0" in about:
            return 200, READABLE if len(body["messages"]) == 3 else "Well…"
        return 200, "No idea."

    server = serve(script)
    records = ask(settings(server.url, concurrency=1), questions(2), tmp_path)
    assert [r["verdict"] for r in records] == ["first", None]
    assert [r["requests"] for r in records] == [2, 2]
    assert [r["input_tokens"] for r in records] == [200, 200]
    assert records[1]["reply"] == "No idea."
    assert server.asked[1]["messages"][1] == {"role": "assistant", "content": "Well…"}


def test_structured_output_is_asked_for_only_if_wanted(serve, tmp_path):
    server = serve(lambda *_: (200, READABLE))
    ask(settings(server.url), questions(1), tmp_path)
    ask(settings(server.url, structured=True), questions(1), tmp_path)
    assert "response_format" not in server.asked[0]
    assert server.asked[1]["response_format"]["json_schema"]["schema"]["properties"]["better"]["enum"] == [
        "1",
        "2",
        "tie",
    ]


def test_faults_that_pass_are_survived(serve, tmp_path):
    faults = {1: (429, "slow down"), 2: (500, "oh"), 3: (200, READABLE, 1.5)}
    server = serve(lambda number, *_: faults.get(number, (200, READABLE)))
    records = ask(settings(server.url, concurrency=1, max_retries=4, timeout_s=1.0), questions(2), tmp_path)
    assert [r["verdict"] for r in records] == ["first", "first"]
    assert len(server.asked) == 5  # one too many requests, one server error, one time-out


def test_faults_that_stay_keep_what_was_answered(serve, tmp_path):
    server = serve(lambda number, *_: (200, READABLE) if number <= 3 else (500, "gone"))
    with pytest.raises(
        JudgeFailed, match="judge.base_url http://127.0.0.1.*: status 500: .*gone.*; 3 of 5 questions are answered"
    ):
        ask(settings(server.url, concurrency=1, max_retries=0), questions(5), tmp_path)
    healed = server.asked.copy()
    server.script = lambda *_: (200, READABLE)
    assert [r["verdict"] for r in ask(settings(server.url, concurrency=1), questions(5), tmp_path)] == ["first"] * 5
    assert len(healed) == 4 and len(server.asked) == 6


def test_a_stopped_run_goes_on_where_it_was(serve, tmp_path):
    """Killed while the server keeps it waiting, then run again: each question is answered once."""
    hanging = threading.Event()

    def script(number, body, headers):
        if number > 12 and not hanging.is_set():
            return 200, READABLE, 60
        return 200, READABLE

    server = serve(script)
    program = (
        "import json, sys\nfrom pathlib import Path\n"
        "from weaklib.supervisors.judge import Judge, Question, ask\n"
        "from weaklib.supervisors.verdicts import form_text\n"
        "settings = Judge(**json.loads(sys.argv[1]))\n"
        "asked = [Question(f'prompt {i}', f'one {i}', f'two {i}') for i in range(30)]\n"
        "ask(settings, form_text(settings.form), asked, Path(sys.argv[2]))"
    )
    one = settings(server.url, concurrency=4, timeout_s=120.0)
    process = subprocess.Popen([sys.executable, "-c", program, one.model_dump_json(), str(tmp_path)])
    while len(server.asked) < 16:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    hanging.set()
    with next(tmp_path.glob("*.jsonl")).open("a") as journal:
        journal.write('{"question": "torn')  # as if killed while writing
    assert len(server.answered) == 12
    records = ask(one, questions(30), tmp_path)
    assert [r["verdict"] for r in records] == ["first"] * 30
    while len(server.answered) < 30:  # the server notes an answer after it has gone out
        time.sleep(0.05)
    assert sorted(server.answered) == sorted(set(server.answered)) and len(server.answered) == 30
    ask(one, questions(30), tmp_path)
    assert len(server.answered) == 30


def test_the_budget_of_requests_holds_over_all_runs(serve, tmp_path):
    server = serve(lambda *_: (200, READABLE))
    for _ in range(2):
        with pytest.raises(
            JudgeFailed, match="judge.max_requests: 10 is reached; .* of .* questions are answered and kept"
        ):
            ask(settings(server.url, max_requests=10), questions(40), tmp_path)
        assert len(server.asked) == 10


def test_the_budget_holds_where_replies_cannot_be_read(serve, tmp_path):
    """A question that was asked once when the budget ended is asked once more when it is raised, and counts from the first reply on."""
    server = serve(lambda *_: (200, "No idea."))
    for _ in range(3):
        with pytest.raises(JudgeFailed, match="judge.max_requests: 7 is reached"):
            ask(settings(server.url, max_requests=7, concurrency=1), questions(5), tmp_path)
        assert len(server.asked) == 7
    records = ask(settings(server.url, max_requests=10, concurrency=1), questions(5), tmp_path)
    assert len(server.asked) == 10 and [record["requests"] for record in records] == [2] * 5
    assert server.asked[7]["messages"][1] == {"role": "assistant", "content": "No idea."}


def test_the_budget_of_money_holds(serve, tmp_path):
    server = serve(lambda *_: (200, READABLE))
    price = {"input": 1000.0, "output": 1000.0}  # 110 tokens cost 0.11
    with pytest.raises(JudgeFailed, match="judge.max_cost_usd: 2 is reached"):
        ask(settings(server.url, max_cost_usd=2.0, usd_per_million_tokens=price), questions(40), tmp_path)
    assert 1 <= len(server.asked) <= 2.0 / 0.11


@pytest.mark.parametrize(
    ("status", "key", "words"),
    [
        (401, "sk-secret", "the server refused the key in OPENAI_API_KEY"),
        (401, None, "the server asks for a key; put it into OPENAI_API_KEY"),
        (404, None, "no model 'm' there"),
        (503, "sk-secret", "status 503"),
    ],
)
def test_the_probe_names_what_is_wrong_and_never_the_key(serve, monkeypatch, status, key, words):
    monkeypatch.delenv(KEY, raising=False)
    if key:
        monkeypatch.setenv(KEY, key)
    server = serve(lambda number, body, headers: (status, f"no, {headers['Authorization']}, no"))
    with pytest.raises(RequestError) as caught:
        probe(settings(server.url))
    assert words in str(caught.value) and "secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "words"), [(401, "refused the key in OPENAI_API_KEY"), (404, "no model 'm' there")])
def test_a_server_that_does_not_serve_is_one_line_and_exit_2_before_any_work(serve, tmp_path, status, words):
    server = serve(lambda *_: (status, "no"))
    folders = [part for name in ("store", "runs", "figures") for part in (f"--{name}", str(tmp_path / name))]
    command = [sys.executable, "-m", "weaklib", "reproduce", "--profile", "smoke", "--only", "08_judge", *folders]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--set", f"judge.base_url={server.url}", "judge.model=m"],
        capture_output=True,
        text=True,
        env=os.environ | {KEY: "sk-secret"},
    )
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 2 and words in line and "secret" not in line and not done.stdout
    assert not list(tmp_path.iterdir()) and time.perf_counter() - started < 30


def test_the_probe_asks_as_a_question_is_asked(serve):
    """What a server refuses or takes long for is found before any work, and what it can answer is no fault."""
    no_temperature = {"message": "temperature is not supported", "param": "temperature", "code": "unsupported_value"}
    server = serve(lambda number, body, headers: (400, no_temperature) if "temperature" in body else (200, READABLE))
    with pytest.raises(RequestError, match="temperature is not supported"):
        probe(settings(server.url))
    server = serve(lambda number, body, headers: (200, READABLE, 4.5))
    probe(settings(server.url, timeout_s=30.0))
    assert server.asked[0]["max_tokens"] == settings(server.url).max_tokens


def test_a_server_that_refused_every_question_is_asked_again(serve, tmp_path):
    """It was not ready; what it said is in the line."""
    healed: list = []
    server = serve(lambda *_: (200, READABLE) if healed else (400, "no models are loaded"))
    with pytest.raises(JudgeFailed, match="no models are loaded"):
        ask(settings(server.url), questions(10), tmp_path)
    healed.append(True)
    assert {r["verdict"] for r in ask(settings(server.url), questions(10), tmp_path)} == {"first"}


@pytest.mark.parametrize("status", [403, 451])
def test_a_question_that_a_filter_refuses_is_one_question(serve, tmp_path, status):
    flagged = lambda body: "prompt 9" in body["messages"][0]["content"]  # noqa: E731
    server = serve(lambda _, body, __: (status, "your input was flagged") if flagged(body) else (200, READABLE))
    records = ask(settings(server.url), questions(12), tmp_path)
    assert [r["verdict"] for r in records] == ["first"] * 9 + [None] + ["first"] * 2
    assert "your input was flagged" in records[9]["refused"]


def test_nothing_answers():
    with pytest.raises(RequestError, match="nothing answers there"):
        probe(settings("http://127.0.0.1:9/v1"))


def test_a_page_that_is_no_completion(serve):
    server = serve(lambda *_: (200, READABLE))
    with pytest.raises(RequestError, match="no model 'm' there, or no chat completions"):
        server.script = lambda *_: (404, "")
        probe(settings(server.url))


def test_a_judge_of_whom_nothing_can_be_read_is_stopped(serve, tmp_path):
    """And a rerun asks it nothing more."""
    server = serve(lambda *_: (200, "No idea."))
    for _ in range(2):
        with pytest.raises(
            JudgeFailed, match="judge.model m: of 8 questions none has an answer that can be read: .*No idea"
        ):
            ask(settings(server.url), questions(50), tmp_path)
        assert len(server.asked) == 16


def test_a_refused_question_is_unjudged_and_not_asked_again(serve, tmp_path):
    def script(number, body, headers):
        refused = any(f"prompt {i}\n" in body["messages"][0]["content"] for i in (3, 5))
        return (400, "filtered by content_filter") if refused else (200, READABLE)

    server = serve(script)
    for _ in range(2):
        records = ask(settings(server.url), questions(20), tmp_path)
        assert [number for number, record in enumerate(records) if record["verdict"] is None] == [3, 5]
        assert "content_filter" in records[3]["refused"] and records[3]["input_tokens"] == 0
        assert len(server.asked) == 20


def test_an_empty_reply_without_usage_is_unreadable_and_counted(serve, tmp_path):
    server = serve(lambda number, body, _: (200, None if "prompt 0" in body["messages"][0]["content"] else READABLE))
    records = ask(settings(server.url), questions(2), tmp_path)
    assert [record["verdict"] for record in records] == [None, "first"] and records[0]["requests"] == 2


def test_a_limit_of_another_name(serve, tmp_path):
    def script(number, body, headers):
        return (200, READABLE) if "max_completion_tokens" in body else (400, "use 'max_completion_tokens' instead")

    server = serve(script)
    records = ask(settings(server.url, concurrency=1), questions(5), tmp_path)
    assert [record["verdict"] for record in records] == ["first"] * 5 and len(server.asked) == 6
    assert "max_tokens" not in server.asked[-1]


def test_a_setting_that_the_server_does_not_take_stops_at_once(serve, tmp_path):
    """It is no matter of one question."""
    server = serve(lambda *_: (400, {"message": "temperature must be 1", "param": "temperature"}))
    with pytest.raises(JudgeFailed, match="status 400: .*temperature must be 1.*; 0 of 20 questions"):
        ask(settings(server.url, concurrency=1), questions(20), tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize(("key", "stored"), [("1", READABLE), ("better-secret", '{"better": "1", "by": "…"}')])
def test_a_reply_is_judged_as_it_came_and_stored_without_the_key(serve, tmp_path, monkeypatch, key, stored):
    monkeypatch.setenv(KEY, key)
    server = serve(lambda *_: (200, stored.replace("…", key)))
    for _ in range(2):
        (record,) = ask(settings(server.url), questions(1), tmp_path)
        assert record["verdict"] == "first" and record["reply"] == stored
    monkeypatch.setenv(KEY, READABLE)  # whatever the key is, the verdict was read before it was taken out
    (record,) = ask(settings(serve(lambda *_: (200, READABLE)).url), questions(1), tmp_path)
    assert record["verdict"] == "first" and record["reply"] == "…"


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:9")
    with pytest.raises(
        RequestError, match="^the proxy ALL_PROXY=socks5://127.0.0.1:9 cannot be used: .*SOCKS"
    ) as caught:
        probe(settings("http://127.0.0.1:9/v1"))
    assert "\n" not in str(caught.value)


def judged(position_bias: float, share: float, seeds=3, prompts=400) -> pd.DataFrame:
    """Verdicts of the simulated judge on an arm whose response is better on ``share`` of the prompts."""
    rng = np.random.default_rng(0)
    gold = {f"p{i}": 2.0 if better else -2.0 for i, better in enumerate(rng.random(prompts) < share)}
    setting = {"annotator.kind": "scalar_head", "arm": "cw", "weak": "w", "strong": "s"}
    rows = [
        setting | {"seed": seed, "prompt": prompt, "arm_first": first, "repeat": repeat}
        for seed in range(seeds)
        for prompt in gold
        for first in (True, False)
        for repeat in range(2)
    ]
    asked = [
        Question(r["prompt"], *(("arm", "base") if r["arm_first"] else ("base", "arm")), r["repeat"]) for r in rows
    ]
    simulated = settings(None, model=None, simulated={"noise": 1.0, "position_bias": position_bias})
    records = simulate(simulated, asked, lambda prompt, response: gold[prompt] * (response == "arm"), seed=0)
    truth = ["first" if (gold[r["prompt"]] > 0) == r["arm_first"] else "second" for r in rows]
    return pd.DataFrame(rows).assign(verdict=[r["verdict"] for r in records], truth=truth, asked=True)


def test_swapping_takes_the_position_bias_away():
    verdicts = judged(position_bias=1.0, share=0.5)
    rates = {order: win_rates(verdicts, ["arm"], order).iloc[0] for order in ("arm first", "arm second", "both orders")}
    assert rates["arm first"]["ci_low"] > 0.5 > rates["arm second"]["ci_high"]
    assert rates["both orders"]["ci_low"] < 0.5 < rates["both orders"]["ci_high"]
    assert judge_reliability(verdicts)["first_position"] > 0.6
    assert judge_reliability(judged(position_bias=0.0, share=0.5))["first_position"] == pytest.approx(0.5, abs=0.03)


def test_a_judge_that_always_says_the_same_says_nothing():
    verdicts = judged(position_bias=0.0, share=0.5).assign(verdict="first")
    assert np.isnan(win_rates(verdicts, ["arm"], "both orders").iloc[0]["estimate"])


def test_a_better_arm_wins_whatever_the_bias():
    rate = win_rates(judged(position_bias=1.0, share=0.8), ["arm"], "both orders").iloc[0]
    assert rate["ci_low"] > 0.6


def test_reliability_by_hand():
    def row(prompt, arm_first, repeat, verdict, truth="first"):
        setting = {
            "annotator.kind": "scalar_head",
            "arm": "cw",
            "weak": "w",
            "strong": "s",
            "seed": 0,
            "prompt": prompt,
            "asked": prompt != "same",
        }
        return setting | {"arm_first": arm_first, "repeat": repeat, "verdict": verdict, "truth": truth}

    verdicts = pd.DataFrame(
        [
            row("a", True, 0, "first"), row("a", True, 1, "first"),
            row("a", False, 0, "second", "second"), row("a", False, 1, "first", "second"),
            row("b", True, 0, "first"), row("b", True, 1, None),
            row("b", False, 0, "first", "second"), row("b", False, 1, "tie", "second"),
            row("c", True, 0, None), row("c", True, 1, "second"),
            row("c", False, 0, "tie", "second"), row("c", False, 1, "tie", "second"),
        ]
    )  # fmt: skip
    nobody_asked = [row("same", first, repeat, "tie", "tie") for first in (True, False) for repeat in (0, 1)]
    found = judge_reliability(pd.concat([verdicts, pd.DataFrame(nobody_asked)]))
    assert found["unreadable"] == pytest.approx(2 / 12)
    assert found["first_position"] == pytest.approx(5 / 7)
    assert found["flips"] == pytest.approx(1 / 2)  # b; of c only one order was read
    assert found["consistency"] == pytest.approx(2 / 4)
    assert found["right"] == pytest.approx(4 / 7)
    rate = win_rates(verdicts, ["arm"], "both orders").iloc[0]
    assert rate["estimate"] == pytest.approx((1 + 0.5) / 2) and rate["left_out"] == 1
    assert np.isnan(win_rates(verdicts[verdicts["prompt"] == "a"], ["arm"], "both orders").iloc[0]["estimate"])


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A tiny chat model of random weights, in the hub's format."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from weaklib.training.base import train_tokenizer

    folder = tmp_path_factory.mktemp("chat")
    tokenizer = train_tokenizer(["What is better, one or two? Answer 1 or 2."] * 5, 300)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}<assistant>"
    )
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    tokens = {
        "vocab_size": len(tokenizer),
        "eos_token_id": 0,
        "bos_token_id": 0,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = AutoConfig.for_model("llama", **sizes, **tokens, max_position_embeddings=4096)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def transformers_serve(chat_model):
    """A real server of the protocol; it needs no key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(sys.executable).with_name("transformers"),
        "serve",
        chat_model,
        "--device",
        "cpu",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            break
        except OSError:
            assert process.poll() is None, "transformers serve ended"
            time.sleep(0.5)
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.wait()


def test_a_real_server_is_asked_and_its_nonsense_is_reported(transformers_serve, chat_model, tmp_path):
    """Random weights write no JSON, and transformers serve ignores that it was asked for."""
    one = settings(transformers_serve, model=str(chat_model), structured=True, max_tokens=8, timeout_s=60.0)
    probe(one)
    records = ask(one, questions(3), tmp_path)
    assert [r["verdict"] for r in records] == [None] * 3
    assert all(r["requests"] == 2 and r["input_tokens"] > 50 and r["reply"] for r in records)


def test_the_notebook_stops_at_a_real_server_that_talks_nonsense_and_the_key_is_nowhere(
    transformers_serve, chat_model, tmp_path, monkeypatch
):
    """Through the command line: all replies are nonsense, so that it stops early, and draws nothing."""
    monkeypatch.setenv(KEY, "sk-very-secret")
    monkeypatch.delenv("WEAKLIB_SCHEDULER", raising=False)
    folders = [part for name in ("store", "runs", "figures") for part in (f"--{name}", str(tmp_path / name))]
    small = ["seeds=[0]", "models.weak=opt-tiny", "models.strong=opt-small", "judge.prompts=2", "judge.repeats=1"]
    small.append("learning_rate=0.01")  # policies that say the same are ties that nobody is asked about
    server = [f"judge.base_url={transformers_serve}", f"judge.model={chat_model}", "judge.max_tokens=4"]
    command = [sys.executable, "-m", "weaklib", "reproduce", "--profile", "smoke", "--only", "08_judge", *folders]
    done = subprocess.run([*command, "--set", *small, *server], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert f"judge.model {chat_model}: of 8 questions none has an answer that can be read" in done.stderr
    assert not list((tmp_path / "figures").rglob("*judge*"))
    assert "secret" not in done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 50 and not [file for file in files if b"very-secret" in file.read_bytes()]
