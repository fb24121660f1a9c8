"""Label propagation in a folder: the bytes of memory, whatever the blocks, and after a kill at any time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pycurate import KnnGraph, knn_graph, propagate_labels
from pycurate.api import propagation_folder
from pycurate.engine.memory import BASE_BYTES, resident_bytes
from pycurate.errors import InputError, MemoryCapError, WorkspaceError
from pycurate.index.graph import GraphWriter
from pycurate.ops.labels.propagation_result import Propagation

N, CLASSES = 5000, 6
SETTINGS: list[dict[str, Any]] = [
    {"weight": 3.0, "solver": "chebyshev"},
    {"preset": "zhou", "sweeps": 12},
    {"solver": "power", "symmetrize": False, "weight": "binary"},
    {"top": 2},
    {"top": 2, "balance": "mass"},
    {"balance": "mass", "prior": [1, 2, 3, 4, 5, 6], "solver": "chebyshev"},
    {"method": "harmonic", "solver": "power", "sweeps": 20},
    {"method": "vote"},
]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> KnnGraph:
    random = np.random.default_rng(0)
    centres = 3 + random.normal(size=(CLASSES, 12))
    x = (centres[np.arange(N) % CLASSES] + 0.7 * random.normal(size=(N, 12))).astype(np.float32)
    return knn_graph(x, 8, out=tmp_path_factory.mktemp("graph") / "g")


@pytest.fixture(scope="module")
def labels() -> np.ndarray[Any, Any]:
    known = np.random.default_rng(1).random(N) < 0.05
    return np.where(known, np.arange(N) % CLASSES, -1)


def same(a: Propagation, b: Propagation) -> None:
    for name in ("labels", "confidence", "margin", "mass", "distributions", "top", "residuals"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_array_equal(left, right, err_msg=name)
    assert (a.converged, a.loops, a.classes) == (b.converged, b.loops, b.classes)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("blocks", [1, 5])
def test_a_folder_gives_the_bytes_of_memory(
    graph: KnnGraph,
    labels: np.ndarray[Any, Any],
    settings: dict[str, Any],
    blocks: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = 1 << 30
    if blocks > 1:  # so little that a block is 1,024 rows and edges are sorted by thousands
        monkeypatch.setattr(propagation_folder, "_LEAST_EDGES", 1 << 10)
        memory = BASE_BYTES + 64 * N + (1 << 18)
    expected = propagate_labels(graph, labels, **settings)
    made = propagate_labels(graph, labels, out=tmp_path / "out", memory_bytes=memory, threads=2, **settings)
    same(expected, made)
    assert isinstance(made.labels, np.memmap)
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["answer", "answer.json", "lock", "pycurate.json", "workspace.json"]
    stamp = (tmp_path / "out" / "answer.json").stat().st_mtime_ns
    same(expected, propagate_labels(graph, labels, out=tmp_path / "out", **settings))  # opened, not made again
    assert (tmp_path / "out" / "answer.json").stat().st_mtime_ns == stamp


KILLED = """
import os, signal, sys
import numpy as np, pycurate
from pycurate.api import propagation_folder
from pycurate.engine.memory import BASE_BYTES
graph, labels, out, at = sys.argv[1:5]
propagation_folder._LEAST_EDGES = 1 << 10
calls = 0
def counted(function):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
propagation_folder.NpyWriter.append = counted(propagation_folder.NpyWriter.append)
propagation_folder.write_json_atomic = counted(propagation_folder.write_json_atomic)
labels = np.load(labels)
pycurate.propagate_labels(pycurate.KnnGraph.open(graph), labels, out=out, memory_bytes=BASE_BYTES + 64 * len(labels)
                          + (1 << 18), threads=1, **eval(sys.argv[5]))
"""


@pytest.mark.parametrize("settings", [{"preset": "zhou", "sweeps": 12}, {"top": 2, "sweeps": 12}])
def test_a_killed_run_goes_on_to_the_same_bytes(
    graph: KnnGraph,
    labels: np.ndarray[Any, Any],
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(propagation_folder, "_LEAST_EDGES", 1 << 10)
    memory = BASE_BYTES + 64 * N + (1 << 18)
    np.save(tmp_path / "labels.npy", labels)
    expected = propagate_labels(graph, labels, out=tmp_path / "whole", memory_bytes=memory, **settings)
    folder = Path(graph.indices.filename).parent  # type: ignore[attr-defined]
    deaths = 0
    for at in (2, 31, 33, 40, 43, 60, 200):  # while the matrix, a state, its count, the answer are written
        command = [
            sys.executable,
            "-c",
            KILLED,
            folder,
            tmp_path / "labels.npy",
            tmp_path / "out",
            str(at),
            repr(settings),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode in (0, -9), result.stderr
        deaths += result.returncode == -9
    assert deaths >= 4
    same(expected, propagate_labels(graph, labels, out=tmp_path / "out", memory_bytes=memory, **settings))
    for name in ("labels", "confidence", "margin", "mass", "shares"):
        ours, whole = (tmp_path / place / "answer" / f"{name}.npy" for place in ("out", "whole"))
        assert ours.read_bytes() == whole.read_bytes()


def test_finished_sweeps_are_not_done_again(graph: KnnGraph, labels: np.ndarray[Any, Any], tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop_at(number: int) -> Any:
        def told(done: int, change: float) -> None:
            if done == number:
                raise Stop

        return told

    with pytest.raises(Stop):
        propagate_labels(graph, labels, out=tmp_path, progress=stop_at(5))
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("matrix/*")}
    assert stamps
    seen: list[int] = []

    def told(done: int, change: float) -> None:
        seen.append(done)
        if len(seen) == 6:
            assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("matrix/*")} == stamps
            assert len(list(tmp_path.glob("state-*.npy"))) == 3

    propagate_labels(graph, labels, out=tmp_path, progress=told)
    assert seen == list(range(1, len(seen) + 1))


def test_another_question_begins_anew(graph: KnnGraph, labels: np.ndarray[Any, Any], tmp_path: Path) -> None:
    plain: dict[str, Any] = {"alpha": 0.5, "solver": "chebyshev"}
    first = propagate_labels(graph, labels, out=tmp_path, **plain)
    for change in ({"alpha": 0.6}, {"weight": 2.0}, {"classes": 9}, {"balance": "mass"}):
        other = propagate_labels(graph, labels, out=tmp_path, **{**plain, **change})
        same(other, propagate_labels(graph, labels, **{**plain, **change}))
    moved = np.roll(labels, CLASSES)
    same(propagate_labels(graph, moved, out=tmp_path, **plain), propagate_labels(graph, moved, **plain))
    same(first, propagate_labels(graph, labels, out=tmp_path, **plain))


def test_what_a_folder_cannot_do_is_said(graph: KnnGraph, labels: np.ndarray[Any, Any], tmp_path: Path) -> None:
    def refused(kind: type[Exception], sentence: str, **settings: Any) -> None:
        with pytest.raises(kind, match=sentence):
            propagate_labels(
                settings.pop("graph", graph), labels, out=settings.pop("out", tmp_path / "out"), **settings
            )

    refused(InputError, "solver: 'cg' works in memory only", preset="iscen")
    refused(InputError, "dtype: 'float64' works in memory only", dtype="float64")
    refused(InputError, "solver: 'chebyshev' in a folder needs symmetrize=True", solver="chebyshev", symmetrize=False)
    refused(
        MemoryCapError, r"memory_bytes: 1 MiB are too few for 5,000 rows; give at least \d+ MiB", memory_bytes=1 << 20
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    refused(WorkspaceError, "not empty and is not from an earlier pycurate run", out=tmp_path / "full")
    bad = KnnGraph(graph.indptr, np.full(graph.edges, N, np.uint32), np.asarray(graph.weights))
    refused(InputError, "graph: expected indices from 0 to 4,999, got 5,000", graph=bad)
    twice = KnnGraph(graph.indptr, np.full(graph.edges, 7, np.uint32), np.asarray(graph.weights))
    refused(InputError, "graph: indices: row 0 names a neighbour twice", graph=twice)
    negative = KnnGraph(graph.indptr, graph.indices, -np.asarray(graph.weights))
    refused(InputError, f"graph: {graph.edges:,} weights are negative or not finite", graph=negative)


@pytest.mark.slow
def test_memory_stays_under_the_cap(tmp_path: Path) -> None:
    # 4.8M edges take 380 MB where both ways are sorted at once
    n, k, cap = 300_000, 16, 360 << 20
    random = np.random.default_rng(0)
    with GraphWriter(tmp_path / "graph", np.dtype(np.uint32), np.dtype(np.float32)) as writer:
        for start in range(0, n, 1 << 16):
            rows = min(1 << 16, n - start)
            place = (np.arange(k) + random.random((rows, k))) * (n // k)
            writer.append(np.full(rows, k, np.uint64), place.astype(np.uint32).ravel(), np.ones(rows * k, np.float32))
        writer.finish(KnnGraph(np.zeros(1, np.uint64), np.empty(0, np.uint32), np.empty(0, np.float32)))
    np.save(tmp_path / "labels.npy", np.where(random.random(n) < 0.01, np.arange(n) % 50, -1))
    code = (
        "import sys, numpy as np, pycurate\n"
        "pycurate.propagate_labels(pycurate.KnnGraph.open(sys.argv[1]), np.load(sys.argv[2]), out=sys.argv[3],\n"
        f"                          memory_bytes={cap}, top=4, sweeps=3)"
    )
    arguments = [sys.executable, "-c", code, tmp_path / "graph", tmp_path / "labels.npy", tmp_path / "out"]
    process, peak = subprocess.Popen(arguments), 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
    assert process.returncode == 0
    assert 150 << 20 < peak < cap
