"""Stages on the GPUs of a cluster: one a GPU, others beside; shown with GPUs that workers only pretend to have."""

import json
from itertools import combinations

import pytest
from distributed import Client, LocalCluster

import weaklib.data
from weaklib.arms import running
from weaklib.arms.stage import Stage, Store
from weaklib.data.errors import RequestError

TIMED_STAGE = """
import json, os, pathlib, time
def run(out, *, place, number, until, device="cpu"):
    started = time.monotonic()
    pathlib.Path(place, f"{device}-{number}").touch()
    while any(len(list(pathlib.Path(place).glob(f"{kind}-*"))) < count for kind, count in until.items()):
        if time.monotonic() > started + 60:
            raise TimeoutError(f"{device} stage {number} waits for {until}")
        time.sleep(0.01)
    time.sleep(0.1)
    said = {"started": started, "ended": time.monotonic(), "worker": os.getpid()}
    (out / "said.json").write_text(json.dumps(said | {"sees": os.environ.get("CUDA_VISIBLE_DEVICES")}))
"""


def overlap(first: dict, second: dict) -> bool:
    return first["started"] < second["ended"] and second["started"] < first["ended"]


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """Runs as many GPU stages and CPU stages on the cluster at an address, and returns what each kind said.

    A GPU stage ends when as many stages of each kind as ``until`` says have begun, a CPU stage when a GPU stage has.
    """
    (tmp_path / "timed.py").write_text(TIMED_STAGE)
    paths = [*weaklib.data.__path__, str(tmp_path)]
    monkeypatch.setattr(weaklib.data, "__path__", paths)

    def run(address: str, on_gpu: int, on_cpu: int, **until: int) -> tuple[list[dict], list[dict]]:
        with Client(address, set_as_default=False) as client:
            client.run(_find_stages_in, paths)
        store, here = Store(tmp_path / "store"), {"place": str(tmp_path)}
        kinds = [
            [Stage("data.timed", {}, here | {"number": n, "until": until, "device": "cuda"}) for n in range(on_gpu)],
            [Stage("data.timed", {}, here | {"number": n, "until": {"cuda": 1}}) for n in range(on_cpu)],
        ]
        monkeypatch.setenv(running.SCHEDULER, address)
        running.run([stage for kind in kinds for stage in kind], store)
        return tuple([json.loads((store.folder(s) / "said.json").read_text()) for s in kind] for kind in kinds)

    return run


def _find_stages_in(paths):
    import weaklib.data

    weaklib.data.__path__ = paths


def test_a_worker_with_one_gpu_runs_one_gpu_stage_at_a_time_and_others_beside(timed):
    """A user's cluster: workers of many threads, started with --resources GPU=1."""
    with LocalCluster(
        n_workers=1, threads_per_worker=4, processes=False, resources={"GPU": 1}, dashboard_address=":0"
    ) as local:
        (first, second), on_cpu = timed(local.scheduler_address, 2, 1, cpu=1)
    assert not overlap(first, second)
    assert overlap(first, on_cpu[0]) or overlap(second, on_cpu[0])


def test_our_cluster_has_a_worker_for_each_gpu(timed, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    with running.cluster(1, "cuda") as address:
        on_gpu, on_cpu = timed(address, 3, 1, cuda=2)
    assert {said["sees"] for said in on_gpu} == {"0", "3"}
    assert len({said["worker"] for said in on_gpu}) == 2
    for said in on_gpu:
        assert not any(overlap(said, o) for o in on_gpu if o is not said and o["worker"] == said["worker"])
    assert any(overlap(one, other) for one, other in combinations(on_gpu, 2))


def test_a_cluster_without_gpus_is_one_line(timed, tmp_path):
    line = "^scheduler {}: no worker has the resource GPU=1; start workers with --resources GPU=1$"
    plain = {"n_workers": 1, "processes": False, "protocol": "tcp://", "dashboard_address": ":0"}
    with LocalCluster(**plain, resources={"GPU": 1}) as local:
        running.check_scheduler(local.scheduler_address, "cuda")
    with LocalCluster(**plain) as local:
        running.check_scheduler(local.scheduler_address, "cpu")
        with pytest.raises(RequestError, match=line.format(local.scheduler_address)):
            running.check_scheduler(local.scheduler_address, "cuda")
        with pytest.raises(RequestError, match=line.format(local.scheduler_address)):
            timed(local.scheduler_address, 1, 0)


def test_visible_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,5")
    assert running.visible_gpus() == ["0", "1", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert running.visible_gpus() == []


def test_nvidia_smi_names_the_gpus(tmp_path, monkeypatch):
    listed = "GPU 0: NVIDIA H200 (UUID: GPU-6f2d-11)\\nGPU 1: NVIDIA H200 (UUID: GPU-90aa-22)"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listed}\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert running.visible_gpus() == ["GPU-6f2d-11", "GPU-90aa-22"]
