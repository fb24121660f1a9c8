"""Label propagation on a GPU: the bits of the CPU, in memory and in a folder; and, on its stand-in, little memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pycurate import KnnGraph, KnnLabelSpreading, knn_graph, propagate_labels
from pycurate.api import propagation_folder
from pycurate.engine.memory import BASE_BYTES
from pycurate.errors import InputError
from pycurate.kernels import device as devices
from pycurate.kernels import graph as kernels
from pycurate.kernels.device import CudaDevice, CudaSupport, cuda_support
from pycurate.ops.labels.propagation_result import Propagation

N, CLASSES = 3000, 6
SETTINGS: list[dict[str, Any]] = [
    {"weight": 3.0, "solver": "chebyshev"},
    {"solver": "chebyshev", "dtype": "float64"},
    {"preset": "iscen"},
    {"solver": "power", "symmetrize": False, "weight": "binary"},
    {"top": 2, "balance": "mass"},
    {"top": 5},
    {"method": "harmonic", "solver": "power", "sweeps": 20},
    {"method": "harmonic", "solver": "cg", "sweeps": 20},
    {"method": "vote"},
]
IN_FOLDER = [given for given in SETTINGS if given.get("solver") != "cg" and not {"preset", "dtype"} & given.keys()]


class StandInRows:
    """What `_core_cuda.GraphRows` does, by the CPU's kernels."""

    def __init__(self, *arguments: Any) -> None:
        indptr, indices, values, first, seeds, labels, seed_values, clamped, self.labels, _ = arguments
        self.matrix = kernels.SparseRows(indptr, indices, values, first)
        self.seeds = None if seeds is None else kernels.SeedRows(seeds, labels, seed_values, clamped)
        self.own = slice(first, first + len(self.matrix))

    def sweep_dense(self, state: Any, previous: Any, out: Any, alpha: float, omega: float) -> Any:
        before = None if previous is None else previous.array[self.own]
        return kernels.sweep_dense(
            self.matrix, self.seeds, state.array, out.array[self.own], alpha=alpha, omega=omega, previous=before
        )

    def sweep_top(self, state: Any, out: Any, alpha: float) -> Any:
        return kernels.sweep_top(
            self.matrix, self.seeds, state.array, out.array[self.own], labels=self.labels, alpha=alpha
        )

    def cg_product(self, direction: Any, product: Any, alpha: float) -> Any:
        clamped = None if self.seeds is None else self.seeds.clamped
        return kernels.cg_product(self.matrix, clamped, direction.array, product.array, alpha)

    def cg_step(self, x: Any, residual: Any, direction: Any, product: Any, step: Any) -> Any:
        return kernels.cg_step(x.array, residual.array, direction.array, product.array, step)

    def cg_turn(self, residual: Any, ratio: Any, direction: Any) -> None:
        kernels.cg_turn(residual.array, ratio, direction.array)


class StandInValues:
    """What `_core_cuda.GraphValues` does."""

    def __init__(self, rows: int, columns: int, dtype: np.dtype[Any], device: int) -> None:
        self.array = np.frombuffer(bytearray(b"\x7f" * (rows * columns * dtype.itemsize)), dtype).reshape(rows, columns)

    def write(self, array: NDArray[Any], first: int) -> None:
        self.array[first : first + len(array)] = array

    def read(self, array: NDArray[Any], first: int) -> None:
        array[...] = self.array[first : first + len(array)]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """As if there were a GPU; its memory is ``free`` bytes."""
    made = SimpleNamespace(GraphRows=StandInRows, GraphValues=StandInValues, free=1 << 30)
    made.free_bytes = lambda gpu: made.free
    support = CudaSupport(True, 13000, (CudaDevice("stand-in", (9, 0), 1 << 30, True),))
    monkeypatch.setattr(devices, "cuda_kernels", lambda: made)
    monkeypatch.setattr(devices, "cuda_support", lambda: support)
    return made


@pytest.fixture(params=["cuda", "stand-in"])
def gpu(request: pytest.FixtureRequest) -> str:
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
    elif cuda_support().missing:
        pytest.skip(f"no GPU: {cuda_support().missing}")
    return "cuda"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> KnnGraph:
    random = np.random.default_rng(0)
    centres = 3 + random.normal(size=(CLASSES, 12))
    x = (centres[np.arange(N) % CLASSES] + 0.7 * random.normal(size=(N, 12))).astype(np.float32)
    return knn_graph(x, 8, out=tmp_path_factory.mktemp("graph") / "g")


@pytest.fixture(scope="module")
def labels() -> NDArray[np.int64]:
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
def test_a_gpu_gives_the_bits_of_the_cpu(
    gpu: str, graph: KnnGraph, labels: NDArray[np.int64], settings: dict[str, Any]
) -> None:
    same(propagate_labels(graph, labels, **settings), propagate_labels(graph, labels, device=gpu, **settings))


@pytest.mark.parametrize("multi_label", [False, True])
def test_soft_and_many_labels(gpu: str, graph: KnnGraph, labels: NDArray[np.int64], multi_label: bool) -> None:
    given = np.zeros((N, CLASSES), np.float32)
    known = labels >= 0
    given[known, labels[known]] = 0.5
    given[known, (labels[known] + 1) % CLASSES] = 0.5
    if multi_label:
        given[~known] = -1
    how: dict[str, Any] = {"multi_label": multi_label}
    same(propagate_labels(graph, given, **how), propagate_labels(graph, given, device=gpu, **how))


@pytest.mark.parametrize("settings", IN_FOLDER)
@pytest.mark.parametrize("blocks", [1, 3])
def test_a_folder_on_a_gpu(
    gpu: str,
    graph: KnnGraph,
    labels: NDArray[np.int64],
    settings: dict[str, Any],
    blocks: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = 1 << 30
    if blocks > 1:
        monkeypatch.setattr(propagation_folder, "_LEAST_EDGES", 1 << 10)
        memory = BASE_BYTES + 64 * N + (1 << 18)
    expected = propagate_labels(graph, labels, **settings)
    same(expected, propagate_labels(graph, labels, out=tmp_path, memory_bytes=memory, device=gpu, **settings))


class Killed(Exception):
    pass


@pytest.mark.parametrize("settings", [{"solver": "chebyshev"}, {"top": 2}])
@pytest.mark.parametrize("then", ["cpu", "cuda"])
def test_a_killed_run_continues_on_either(
    gpu: str, graph: KnnGraph, labels: NDArray[np.int64], settings: dict[str, Any], then: str, tmp_path: Path
) -> None:
    def stop(number: int, change: float) -> None:
        if number == 4:
            raise Killed

    with pytest.raises(Killed):
        propagate_labels(graph, labels, out=tmp_path, device=gpu, progress=stop, **settings)
    expected = propagate_labels(graph, labels, **settings)
    assert expected.sweeps > 5
    same(expected, propagate_labels(graph, labels, out=tmp_path, device=then, **settings))


def test_a_matrix_that_does_not_fit_is_sent_for_each_sweep(
    stand_in: SimpleNamespace,
    graph: KnnGraph,
    labels: NDArray[np.int64],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(propagation_folder, "_LEAST_EDGES", 1 << 10)
    memory = BASE_BYTES + 64 * N + (1 << 18)
    made: list[int] = []

    class Counted(StandInRows):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(len(self.matrix))

    stand_in.GraphRows = Counted
    how: dict[str, Any] = {"solver": "power", "sweeps": 5, "tol": 0.0}
    expected = propagate_labels(graph, labels, **how)
    same(expected, propagate_labels(graph, labels, out=tmp_path / "a", memory_bytes=memory, device="cuda", **how))
    assert sum(made) == N  # once, and kept
    made.clear()
    stand_in.free = (64 << 20) + 2 * N * 64 + graph.edges * 8
    same(expected, propagate_labels(graph, labels, out=tmp_path / "b", memory_bytes=memory, device="cuda", **how))
    assert sum(made) == 5 * N
    stand_in.free = (64 << 20) + 2 * N * 64
    with pytest.raises(MemoryError, match=r"MiB of GPU memory are needed, \d+ MiB are free on cuda:0; keep only"):
        propagate_labels(graph, labels, out=tmp_path / "c", memory_bytes=memory, device="cuda", **how)


@pytest.mark.parametrize("solver", ["cg", "power"])
def test_what_a_gpu_does_not_hold_is_refused_with_what_to_do(
    stand_in: SimpleNamespace, graph: KnnGraph, labels: NDArray[np.int64], solver: Any
) -> None:
    stand_in.free = 64 << 20
    with pytest.raises(MemoryError, match=r"needed, 64 MiB are free on cuda:0; .*top=4.*out=.*device='cpu'"):
        propagate_labels(graph, labels, solver=solver, device="cuda")


def test_label_spreading_on_a_gpu() -> None:
    if cuda_support().missing:
        pytest.skip(f"no GPU: {cuda_support().missing}")
    random = np.random.default_rng(0)
    x = random.normal(size=(700, 20)).astype(np.float32)
    labels = np.where(random.random(700) < 0.1, random.integers(0, 3, 700), -1)
    here, there = (KnnLabelSpreading(device=device).fit(x, labels) for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(here.label_distributions_, there.label_distributions_)
    np.testing.assert_array_equal(here.predict_proba(x[:50]), there.predict_proba(x[:50]))


def test_where_only_pytorch_sees_a_gpu_the_cpu_sweeps(
    torch_on_the_cpu: None, graph: KnnGraph, labels: NDArray[np.int64]
) -> None:
    same(propagate_labels(graph, labels), propagate_labels(graph, labels, device="cuda"))


def test_a_gpu_that_is_not_there(
    graph: KnnGraph, labels: NDArray[np.int64], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices, "cuda_support", lambda: CudaSupport(True, 0, ()))
    with pytest.raises(InputError, match="device: a GPU was asked for, but no CUDA driver was found"):
        propagate_labels(graph, labels, device="cuda", out=tmp_path / "out")
    with pytest.raises(InputError, match="no CUDA driver"):
        KnnLabelSpreading(device="cuda:0").fit(np.eye(4, dtype=np.float32), [0, 1, -1, -1])
    assert not (tmp_path / "out").exists()
    same(propagate_labels(graph, labels), propagate_labels(graph, labels, device="auto"))
