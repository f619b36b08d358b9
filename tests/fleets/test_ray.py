"""The Ray fleet: the contract of fleets, real models on it, and a node that is killed.

One small cluster on this machine serves all tests, with more logical CPUs than there are cores.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from preceptor.core.errors import ModelError, SettingsError  # noqa: E402
from preceptor.fleets import ray as ray_fleet  # noqa: E402
from preceptor.fleets.ray import open_fleet  # noqa: E402
from preceptor.recipes.settings.shared import Fleet  # noqa: E402

LIMIT = 60.0  # seconds to wait for what happens by itself

# workers cannot import a test module: its functions travel whole
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def one(**more: Any) -> Any:
    return open_fleet(Fleet(kind="ray", **more))


def two(**more: Any) -> Any:
    return one(workers=2, **more)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head node with four logical CPUs, joined by this process."""
    from ray.cluster_utils import Cluster

    ray_fleet._import_ray()
    system = {
        "health_check_period_ms": 1000,  # a dead node is noticed soon
        "health_check_failure_threshold": 5,
        "prestart_worker_first_driver": False,  # no worker is idle
    }
    head = {
        "num_cpus": 4,
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,  # no cloud is asked for nodes
        "_system_config": system,
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    ray.init(made.address, log_to_driver=False, logging_level="error")
    yield made
    ray.shutdown()
    made.shutdown()


def squares(pause: float = 0.0) -> Callable[[int], tuple[int, int]]:
    """A worker that says who it is: (square, process)."""

    def work(group: int) -> tuple[int, int]:
        time.sleep(pause)
        return group * group, os.getpid()

    return work


def failing(how: str) -> Callable[[int], int]:
    if how == "opening":
        raise OSError("no such weights\nand much more")

    def work(group: int) -> int:
        if group == 3 and how == "own":
            raise ModelError("too long", where="w", found="f", next_step="n")
        if group == 3 and how == "other":
            raise ValueError("broken\nand much more")
        if group == 3 and how == "crash":
            os._exit(3)
        return group

    return work


def noting(notes: Path) -> Callable[[int], tuple[int, str, float]]:
    """A worker that notes each group it did: (group, node, when)."""
    node = ray.get_runtime_context().get_node_id()

    def work(group: int) -> tuple[int, str, float]:
        time.sleep(0.4)
        with open(notes, "a", encoding="utf-8") as file:
            file.write(f"{group}\n")
        return group, node, time.time()

    return work


def threads() -> Callable[[int], tuple[int, str, int]]:
    """A worker whose threads are its CPUs: (threads of torch, of the others, process)."""
    import torch

    return lambda group: (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.getpid())


def test_nothing_starts_before_there_is_work() -> None:
    assert list(two()(partial(failing, "opening"), [])) == []
    assert not ray.is_initialized()


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="needs Ray Data") as caught:
        two()
    assert caught.value.next_step == "pip install 'preceptor[ray]'"


def test_a_ray_client_is_refused() -> None:
    with pytest.raises(SettingsError, match="Ray client"):
        two(address="ray://127.0.0.1:10001")


@pytest.mark.parametrize("workers", [[3, 2], 0, [0, 2]])
def test_workers_that_make_no_fleet(workers: Any) -> None:
    with pytest.raises((SettingsError, ValueError), match="workers"):
        Fleet(kind="ray", workers=workers)
    assert Fleet(kind="ray", workers=[2, 2]).workers == (2, 2)  # type: ignore[arg-type]


def test_a_local_session_begins_and_ends_with_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of it has its share of the machine, threads among them."""
    monkeypatch.setenv("RAY_prestart_worker_first_driver", "0")  # no worker is idle
    with pytest.raises(SettingsError, match="more GPUs than this machine has"):
        next(one(gpus=1000)(squares, [1]))
    assert not ray.is_initialized()
    [(number, found)] = one(cpus=2.0)(threads, [3])
    assert (number, found[:2]) == (0, (2, "2")) and found[2] != os.getpid()
    assert not ray.is_initialized()


def test_each_group_once_as_it_is_done(cluster: Any) -> None:
    three = one(workers=3, cpus=2.0)  # of which two fit
    done = list(three(partial(squares, 0.05), list(range(30))))
    assert sorted(number for number, _ in done) == list(range(30))
    assert all(square == number**2 for number, (square, _) in done)
    assert len({process for _, (_, process) in done}) == 2


def test_an_error_of_ours_arrives_as_it_was(cluster: Any) -> None:
    with pytest.raises(ModelError) as caught:
        list(one(workers=(1, 2))(partial(failing, "own"), list(range(6))))
    error = caught.value
    assert (error.what, error.where, error.found, error.next_step) == ("too long", "w", "f", "n")


@pytest.mark.parametrize(
    ("how", "found"),
    [("other", "ValueError: broken"), ("opening", "OSError: no such weights")],
)
def test_any_other_error_is_one_line(cluster: Any, how: str, found: str) -> None:
    with pytest.raises(ModelError, match="a worker of the fleet failed") as caught:
        list(one()(partial(failing, how), list(range(6))))
    assert caught.value.found == found


def test_a_group_that_kills_its_workers_ends_the_run(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_fleet, "RESTARTS", 1)
    with pytest.raises(ModelError, match="lost again and again"):
        list(one()(partial(failing, "crash"), list(range(6))))


def test_each_is_given_at_once_and_closing_early_ends_the_workers(cluster: Any) -> None:
    stream = two()(partial(squares, 0.3), list(range(400)))
    processes = {next(stream)[1][1]}
    began = time.monotonic()
    processes |= {next(stream)[1][1] for _ in range(11)}
    assert time.monotonic() - began < 30.0  # not held back until all are done
    stream.close()
    end = time.monotonic() + LIMIT
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() < end, "workers outlive their fleet"
        time.sleep(0.2)


def test_a_killed_node_s_groups_run_again(cluster: Any, tmp_path: Path) -> None:
    """A worker a node: three logical CPUs of four each."""
    lost = cluster.add_node(num_cpus=4)
    cluster.wait_for_nodes()
    notes = tmp_path / "notes"
    stream = two(cpus=3.0)(partial(noting, notes), list(range(22)))
    done: list[int] = []
    before: list[int] = []
    nodes: list[str] = []
    late: list[str] = []  # who did what was done well after the kill
    killed = math.inf
    for number, (group, node, when) in stream:
        assert group == number
        done.append(number)
        nodes.append(node)
        if when > killed + 3:  # its process may end what it had in hand
            late.append(node)
        if node == lost.node_id and nodes.count(node) == 3:
            cluster.remove_node(lost, allow_graceful=False)
            killed, before = time.time(), list(done)
    assert sorted(done) == list(range(22))
    assert before and len(set(nodes)) >= 2
    runs = Counter(int(line) for line in notes.read_text().split())
    assert all(runs[number] == 1 for number in before)  # what was yielded is never run again
    assert late and lost.node_id not in late


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_whole_selection_ranks_the_same(cluster: Any, one_thread: None, tmp_path: Path) -> None:
    """Measured by two workers, the folder agrees to the last bit with one that was measured here.

    So each batch comes back once, with the numbers that it has here, those of every token among
    them. `recipes/test_four_sources.py` asks on Ray.
    """
    from preceptor.recipes.select import select
    from preceptor.recipes.settings.loading import load_settings
    from preceptor.recipes.settings.select import Select

    settings = tmp_path / "select.yaml"
    tree = {
        "base": "lab:base-notes",
        "instructions": "lab:selection",
        "max_instructions": 12,
        "teachers": [
            {"model": f"lab:{name}", "max_new_tokens": 24, "fleet": {"kind": "here"}}
            for name in ("birch-m", "aster-s")
        ],
        "rewards": [{"kind": "verifier", "name": "right", "function": "lab"}],
        "criteria": ["car", "aslec_drop", "length"],  # one pass over the answers and their tokens
        "device": "cpu",
        "batch_tokens": 128,
        "resamples": 100,
    }
    for name, more in {"here": {}, "ray": {"fleet": {"kind": "ray", "workers": 2}}}.items():
        settings.write_text(json.dumps(tree | more), encoding="utf-8")
        select(load_settings(Select, settings), tmp_path / name)
    here, there = tmp_path / "here", tmp_path / "ray"
    files = ("ranking.json", "answers.parquet", "signals.parquet", "tokens/nll.npy")
    for name in (*files, "sample_tokens.parquet"):
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    responses = {row["response"] for row in _rows(here / "answers.parquet")}
    assert len(responses) > 12
    tokens = sum(row["n_tokens"] for row in _rows(here / "signals.parquet"))
    assert tokens > 128, "one batch could hold them all"


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()
