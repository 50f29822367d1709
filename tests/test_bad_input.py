"""Every wrong request: one line on stderr that names the culprit, exit 2, within 30 s, nothing written.

The table is (what is asked, words that the line must have). In it ``{tmp}`` is a folder of this test's, which ``_prepare`` fills.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import transformers

from weaklib.arms.folders import PARAMS
from weaklib.training.base import train_tokenizer

HH = {"chosen": "\n\nHuman: Hello {}\n\nAssistant: Gladly.", "rejected": "\n\nHuman: Hello {}\n\nAssistant: No."}


def _line_of(key: str) -> int:
    lines = (PARAMS / "smoke.yaml").read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.startswith(key))


SMOKE = "reproduce --profile smoke"
FILE = "reproduce --profile hh-file --set task.path={tmp}"
MODEL = "reproduce --profile smoke --set models.weak={tmp}"
GOLD = f"{SMOKE} --set gold_models.mine.model={{tmp}}"
JUDGE = "reproduce --profile smoke --only 08_judge --set judge.base_url"

REFUSES = "gold_models.mine.model={tmp}/refuses gold_models.mine.format=chat"
NAMES = ["&anchor", "*x", "a[b]", "#1", "a:b", "!tag", "@at", "%x", "1e5"]  # none is what YAML would make of it

TABLE = [
    # unknown names
    ("reproduce --profile smok", "unknown profile 'smok': there are hh-file, paper, sandbox, single-gpu, smoke"),
    (f"{SMOKE} --only 99_x", "unknown notebook '99_x': there are 00_start_here"),
    (f"{SMOKE} --set bta=0.1", "override bta: Extra inputs are not permitted (got 0.1)"),
    (f"{SMOKE} --set policy.epoch=1", "override policy.epoch: Extra inputs are not permitted (got 1)"),
    (f"{SMOKE} --set beta.x=1", "override beta.x: beta is not a section"),
    (f"{SMOKE} --set task.kind=moon", "override task: Input tag 'moon'", "'world', 'file'"),
    (f"{SMOKE} --set task.name=poetry", "override task.name:", "'dialogue' or 'summarisation'", "'poetry'"),
    (f"{SMOKE} --set objective=ppo", "override objective:", "'dpo', 'ipo' or 'rdpo'", "'ppo'"),
    (f"{SMOKE} --set annotator.kind=oracle", "override annotator.kind:", "'scalar_head'", "'oracle'"),
    (f"{SMOKE} --set models.weak=opt-tinny", "model 'opt-tinny'", "not in models.pretrained_here"),
    (f"{SMOKE} --set models.proxy=a/b/c", "model 'a/b/c'", "not a hub id"),
    # wrong types
    (f"{SMOKE} --set seeds=three", "override seeds: Input should be a valid list (got 'three')"),
    (f"{SMOKE} --set seeds=3", "override seeds: Input should be a valid list (got 3)"),
    (f"{SMOKE} --set seeds=[1.5]", "override seeds.0: Input should be a valid integer (got 1.5)"),
    (f"{SMOKE} --set seeds=[true]", "override seeds.0: Input should be a valid integer (got True)"),
    (f"{SMOKE} --set beta=yes", "override beta: Input should be a valid number (got 'yes')"),
    (f"{SMOKE} --set beta=true", "override beta: Input should be a valid number (got True)"),
    (f"{SMOKE} --set beta='0.1'", "override beta: Input should be a valid number (got '0.1')"),
    (f"{SMOKE} --set learning_rate=[1e-3]", "override learning_rate: Input should be a valid number (got [0.001])"),
    (f"{SMOKE} --set sampling=1", "override sampling: Input should be a valid dictionary", "(got 1)"),
    (f"{SMOKE} --set models.weak=7", "override models.weak: Input should be a valid list (got 7)"),
    (f"{SMOKE} --set policy.batch_size=1.5", "override policy.batch_size: Input should be a valid integer", "(got 1.5)"),
    # out of range
    (f"{SMOKE} --set max_prompt_tokens=100", "smoke.yaml:1: profile: models.pretrained_here.opt-micro.max_position_embeddings is less than the 180"),
    (f"{SMOKE} --set top_percents=[0,130]", "override top_percents.0: Input should be greater than 0 (got 0)"),
    (f"{SMOKE} --set top_percents=[50,130]", "override top_percents.1: Input should be less than or equal to 100 (got 130)"),
    (f"{SMOKE} --set labeled_fraction=1.0", "override labeled_fraction: Input should be less than 1 (got 1.0)"),
    (f"{SMOKE} --set labeled_fraction=0", "override labeled_fraction: Input should be greater than 0 (got 0)"),
    (f"{SMOKE} --set beta=-1", "override beta: Input should be greater than 0 (got -1)"),
    (f"{SMOKE} --set beta=.nan", "override beta: Input should be", "(got nan)"),
    (f"{SMOKE} --set beta=.inf", "override beta: Input should be a finite number (got inf)"),
    (f"{SMOKE} --set learning_rate=0", "override learning_rate: Input should be greater than 0 (got 0)"),
    (f"{SMOKE} --set label_smoothing=0.5", "override label_smoothing: Input should be less than 0.5 (got 0.5)"),
    (f"{SMOKE} --set sampling.temperature=0", "override sampling.temperature: Input should be greater than 0 (got 0)"),
    (f"{SMOKE} --set task.pairs=0", "override task.pairs: Input should be greater than 0 (got 0)"),
    (f"{SMOKE} --set seeds=[-1]", "override seeds.0: Input should be greater than or equal to 0 (got -1)"),
    (f"{SMOKE} --set seeds=[0,0]", "override seeds: values repeat (got [0, 0])"),
    (f"{SMOKE} --set top_percents=[50,50.0]", "override top_percents: values repeat"),
    (f"{SMOKE} --set seeds=[]", "override seeds: List should have at least 1 item"),
    (f"{SMOKE} --set top_percents=[]", "override top_percents: List should have at least 1 item"),
    (f"{SMOKE} --set models.weak=[opt-tiny,opt-tiny,opt-tiny]", "models: weak and strong must be of one length"),
    (f"{SMOKE} --set task.name=summarisation task.prompts=harmless", "task: prompts: harmless is for dialogue"),
    # the sweeps of the notebooks
    (f"{SMOKE} --set supervisors=[opt-tinny]", "model 'opt-tinny'", "not in models.pretrained_here"),
    (f"{SMOKE} --set students=[]", "override students: List should have at least 1 item"),
    (f"{SMOKE} --set families=[[opt-tiny]]", "override families.0: List should have at least 2 items"),
    (f"{SMOKE} --set families=[opt-tiny]", "override families.0: Input should be a valid list (got 'opt-tiny')"),
    (f"{SMOKE} --set families=[[opt-tiny,opt-smal]]", "model 'opt-smal'", "not in models.pretrained_here"),
    (f"{SMOKE} --set labeled_sixteenths=[16]", "override labeled_fraction: Input should be less than 1 (got 1.0)"),
    (f"{SMOKE} --set labeled_fractions=[0.2,0.2]", "override labeled_fractions: values repeat"),
    (f"{SMOKE} --set objectives=[dpo,ppo]", "override objectives.1: Input should be 'dpo', 'ipo' or 'rdpo' (got 'ppo')"),
    (f"{SMOKE} --set betas=[0]", "override betas.0: Input should be greater than 0 (got 0)"),
    (f"{SMOKE} --set families=[[opt-tiny,7]]", "override families.0: Input should be a valid list (got 7)"),
    (f"{SMOKE} --set betas=[0.5,true]", "override betas.1: Input should be a valid number (got True)"),
    (
        f"{SMOKE} --set unlabeled_fraction=0.5 labeled_fractions=[0.4,0.6]",
        "override labeled_fractions.1: ",
        "labeled_fraction + unlabeled_fraction must be at most 1",
    ),
    (f"{SMOKE} --set epochs=1", "override epochs: Input should be a valid list (got 1)"),
    (f"{SMOKE} --set human_noises=[2]", "override human_noises.0: Input should be less than or equal to 1 (got 2)"),
    (f"{SMOKE} --set human_noise=-0.1", "override human_noise: Input should be greater than or equal to 0 (got -0.1)"),
    (f"{SMOKE} --set unlabeled_fraction=0.9", "labeled_fraction + unlabeled_fraction must be at most 1"),
    (f"{SMOKE} --set confidence_threshold=2", "override confidence_threshold: Input should be less than or equal to 1"),
    (f"{SMOKE} --set annotator.confidently_wrong=.nan", "override annotator.confidently_wrong: Input should be"),
    (f"{SMOKE} --set annotator.calibrated=1", "override annotator.calibrated: Input should be a valid boolean (got 1)"),
    (
        f"{SMOKE} --set annotator.calibrated=true annotator.kind=implicit_reward",
        "override annotator: calibrated: temperature scaling is for scalar heads, the annotator is implicit_reward",
    ),
    (f"{SMOKE} --set supervisors=null", "supervisors is required by 01_supervisor_size"),
    # null where something belongs
    (f"{SMOKE} --set seeds=", "override seeds: Input should be a valid list (got None)"),
    (f"{SMOKE} --set policy=null", "override policy: Input should be a valid dictionary", "(got None)"),
    (f"{SMOKE} --set models=null", "override models: Input should be a valid dictionary", "(got None)"),
    # not even a setting
    (f"{SMOKE} --set beta", "--set beta: KEY=VALUE is needed"),
    (f"{SMOKE} --set seeds=[0,", "'[0,':1: not YAML:"),
    (f"{SMOKE} --workers 0", "argument --workers: a whole number above 0 is needed, not '0'"),
    ("reproduce --profil", "unrecognized arguments"),
    ("reproduc", "invalid choice: 'reproduc'"),
    # parameter files
    ("check {tmp}/missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
    ("check {tmp}", "cannot be read: Is a directory"),
    ("check {tmp}/unparsable.yaml", "unparsable.yaml:4: not YAML:"),
    ("check {tmp}/repeated.yaml", "repeated.yaml:", "not YAML:", "duplicate key \"beta\""),
    ("check {tmp}/list.yaml", "list.yaml: a profile is a mapping of keys to values, this is a list"),
    ("check {tmp}/empty.yaml", "empty.yaml: a profile is a mapping of keys to values, this is a NoneType"),
    ("check {tmp}/latin.yaml", "latin.yaml: cannot be read:"),
    ("check {tmp}/typo.yaml", "typo.yaml:3: bta: Extra inputs are not permitted (got 0.1)"),
    ("check {tmp}/deep.yaml", f"deep.yaml:{_line_of('sampling:')}: sampling.temperature: Input should be greater than 0 (got -1)"),
    ("check {tmp}/lacking.yaml", "lacking.yaml:1: seeds: Field required"),
    ("check {tmp}/null.yaml", f"null.yaml:{_line_of('policy:')}: policy: Input should be a valid dictionary", "(got None)"),
    # data files
    (f"{FILE}/missing.jsonl", "missing.jsonl: cannot be read:", "No such file"),
    (f"{FILE}/empty.jsonl", "empty.jsonl: no preference pairs in it"),
    (f"{FILE}/folder.jsonl", "folder.jsonl: cannot be read:", "Is a directory"),
    (f"{FILE}/pairs.csv", "pairs.csv: not a .jsonl, .jsonl.gz or .parquet file"),
    (f"{FILE}/plain.jsonl.gz", "plain.jsonl.gz: cannot be read: Not a gzipped file"),
    (f"{FILE}/cut.jsonl.gz", "cut.jsonl.gz: cannot be read:"),
    (f"{FILE}/damaged.jsonl.gz", "damaged.jsonl.gz: cannot be read: Error -3 while decompressing"),
    (f"{FILE}/surrogate.jsonl", "surrogate.jsonl: row 3: chosen holds half of a surrogate pair"),
    (f"{FILE}/system.jsonl {REFUSES}", "/refuses: its chat template refuses row 3 of the data: no system here"),
    *((f"reproduce --profile hh-file --set task.path={name}.jsonl", f"{name}.jsonl: cannot be read: [Errno 2]") for name in NAMES),
    (f"{FILE}/latin.jsonl", "latin.jsonl: cannot be read: 'utf-8' codec"),
    (f"{FILE}/text.parquet", "text.parquet: cannot be read:"),
    (f"{FILE}/not_json.jsonl", "not_json.jsonl: row 3: not JSON:"),
    (f"{FILE}/lacks.jsonl", "lacks.jsonl: row 3: key 'rejected' is missing"),
    (f"{FILE}/null.jsonl", "null.jsonl: row 3: chosen is neither text nor chat messages: None"),
    (f"{FILE}/number.jsonl", "number.jsonl: row 3: chosen is neither text nor chat messages: 7"),
    (f"{FILE}/equal.jsonl", "equal.jsonl: row 3: chosen and rejected are equal"),
    (f"{FILE}/few.jsonl", "few.jsonl: 3 pairs are too few for this split:"),
    (f"{FILE}/equal.jsonl task.on_bad_row=drop", "equal.jsonl: 2 pairs are too few for this split:"),
    (f"{FILE}/few.jsonl task.on_bad_row=ignore", "override task.on_bad_row:", "'error' or 'drop'"),
    (f"{FILE}/few.jsonl task.test_share=0.9", "task:", "must be less than 1"),
    ("reproduce --profile hh-file", "task.path: no preference file is named. Download harmless-base/test.jsonl.gz"),
    # model folders
    (f"{MODEL}/no_such_model", "no_such_model': no such folder"),
    (f"{MODEL}/no_config", "no_config: no config in it"),
    (f"{MODEL}/no_weights", "no_weights: no weights in it"),
    (f"{MODEL}/no_tokenizer", "no_tokenizer: no tokenizer in it"),
    # gold reward models
    (f"{GOLD}/no_config", "no_config: no config in it"),
    (f"{GOLD}/no_head", "gold_models.mine: ", "no_head has no classification head: it is ['OPTForCausalLM']"),
    (f"{GOLD}/head gold_models.mine.output=1", "head: output 1 was asked for, it has 1"),
    (f"{GOLD}/head gold_models.mine.format=chat", "head: format chat was asked for, its tokenizer has no chat template"),
    (f"{GOLD}/head gold_models.mine.format=guess", "override gold_models.mine.format: Input should be 'text', 'text_pair' or 'chat'"),
    (f"{SMOKE} --set gold_models.learned-opt.pairs=null", "gold_models.learned-opt: opt-small is made here, which needs pairs"),
    # the judge
    (f"{JUDGE}=http://127.0.0.1:9/v1 judge.model=m", "judge.base_url http://127.0.0.1:9/v1: nothing answers there"),
    (f"{JUDGE}=http://127.0.0.1:9/v1", "override judge: judge.base_url needs judge.model"),
    (f"{JUDGE}=127.0.0.1:9", "override judge.base_url: String should match pattern"),
    (f"{SMOKE} --set judge.prompts=61", "judge.prompts is 61, the task has 60 test prompts"),
    (f"{SMOKE} --set judge.max_cost_usd=0", "override judge.max_cost_usd: Input should be greater than 0 (got 0)"),
    (f"{SMOKE} --set judge.form=essay", "override judge.form: Input should be 'pairwise' or 'rating' (got 'essay')"),
    # the machine
    (f"{SMOKE} --set device=cuda", "device: cuda is not there: torch sees 0 GPUs on this machine"),
    (f"{SMOKE} --set device=tpu", "override device: String should match pattern", "(got 'tpu')"),
    (f"{SMOKE} --store {{tmp}}/list.yaml/store", "store: cannot be written:", "list.yaml is not a folder"),
    (f"{SMOKE} --figures {{tmp}}/list.yaml", "list.yaml: cannot be written:", "is not a folder"),
    (f"{SMOKE} --runs /proc/runs", "/proc/runs: cannot be written"),
    (f"{SMOKE} --scheduler tcp://127.0.0.1:9", "scheduler tcp://127.0.0.1:9: nothing answers there"),
    (f"{SMOKE} --scheduler nonsense", "scheduler nonsense: an address like tcp://HOST:PORT is needed"),
    ("plan --profile smok", "unknown profile 'smok'"),
    # large models
    (f"{SMOKE} --set dialogue=chat", "dialogue: chat was asked for, the tokenizer of", "has no chat template"),
    (f"{SMOKE} --set models.weak=owner/model", "model owner/model: no commit of the hub is named: owner/model@COMMIT"),
    (f"{SMOKE} --set hardware.precision=float16", "override hardware.precision: Input should be 'float32' or 'bfloat16'"),
    (f"{SMOKE} --set sft.gradient_accumulation_steps=3", "override sft: gradient_accumulation_steps must divide batch_size, 16"),
    (f"{SMOKE} --set policy.lora.r=2", "smoke.yaml:", "policy.lora.lora_alpha: Field required"),
    ("reproduce --profile single-gpu --set task.revision=null", "override task: revision is required: which commit"),
    ("reproduce --profile single-gpu --set task.parts=[harmless]", "override task.parts.0: Input should be", "'harmless'"),
    ("reproduce --profile single-gpu --set task.source={tmp}/none task.revision=null", "no such folder, and not a hub id"),
    ("plan --profile smoke --set beta=-1", "override beta: Input should be greater than 0 (got -1)"),
]  # fmt: skip


def _prepare(tmp):
    good = (PARAMS / "smoke.yaml").read_text()
    lines = good.splitlines()

    def put(name, key, line):
        number = next(i for i, text in enumerate(lines) if text.startswith(key))
        (tmp / name).write_text("\n".join([*lines[:number], line, *lines[number + 1 :]]))

    put("typo.yaml", "title", "title: x\nbta: 0.1")
    (tmp / "typo.yaml").write_text(
        "# a comment\ntitle: x\nbta: 0.1\n" + "\n".join(line for line in lines if "title:" not in line)
    )
    put("deep.yaml", "sampling", "sampling: {temperature: -1, max_new_tokens: 4, batch_tokens: 200}")
    put("null.yaml", "policy", "policy:")
    put("lacking.yaml", "seeds", "")
    (tmp / "unparsable.yaml").write_text("title: x\nseeds: [0]\nbeta: [0.1\nobjective: dpo\n")
    (tmp / "repeated.yaml").write_text(good + "\nbeta: 0.2\n")
    (tmp / "list.yaml").write_text("- title\n")
    (tmp / "empty.yaml").write_text("")
    (tmp / "latin.yaml").write_bytes("title: é".encode("latin-1"))

    rows = [json.dumps({side: text.format(i) for side, text in HH.items()}) for i in range(2)]

    def bad_third_row(name, **changes):
        row = json.loads(rows[0]) | changes
        (tmp / name).write_text("\n".join([*rows, json.dumps({k: v for k, v in row.items() if v != "gone"})]))

    bad_third_row("lacks.jsonl", rejected="gone")
    bad_third_row("null.jsonl", chosen=None)
    bad_third_row("number.jsonl", chosen=7)
    bad_third_row("equal.jsonl", rejected=json.loads(rows[0])["chosen"])
    bad_third_row(
        "few.jsonl", chosen="\n\nHuman: Third\n\nAssistant: Yes.", rejected="\n\nHuman: Third\n\nAssistant: No."
    )
    bad_third_row("surrogate.jsonl", chosen="\n\nHuman: Hello 0\n\nAssistant: Good \ud83d")
    system = {
        "chosen": "Be kind.\n\nHuman: Hi\n\nAssistant: Yes.",
        "rejected": "Be kind.\n\nHuman: Hi\n\nAssistant: No.",
    }
    many = [json.dumps({side: text.format(i) for side, text in HH.items()}) for i in range(30)]
    (tmp / "system.jsonl").write_text("\n".join([*many[:2], json.dumps(system), *many[2:]]))
    whole = gzip.compress("\n".join(many).encode(), mtime=0)
    middle = bytes(byte ^ 0x3C for byte in whole[60:90])
    (tmp / "damaged.jsonl.gz").write_bytes(whole[:60] + middle + whole[90:])
    (tmp / "not_json.jsonl").write_text("\n".join([*rows, '{"chosen": ']))
    (tmp / "empty.jsonl").write_text("")
    (tmp / "folder.jsonl").mkdir()
    (tmp / "pairs.csv").write_text("chosen,rejected\n")
    (tmp / "plain.jsonl.gz").write_text(rows[0])
    (tmp / "cut.jsonl.gz").write_bytes(gzip.compress("\n".join(rows * 50).encode())[:-30])
    (tmp / "latin.jsonl").write_bytes("é".encode("latin-1"))
    (tmp / "text.parquet").write_text("no parquet")
    for missing in ("config", "weights", "tokenizer"):
        folder = tmp / f"no_{missing}"
        folder.mkdir()
        for part, name in (
            ("config", "config.json"),
            ("weights", "model.safetensors"),
            ("tokenizer", "tokenizer.json"),
        ):
            if part != missing:
                (folder / name).write_text("{}")

    for name, architecture in (("head", "OPTForSequenceClassification"), ("no_head", "OPTForCausalLM")):
        (tmp / name).mkdir()
        size = {"hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 8, "num_hidden_layers": 1}
        size |= {"num_attention_heads": 1, "max_position_embeddings": 16, "num_labels": 1, "vocab_size": 300}
        kind = getattr(transformers, architecture)
        kind(transformers.AutoConfig.for_model("opt", **size)).save_pretrained(tmp / name)
        train_tokenizer(["Human: Hello"] * 3, 300).save_pretrained(tmp / name)

    tokenizer = train_tokenizer(["Human: Hello"] * 3, 300)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    tokenizer.save_pretrained(tmp / "refuses")
    for file in ("config.json", "model.safetensors"):
        shutil.copy(tmp / "no_head" / file, tmp / "refuses")


def _ask(tmp, request):
    """The command line in a shell's sense, with folders in which anything written would be found."""
    arguments = (
        request.format(tmp=tmp).replace("'", "").split()
        if "beta='" not in request
        else [*request.split()[:-1], 'beta="0.1"']
    )
    folders = {f"WEAKLIB_{name}": str(tmp / "written" / name) for name in ("STORE", "FIGURES", "RUNS")}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WEAKLIB_")} | folders
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "weaklib", *arguments],
        cwd=tmp,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, time.perf_counter() - started


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("bad")
    _prepare(tmp)
    before = {path: path.read_bytes() for path in tmp.rglob("*") if path.is_file()}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        answered = dict(zip([row[0] for row in TABLE], pool.map(lambda row: _ask(tmp, row[0]), TABLE)))
    assert {path: path.read_bytes() for path in tmp.rglob("*") if path.is_file()} == before, "something was written"
    return answered


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_wrong_request(answers, row):
    done, seconds = answers[row[0]]
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("weaklib: ") and not done.stdout
    for words in row[1:]:
        assert words in line
    assert seconds < 30


def test_the_table_is_long_enough():
    assert len(TABLE) == len({row[0] for row in TABLE}) >= 60
