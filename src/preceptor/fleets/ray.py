"""A fleet over a Ray cluster: Ray Data streams the groups through a pool of actors.

Each group is one block. An actor opens one worker at its first block, and the result of a block
reaches the driver as soon as it is done; at most `IN_FLIGHT` blocks are given to an actor at a
time. What the driver has yielded is never run again. Blocks of an actor that is lost, with its
node or alone, run again: on the same actor once it has room to start anew, or after the others are
done. An actor that is lost more than `RESTARTS` times ends the run: its block is then the likely
cause. (Bounding the tries of a block instead fails with lost nodes: until Ray calls a node dead,
each attempt to reach it counts as one.)

A worker's own exception is a result like any other: it is not tried again, and is raised here as
what it was.

Every group is put into the object store when the fleet is called (Ray spills it to disk where
memory is short), each result as it is made.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from preceptor.core.errors import ModelError, PreceptorError, SettingsError
from preceptor.core.fleet import Fleet, Work
from preceptor.core.progress import say

IN_FLIGHT = 2  # blocks of an actor: one that runs, one that waits
RESTARTS = 4  # of an actor

# notices that Ray prints on standard output, which is kept for results
_NOTICES = r"Task .* failed\.|worker died or was killed|Raylet is terminated|has been marked dead"
_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": _NOTICES,
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def open_fleet(setting: Any) -> Fleet:
    """Workers as Ray actors; reads `setting.address`, `workers`, `cpus` and `gpus`.

    Nothing is started yet. Each call of the fleet joins the Ray session of this process, or the
    cluster at `address`, or starts a local one, and leaves or ends it afterwards if it was not
    there before. The workers, and the models in them, end with the call.

    Raises:
        SettingsError: Ray is not installed, or `address` is one that Ray Data cannot use. When
            called: the cluster cannot be reached, or this machine has too few GPUs.
        ModelError: when called: a worker failed, or was lost again and again.
    """
    _import_ray()
    if (setting.address or "").startswith("ray://"):
        raise SettingsError(
            "Ray Data cannot be driven through a Ray client",
            where="fleet: address",
            found=setting.address,
            next_step="run the command on a node of the cluster (`ray job submit`), address: auto",
        )

    def fleet(open_worker: Callable[[], Work], groups: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        if groups:
            with _session(setting, _pool_size(setting, len(groups))), _quiet():
                yield from _run(setting, open_worker, groups)

    return fleet


def _import_ray() -> Any:
    """Ray with Ray Data, quiet (raises SettingsError)."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray.data import DataContext
    except ImportError as error:
        raise SettingsError(
            "a fleet of kind `ray` needs Ray Data",
            where="fleet: kind",
            found=str(error).splitlines()[0],
            next_step="pip install 'preceptor[ray]'",
        ) from error
    with warnings.catch_warnings():  # Ray's own defaults set options that Ray has deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        DataContext.get_current()
    return ray


def _pool_size(setting: Any, n_groups: int) -> tuple[int, int]:
    """Fewest and most actors; no more than groups."""
    workers = setting.workers
    fewest, most = (workers, workers) if isinstance(workers, int) else workers
    return min(fewest, n_groups), min(most, n_groups)


@contextmanager
def _session(setting: Any, size: tuple[int, int]) -> Iterator[None]:
    """A Ray session: the one that is there, the one of the setting, or a local one."""
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": setting.address}
    if setting.address is None:
        need = math.ceil(size[1] * setting.cpus) + 1  # one for Ray Data itself
        options = {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, need),
            "include_dashboard": False,
        }
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises the bare class where a start takes too long
        ray.shutdown()
        raise SettingsError(
            "Ray cannot be started" if setting.address is None else "no Ray cluster can be joined",
            where=f"fleet: address {setting.address or '(local)'}",
            found=_first_line(error),
            next_step="look at `ray status`, or leave `address` out for a local session",
        ) from error
    try:
        if setting.address is None:
            _refuse_missing_gpus(ray, setting, size[0])
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data's log on the terminal off: what matters of it is raised."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refuse_missing_gpus(ray: Any, setting: Any, fewest: int) -> None:
    gpus = ray.cluster_resources().get("GPU", 0)
    if fewest * setting.gpus > gpus:
        raise SettingsError(
            "the workers need more GPUs than this machine has",
            where="fleet: workers, gpus",
            found=f"{fewest} x {setting.gpus:g}, {gpus:g} here",
            next_step="set fewer workers or gpus, or the `address` of a cluster",
        )


def _say_if_none_fits(setting: Any) -> None:
    """A cluster that scales may bring the node yet, so this is no error."""
    import ray

    need = {"CPU": setting.cpus, "GPU": setting.gpus}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(kind, 0) >= n for kind, n in need.items()) for node in nodes):
        say(
            f"waiting for Ray: no node of the cluster has {setting.cpus:g} CPUs and "
            f"{setting.gpus:g} GPUs for a worker"
        )


def _run(
    setting: Any, open_worker: Callable[[], Work], groups: Sequence[Any]
) -> Iterator[tuple[int, Any]]:
    """One Ray Data execution over the groups."""
    from ray.data import from_items

    _say_if_none_fits(setting)
    rows = [{"number": i, "group": _packed(group)} for i, group in enumerate(groups)]
    blocks = from_items(rows, override_num_blocks=len(rows))
    del rows
    blocks.context.enable_progress_bars = False
    results = _mapped(setting, blocks, open_worker, _pool_size(setting, len(groups)))
    done: set[int] = set()
    restarted: set[str] = set()
    for number, outcome in _stream(results):
        value, error, anew = _unpacked(outcome)
        if anew and anew not in restarted:
            restarted.add(anew)
            say(f"a worker was lost and began anew on {anew}; its groups run again")
        if error is not None:
            raise error
        if number not in done:
            done.add(number)
            yield number, value
    if len(done) < len(groups):
        raise _failure("Ray lost groups", f"{len(groups) - len(done)} of {len(groups)}")


def _mapped(
    setting: Any, blocks: Any, open_worker: Callable[[], Work], size: tuple[int, int]
) -> Any:
    """The blocks through a pool of actors; lazy."""
    from ray.data import ActorPoolStrategy

    pool = ActorPoolStrategy(
        min_size=size[0], max_size=size[1], max_tasks_in_flight_per_actor=IN_FLIGHT
    )
    with warnings.catch_warnings():
        # Ray Data has no other place yet for the restarts; left alone, they are without end
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return blocks.map_batches(
            _Worker,
            fn_constructor_args=(
                _packed(open_worker),
                max(1, int(setting.cpus)),
                setting.gpus > 0,
            ),
            batch_size=1,
            batch_format="pyarrow",
            compute=pool,
            num_cpus=setting.cpus,
            num_gpus=setting.gpus,
            max_restarts=RESTARTS,
            max_task_retries=-1,
        )


def _stream(results: Any) -> Iterator[tuple[int, bytes]]:
    """Number and outcome of each block as it is done; Ray's own failures as one ModelError."""
    batches = iter(
        results.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
    )
    try:
        while True:
            try:
                table = next(batches)
            except StopIteration:
                return
            except Exception as error:
                raise _failure("a worker was lost again and again", _first_line(error)) from error
            yield from zip(table["number"].to_pylist(), table["outcome"].to_pylist(), strict=True)
    finally:
        close = getattr(batches, "close", None)
        if close:
            close()


class _Worker:
    """An actor: opens the worker at its first block, so that a crash there is one of the actor's.

    Args:
        opener: `open_worker`, pickled: nothing is imported before the number of threads is set.
        threads: of the libraries in this process.
        sees_gpus: those that Ray gave to this actor; otherwise none, whatever the node has.
    """

    def __init__(self, opener: bytes, threads: int, sees_gpus: bool) -> None:
        self.opener, self.threads = opener, threads
        if not sees_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.work: Work | None = None

    def __call__(self, block: Any) -> dict[str, list[Any]]:
        try:
            outcome = _packed((self._result(block), None, self._anew()))
        except PreceptorError as error:
            outcome = _packed((None, error, ""))
        except Exception as error:
            found = f"{type(error).__name__}: {_first_line(error)}"
            outcome = _packed((None, _failure("a worker of the fleet failed", found), ""))
        return {"number": block["number"].to_pylist(), "outcome": [outcome]}

    def _result(self, block: Any) -> Any:
        if self.work is None:
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
            open_worker = _unpacked(self.opener)
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self.threads)
            self.work = open_worker()
        assert self.work is not None
        return self.work(_unpacked(block["group"][0].as_py()))

    def _anew(self) -> str:
        """Where this actor runs, if it was lost before."""
        import ray

        context = ray.get_runtime_context()
        if not context.was_current_actor_reconstructed:
            return ""
        return f"node {context.get_node_id()[:8]}, process {os.getpid()}"


def _packed(content: Any) -> bytes:
    """For another process of this run: also what a notebook defines."""
    from ray import cloudpickle

    return cloudpickle.dumps(content)  # pyright: ignore[reportPrivateImportUsage]


def _unpacked(content: bytes) -> Any:
    return pickle.loads(content)


def _failure(what: str, found: str) -> ModelError:
    return ModelError(
        what,
        where="fleet of kind ray",
        found=found,
        next_step="mend the cause and run the same command again; what was done is kept",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
