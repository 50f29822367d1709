"""Kind ``dataset``: folders and a hub cache in the layout of the published repositories, made here with their true columns."""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from weaklib.arms import graph
from weaklib.arms.stage import Store
from weaklib.data import preference_datasets
from weaklib.data.errors import RequestError
from weaklib.study import checks
from weaklib.study.parameters import load_profile
from weaklib.training.base import train_tokenizer

REVISION = "0123456789abcdef0123456789abcdef01234567"
TRAIN, TEST = 40, 15
BOTH = ["harmless-base", "helpful-base"]


def question(number, part=""):
    return f"How do I bake bread number {number} {part}?"


def hh_rows(split, part="harmless-base", count=None):
    """Test prompt 0 is a training prompt; training row 1 is long; row 2's dialogues part early; row 3 ends with the human."""
    numbers = range(TRAIN) if split == "train" else [0, *range(100, 99 + TEST)]
    rows = []
    for number in list(numbers)[:count]:
        start = f"\n\nHuman: Hi.\n\nAssistant: Hello?\n\nHuman: {question(number, part)}\n\nAssistant:"
        rows.append({"chosen": start + " With flour.", "rejected": start + f" Go away {number}."})
    if split == "train" and count is None:
        rows[1]["rejected"] += " Go away." * 300
        rows[2]["rejected"] = "\n\nHuman: Hi.\n\nAssistant: What?\n\nHuman: Bread.\n\nAssistant: No."
        rows[3]["chosen"] += "\n\nHuman: Thanks!"
    return rows


def write_hh(folder, parts=BOTH, **rows):
    for part in parts:
        for split in ("train", "test"):
            file = folder / part / f"{split}.jsonl.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(row, ensure_ascii=False) for row in rows.get(split, hh_rows(split, part))]
            file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


SUMMARY = pa.struct({"text": pa.string(), "policy": pa.string(), "note": pa.string()})
INFO = pa.struct({key: pa.string() for key in ("id", "post", "title", "subreddit", "site", "article")})
COMPARISON = pa.schema(
    {"info": INFO, "summaries": pa.list_(SUMMARY), "choice": pa.int32(), "worker": pa.string(), "batch": pa.string()}
    | {"split": pa.string(), "extra": pa.struct({"confidence": pa.int32()})}
)
MESSAGES = pa.list_(pa.struct({"content": pa.string(), "role": pa.string()}))
BINARIZED = pa.schema(
    {"prompt": pa.string(), "prompt_id": pa.string(), "chosen": MESSAGES, "rejected": MESSAGES, "messages": MESSAGES}
    | {"score_chosen": pa.float64(), "score_rejected": pa.float64()}
)
TLDR_TEXT = pa.schema({side: pa.string() for side in ("prompt", "chosen", "rejected")})


def comparison(number, choice=1, **info):
    info = {"id": f"t3_{number}", "post": question(number), "title": "Bread", "subreddit": "baking"} | info
    texts = [f" No bread {number}.", "Bread is baked. "]
    summaries = [{"text": text, "policy": "sup4", "note": None} for text in (texts if choice else texts[::-1])]
    return {"info": info, "summaries": summaries, "choice": choice, "split": "train", "extra": {"confidence": 5}}


def binarized(number, rejected=None, scores=(8.0, 5.0)):
    def chat(reply):
        return [{"content": question(number), "role": "user"}, {"content": reply, "role": "assistant"}]

    reply = "Like so:\n\nHuman: says nothing.\n\nAssistant: With flour."
    row = {"prompt": question(number), "prompt_id": str(number), "chosen": chat(reply), "messages": chat(reply)}
    row["rejected"] = chat(f"No {number}." if rejected is None else rejected)
    return row | {"score_chosen": scores[0], "score_rejected": scores[1]}


def write_parquet(file, rows, schema):
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), file)


def write_tldr(folder):
    article = {"post": None, "title": None, "subreddit": None, "article": "News."}
    train = [comparison(number, choice=number % 2) for number in range(TRAIN)]
    test = [comparison(number) for number in range(100, 100 + TEST)] + [comparison(200, **article)]
    write_parquet(folder / "comparisons" / "train" / "0000.parquet", train, COMPARISON)
    write_parquet(folder / "comparisons" / "validation" / "0000.parquet", test, COMPARISON)
    return folder


def write_tldr_of_trl(folder):
    for split, start, count in (("train", 0, TRAIN), ("validation", 100, TEST)):
        rows = [
            {
                "prompt": f"SUBREDDIT: r/baking\n\nTITLE: Bread\n\nPOST: {question(number)}\n\nTL;DR:",
                "chosen": " Bread is baked.",
                "rejected": f" No bread {number}.",
            }
            for number in range(start, start + count)
        ]
        write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows, TLDR_TEXT)
    return folder


def write_ultrafeedback(folder):
    same = binarized(TRAIN + 1)["chosen"][1]["content"]
    train = [binarized(number) for number in range(TRAIN)]
    train += [binarized(TRAIN, scores=(7.0, 7.0)), binarized(TRAIN + 1, rejected=same)]
    test = [binarized(number) for number in range(100, 100 + TEST)]
    write_parquet(folder / "data" / "train_prefs-00000-of-00001.parquet", train, BINARIZED)
    write_parquet(folder / "data" / "test_prefs-00000-of-00001.parquet", test, BINARIZED)
    write_parquet(folder / "data" / "train_sft-00000-of-00001.parquet", train, BINARIZED)
    return folder


# What is written, the dataset's name, and the pair of prompt number 5.
POST = f"SUBREDDIT: r/baking\n\nTITLE: Bread\n\nPOST: {question(5)}\n\nTL;DR:"
WRITTEN = {
    "hh-rlhf": (
        write_hh,
        f"\n\nHuman: Hi.\n\nAssistant: Hello?\n\nHuman: {question(5, 'harmless-base')}\n\nAssistant:",
        " With flour.",
        " Go away 5.",
    ),
    "tldr": (write_tldr, POST, " Bread is baked.", " No bread 5."),
    "tldr of TRL": (write_tldr_of_trl, POST, " Bread is baked.", " No bread 5."),
    "ultrafeedback": (
        write_ultrafeedback,
        f"\n\nHuman: {question(5)}\n\nAssistant:",
        " Like so:\n\nHuman: says nothing.\n\nAssistant: With flour.",
        " No 5.",
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([row["chosen"] for row in hh_rows("train")], 400).save_pretrained(folder)
    return folder


@pytest.fixture
def task(tokenizer):
    """A profile of a dataset's task; ``more`` overrides keys of the task."""

    def profile(source, name="hh-rlhf", **more):
        values = {"kind": "dataset", "name": name.split()[0], "source": str(source), "tokenizer": str(tokenizer)}
        values |= {"parts": BOTH if name == "hh-rlhf" else None, "max_tokens": 200, "test_prompts": 10}
        values |= {"demonstrations_share": 0.25, "proxy_share": 0.25}
        return load_profile("hh-file", {"task": values | more})

    return profile


def made(profile, root) -> tuple[dict[str, pd.DataFrame], dict]:
    """The task's tables and its counts."""
    stage = graph.task(profile)
    Store(root).compute(stage.record)
    folder = Store(root).folder(stage)
    tables = {file.stem: pd.read_parquet(file) for file in folder.glob("*.parquet")}
    return tables, json.loads((folder / "counts.json").read_text())


@pytest.mark.parametrize("name", WRITTEN)
def test_every_dataset_gives_its_pairs(name, tmp_path):
    write, *expected = WRITTEN[name]
    parts = BOTH if name == "hh-rlhf" else None
    files = preference_datasets.locate(name.split()[0], parts, str(write(tmp_path)), None)
    pair_of, *_ = preference_datasets.FORMS[name.split()[0]]
    pairs, counts = preference_datasets.read_pairs(*files["train"].values(), pair_of=pair_of)
    assert expected in pairs[["prompt", "chosen", "rejected"]].to_numpy().tolist()
    assert len(pairs) == counts["rows"] - sum(counts["dropped"].values()) == (2 * TRAIN if name == "hh-rlhf" else TRAIN)
    assert not pairs["prompt"].str.contains(question(100)[:-1]).any(), "a test prompt"


def test_what_is_left_out_is_counted(task, tmp_path):
    """Also where a bad row would be an error: it belongs to the data as published."""
    _, counts = made(task(write_tldr(tmp_path / "tldr"), "tldr", on_bad_row="error"), tmp_path)
    assert counts["test"]["dropped"] == {"a CNN/DM article, not a post": 1} and counts["test"]["pairs"] == TEST
    _, counts = made(task(write_ultrafeedback(tmp_path / "ufb"), "ultrafeedback", on_bad_row="error"), tmp_path)
    assert counts["train"]["dropped"] == {"equal scores": 1, "equal responses": 1}
    assert counts["train"]["rows"] == TRAIN + 2 and counts["train"]["bad_rows_dropped"] == 0


def test_long_pairs_are_left_out_and_all_is_counted(task, tmp_path):
    folder = write_hh(tmp_path / "hh")
    profile = task(folder)
    tables, counts = made(profile, tmp_path)
    train, test = counts["train"], counts["test"]
    assert (train["rows"], train["pairs"], train["pairs_within_max_tokens"]) == (80, 80, 78)
    assert (test["rows"], test["pairs_within_max_tokens"]) == (30, 30)
    assert (train["prompts_differ"], train["human_turns_cut"], train["bad_rows_dropped"]) == (2, 2, 0)
    responses = pd.concat([tables[t][["response_a", "response_b"]] for t in ("pairs", "proxy_pairs")])
    assert responses.apply(lambda column: column.str.len()).max().max() < 300, "the long one is there"
    assert counts["pairs"] + counts["proxy_pairs"] + counts["demonstrations"] == 78
    assert {"harmless-base/train.jsonl.gz", "helpful-base/test.jsonl.gz"} < set(counts["sha256"])


def test_the_limit_is_on_the_whole_dialogue_with_the_longer_response(task, tokenizer, tmp_path):
    from transformers import AutoTokenizer

    encode = AutoTokenizer.from_pretrained(tokenizer)
    row = hh_rows("train")[1]  # the long one, by its rejected response
    cut = row["rejected"].rfind("Assistant:") + len("Assistant:")
    tokens = sum(len(encode(text)["input_ids"]) for text in (row["rejected"][:cut], row["rejected"][cut:]))
    folder = write_hh(tmp_path / "hh", ["harmless-base"])
    for limit, kept in ((tokens, TRAIN), (tokens - 1, TRAIN - 1)):
        _, counts = made(task(folder, parts=["harmless-base"], max_tokens=limit), tmp_path)
        assert counts["train"]["pairs_within_max_tokens"] == kept


def test_no_two_parts_share_a_prompt(task, tmp_path):
    tables, counts = made(task(write_hh(tmp_path / "hh")), tmp_path)
    parts = [set(tables[name]["prompt"]) for name in ("pairs", "proxy_pairs", "demonstrations", "prompts")]
    assert len(set.union(*parts)) == sum(map(len, parts)) and len(parts[3]) == counts["test_prompts"] == 10
    unseen = {question(number, part) for number in range(100, 99 + TEST) for part in BOTH}
    assert all(any(prompt.endswith(f"Human: {q}\n\nAssistant:") for q in unseen) for prompt in parts[3])


def test_pairs_of_one_prompt_stay_together(task, tmp_path):
    """TL;DR has several comparisons of a post."""
    folder = write_tldr(tmp_path / "tldr")
    rows = [comparison(number // 4) | {"worker": str(number)} for number in range(4 * TRAIN)]
    for number, row in enumerate(rows):
        row["summaries"][0]["text"] += str(number)
    write_parquet(folder / "comparisons" / "train" / "0000.parquet", rows, COMPARISON)
    tables, _ = made(task(folder, "tldr"), tmp_path)
    parts = [tables[name]["prompt"].value_counts() for name in ("pairs", "proxy_pairs", "demonstrations")]
    assert [len(part) for part in parts] == [20, 10, 10] and all((part == 4).all() for part in parts)


def test_the_seed_draws_pairs_and_test_prompts(task, tmp_path):
    folder = write_hh(tmp_path / "hh")

    def prompts(**more):
        tables, _ = made(task(folder, **more), tmp_path)
        train = pd.concat([tables[name]["prompt"] for name in ("pairs", "proxy_pairs", "demonstrations")])
        return sorted(train), tables["prompts"]["prompt"].tolist()

    (all_of_them, test), (some, test_of_some) = prompts(), prompts(max_pairs=30)
    (others, test_of_others), (again, _) = prompts(max_pairs=30, seed=1), prompts(max_pairs=30, on_bad_row="error")
    assert len(some) == len(others) == 30 < len(all_of_them)
    assert some != others and some == again and test != test_of_others
    assert test == test_of_some, "the limit on training pairs has changed the test"


def test_demonstrations_as_in_the_papers(task, tmp_path):
    folder = write_hh(tmp_path / "hh")
    tables, counts = made(task(folder, demonstrations="chosen", demonstrations_share=0.0), tmp_path)
    pairs = tables["pairs"]
    chosen = pairs["response_a"].where(pairs["human_prefers_a"], pairs["response_b"])
    assert tables["demonstrations"]["completion"].tolist() == chosen.tolist()
    assert tables["demonstrations"]["prompt"].tolist() == pairs["prompt"].tolist()
    assert counts["demonstrations"] == counts["pairs"] == 78 - counts["proxy_pairs"]


def test_without_a_proxy_no_pairs_are_kept_for_it(task, tmp_path):
    gold = {"gold_models": {"mine": {"model": "some/reward-model"}}, "models.gold": "mine", "models.proxy": None}
    values = task(write_tldr(tmp_path / "tldr"), "tldr").task.model_dump() | {"proxy_share": 0.0}
    tables, counts = made(load_profile("hh-file", gold | {"task": values}), tmp_path)
    assert tables["proxy_pairs"].empty and counts["pairs"] == 0.75 * TRAIN


def test_the_key_follows_the_files_that_are_read(task, tokenizer, tmp_path):
    folder = write_hh(tmp_path / "hh")

    def key(source=folder, **more):
        graph._hash.cache_clear()
        return graph.task(task(source, **more)).key

    first = key()
    (folder / "README.md").write_text("read by nobody")
    write_hh(folder, ["helpful-online"])
    assert key() == first
    (tokenizer / "model.safetensors").write_text("no part of a tokenizer")
    assert key() == first
    assert key(parts=["harmless-base"]) != first
    write_hh(folder, test=hh_rows("test")[::-1])
    assert key() != first
    hub = {"source": "Anthropic/hh-rlhf", "parts": BOTH}
    assert key(**hub, revision=REVISION) != key(**hub, revision=REVISION[::-1])


WRONG_VALUES = [
    ({"parts": ["harmless"]}, "override task.parts.0: ", "'harmless-base', 'helpful-base'", "'harmless'"),
    ({"parts": None}, "parts is required: which folders of hh-rlhf"),
    ({"name": "tldr", "parts": BOTH}, "parts: tldr has none"),
    ({"source": "Anthropic/hh-rlhf"}, "revision is required: which commit of the hub's dataset Anthropic/hh-rlhf"),
    ({"revision": REVISION}, "is a folder, which has none"),
    ({"revision": "main", "source": "Anthropic/hh-rlhf"}, "override task", "'main'"),
    ({"demonstrations_share": 0.0}, "demonstrations: separate needs demonstrations_share above 0"),
    ({"demonstrations": "chosen"}, "demonstrations: chosen needs demonstrations_share 0"),
    ({"demonstrations_share": 0.75}, "demonstrations_share + proxy_share must be less than 1"),
    ({"proxy_share": 0.0}, "task.proxy_share must be above 0: models.proxy is trained on that part"),
]


@pytest.mark.parametrize(
    ("wrong", "words"), [(row[0], row[1:]) for row in WRONG_VALUES], ids=[row[1] for row in WRONG_VALUES]
)
def test_a_wrong_value_is_one_line(wrong, words, task, tmp_path):
    with pytest.raises(RequestError) as error:
        task(**{"source": write_hh(tmp_path / "hh")} | wrong)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


HH_LACKS = [{"chosen": "\n\nHuman: A\n\nAssistant: B"}]
WRONG_FILES = [
    ("no folder", {"source": "{tmp}/none"}, "task.source '{tmp}/none': no such folder, and not a hub id"),
    ("no file", {"parts": ["helpful-online"]}, "hh: no helpful-online/train.jsonl.gz in it, where hh-rlhf keeps its train pairs"),
    ("another dataset", {"name": "tldr", "parts": None}, "hh: no comparisons/train/*.parquet or data/train-*.parquet in it"),
    ("bad row", {"source": "{tmp}/lacks", "on_bad_row": "error"}, "harmless-base/train.jsonl.gz: row 41: key 'rejected' is missing"),
    ("wrong columns", {"source": "{tmp}/all_lack"}, "test.jsonl.gz: no preference pairs in it: row 1: key 'rejected' is missing"),
    ("wrong parquet", {"name": "tldr", "parts": None, "source": "{tmp}/ufb_as_tldr"}, "0000.parquet: no preference pairs in it: row 1: chosen and rejected are equal"),
    ("not gzip", {"source": "{tmp}/plain"}, "harmless-base/test.jsonl.gz: cannot be read: Not a gzipped file"),
    ("few pairs", {"max_pairs": 4}, "task: 4 training pairs are too few: "),
    ("few for D_l", {"max_pairs": 8}, "training pairs are too few: labeled part would have 1"),
    ("few test prompts", {"test_prompts": 29}, "task.test_prompts is 29: the dataset's test split has 28 that are no prompts"),
    ("no tokenizer", {"tokenizer": "{tmp}/hh"}, "task.tokenizer: {tmp}/hh: no tokenizer in it (one of tokenizer.json"),
    ("no commit", {"tokenizer": "facebook/opt-125m"}, "task.tokenizer: facebook/opt-125m: no commit of the hub is named: facebook/opt-125m@COMMIT"),
]  # fmt: skip


@pytest.fixture(scope="module")
def wrong_folders(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("wrong")
    write_hh(tmp / "hh")
    write_hh(tmp / "lacks", train=hh_rows("train") + HH_LACKS)
    write_hh(tmp / "all_lack", test=HH_LACKS)
    write_hh(tmp / "plain")
    (tmp / "plain" / "harmless-base" / "test.jsonl.gz").write_text(json.dumps(hh_rows("test")[0]))
    rows = [{side: question(0) for side in ("prompt", "chosen", "rejected")}]
    for split in ("train", "validation"):
        write_parquet(tmp / "ufb_as_tldr" / "comparisons" / split / "0000.parquet", rows, TLDR_TEXT)
    return tmp


@pytest.mark.parametrize(("more", "line"), [row[1:] for row in WRONG_FILES], ids=[row[0] for row in WRONG_FILES])
def test_a_wrong_file_is_one_line(more, line, task, wrong_folders):
    more = {k: v.format(tmp=wrong_folders) if isinstance(v, str) else v for k, v in more.items()}
    with pytest.raises(RequestError) as error:
        checks.check(task(**{"source": wrong_folders / "hh"} | more))
    assert line.format(tmp=wrong_folders) in str(error.value) and "\n" not in str(error.value)


def test_too_few_that_are_short_enough_is_said_by_the_stage(task, tmp_path):
    with pytest.raises(RequestError, match="task.test_prompts is 10: the dataset's test split has 0"):
        made(task(write_hh(tmp_path / "hh"), max_tokens=1), tmp_path)


# --- by hub id, from the hub's cache, with no network ---

HUB = {"source": "Anthropic/hh-rlhf", "revision": REVISION, "parts": ["harmless-base"]}


@pytest.fixture(scope="module")
def hub_home(tmp_path_factory):
    """HF_HOME with one part of the dataset in the hub's cache, as ``hf download`` leaves it."""
    home = tmp_path_factory.mktemp("hf")
    repository = home / "hub" / "datasets--Anthropic--hh-rlhf"
    write_hh(repository / "snapshots" / REVISION, ["harmless-base"])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return home


def offline(home, tmp, task, *command, **more):
    values = task(**HUB | more).task.model_dump()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    environment |= {f"WEAKLIB_{kind}": str(tmp / kind) for kind in ("STORE", "FIGURES", "RUNS")}
    arguments = [word if word != "TASK" else f"task={json.dumps(values)}" for word in command]
    return subprocess.run([sys.executable, *arguments], env=environment, cwd=tmp, capture_output=True, text=True)


RUN = """
import sys
from pathlib import Path
from weaklib.arms import graph
from weaklib.study import checks
from weaklib.study.parameters import load_profile, parse_value
from weaklib.arms.stage import Store
profile = load_profile("hh-file", {"task": parse_value(sys.argv[1].removeprefix("task="))})
checks.check(profile)
store, stage = Store(Path("store")), graph.task(profile)
store.compute(stage.record)
print((store.folder(stage) / "counts.json").read_text())
"""


def test_a_hub_id_is_read_from_the_cache(hub_home, task, tmp_path):
    done = offline(hub_home, tmp_path, task, "-c", RUN, "TASK")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["revision"] == REVISION and counts["train"]["rows"] == TRAIN and len(counts["sha256"]) == 2


@pytest.mark.parametrize(
    "missing", [{"parts": BOTH}, {"name": "ultrafeedback", "parts": None, "revision": REVISION[::-1]}]
)
def test_a_missing_dataset_is_the_command_that_fetches_it(missing, hub_home, task, tmp_path):
    done = offline(
        hub_home, tmp_path, task, "-m", "weaklib", "reproduce", "--profile", "hh-file", "--set", "TASK", **missing
    )
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    (line,) = done.stderr.strip().splitlines()
    revision = missing.get("revision", REVISION)
    assert f"dataset Anthropic/hh-rlhf is not in the hub's cache at revision {revision}" in line
    command = line.partition("fetch it by: ")[2]
    assert command.startswith(f"hf download Anthropic/hh-rlhf --repo-type dataset --revision {revision} --include ")
    included = "data/train_prefs-*.parquet" if "name" in missing else "harmless-base/test.jsonl.gz"
    assert f"--include '{included}'" in command


def test_a_missing_tokenizer_is_the_command_that_fetches_it(hub_home, task, tmp_path):
    code = RUN.replace(
        '"task": parse', f'"models.published": {{"facebook/opt-125m": "facebook/opt-125m@{REVISION}"}}, "task": parse'
    )
    values = task(**HUB).task.model_dump() | {"tokenizer": "facebook/opt-125m"}
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(hub_home)}
    arguments = [sys.executable, "-c", code, json.dumps(values)]
    done = subprocess.run(arguments, env=environment, cwd=tmp_path, capture_output=True, text=True)
    line = done.stderr.strip().splitlines()[-1]
    assert (
        f"task.tokenizer: facebook/opt-125m is not in the hub's cache at revision {REVISION}, fetch it by: hf " in line
    )


class NoSuchRevision(BaseHTTPRequestHandler):
    """The hub's answer to a commit that it does not have."""

    def do_GET(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RevisionNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_a_revision_that_does_not_exist_is_one_line(tmp_path):
    code = """
from weaklib.data import errors, preference_datasets
try:
    preference_datasets.locate("hh-rlhf", ["harmless-base"], "Anthropic/hh-rlhf", "%s")
except errors.RequestError as error:
    print(error)
"""
    with ThreadingHTTPServer(("127.0.0.1", 0), NoSuchRevision) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
        arguments = [sys.executable, "-c", code % REVISION]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)
        server.shutdown()
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"task.source: dataset Anthropic/hh-rlhf at revision {REVISION}: 404 Client Error")
    assert "Revision Not Found" in line


def test_the_plan_needs_neither_data_nor_network(hub_home, task, tmp_path):
    done = offline(
        hub_home, tmp_path, task, "-m", "weaklib", "plan", "--profile", "hh-file", "--set", "TASK", parts=BOTH
    )
    assert done.returncode == 0, done.stderr
    assert "task" in done.stdout
