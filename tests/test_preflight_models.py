"""What is said of models that are missing, gated or not fit for what is asked of them; the hub is a server of this test's."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from weaklib.data.errors import RequestError
from weaklib.study import checks
from weaklib.study.parameters import load_profile
from weaklib.training.base import train_tokenizer

REVISION = "a" * 40
ERRORS = {"gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound")}


class Hub(BaseHTTPRequestHandler):
    """Knows owner/open at REVISION, and owner/gated, which it does not give."""

    def do_GET(self):
        name = self.path.split("/")[4]  # /api/models/owner/NAME/...
        code, error = ERRORS.get(name, (200, ""))
        if name == "open" and "revision" in self.path and REVISION not in self.path:
            code, error = 404, "RevisionNotFound"
        body = json.dumps({"id": f"owner/{name}", "siblings": []}).encode()
        self.send_response(code)
        for header, value in (("X-Error-Code", error), ("Content-Length", str(len(body)))):
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def said(tmp_path, models: dict[str, str], **environment) -> dict[str, str]:
    """What the check says of each hub id (at its revision) in an environment of its own."""
    script = (
        "import json, sys\nfrom weaklib.study.parameters import load_profile\nfrom weaklib.data.errors import RequestError\nfrom weaklib.study import checks\n"
        "for model, revision in json.loads(sys.argv[1]).items():\n"
        "    changes = {'models.weak': ['a'], 'models.published': {'a': f'{model}@{revision}' if revision else model}}\n"
        "    try:\n        checks.check_models(load_profile('smoke', changes))\n        print(json.dumps([model, '']))\n"
        "    except RequestError as error:\n        print(json.dumps([model, str(error)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(models)],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(map(json.loads, done.stdout.splitlines()))


def test_what_the_hub_says_is_one_line(hub, tmp_path):
    asked = {"owner/open": REVISION, "owner/gated": REVISION, "owner/missing": REVISION, "owner/unpinned": ""}
    answers = said(tmp_path, asked, HF_ENDPOINT=hub)
    assert answers["owner/open"] == ""
    assert "owner/gated is gated: accept its terms" in answers["owner/gated"]
    assert "owner/missing: the hub has no such model" in answers["owner/missing"]
    assert "model owner/unpinned: no commit of the hub is named: owner/unpinned@COMMIT" in answers["owner/unpinned"]
    assert f"no revision {'b' * 40}" in said(tmp_path, {"owner/open": "b" * 40}, HF_ENDPOINT=hub)["owner/open"]
    assert all("\n" not in answer for answer in answers.values())


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_the_hub_the_line_says_how_to_fetch(environment, tmp_path):
    (answer,) = said(tmp_path, {"owner/open": REVISION}, **environment).values()
    assert answer.startswith("model owner/open is not in the hub's cache")
    assert answer.endswith(f"fetch it by: hf download owner/open --revision {REVISION}") and "\n" not in answer


def test_a_model_in_the_cache_is_looked_at_as_a_folder(tmp_path):
    snapshot = tmp_path / "hub" / "models--owner--open" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    tokenizer = train_tokenizer(["Hello there."] * 5, 300)
    size = {"hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = AutoConfig.for_model("opt", **size, max_position_embeddings=16, vocab_size=len(tokenizer))
    AutoModelForCausalLM.from_config(config).save_pretrained(snapshot)
    tokenizer.save_pretrained(snapshot)
    known = (snapshot / "tokenizer_config.json").read_text()
    (snapshot / "tokenizer_config.json").write_text("{}")
    (answer,) = said(tmp_path, {"owner/open": REVISION}, HF_HUB_OFFLINE="1").values()
    assert "its tokenizer has no eos_token" in answer
    (snapshot / "tokenizer_config.json").write_text(known)
    assert said(tmp_path, {"owner/open": REVISION}, HF_HUB_OFFLINE="1") == {"owner/open": ""}
    (snapshot / "model.safetensors").unlink()
    (answer,) = said(tmp_path, {"owner/open": REVISION}, HF_HUB_OFFLINE="1").values()
    assert "is not in the hub's cache" in answer  # as a download leaves it that was stopped


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dialogue": "chat"}, "dialogue: chat was asked for, the tokenizer of"),
        ({"device": "cuda"}, "device: cuda is not there"),
    ],
)  # fmt: skip
def test_what_a_model_or_the_machine_lacks(changes, line):
    with pytest.raises(RequestError, match="^" + line):
        checks.check(load_profile("smoke", changes))
