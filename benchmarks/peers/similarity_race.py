"""Contenders of a similarity race in turn, each in its own process: medians, ratios, equal answers, tables."""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycurate.kernels import Isa, detected_isa
from pycurate.kernels.rowwise import pair_similarity

FOLDER = Path(__file__).parent
ROUNDING = 4e-6
"""A peer's float32 sums come in another order than the canonical ones: of all rows here, d = 1,024, they were at most
9e-7 apart. A pair that only one side has counts as rounding where its canonical similarity is so near the threshold."""

TUNED = {"OPENBLAS_CORETYPE": "SKYLAKEX" if detected_isa() >= Isa.avx512 else "HASWELL"}
ONLY_AVX2 = {
    "PYCURATE_ISA": "avx2",
    "OPENBLAS_CORETYPE": "HASWELL",
    "FAISS_SIMD_LEVEL": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}


@dataclass(frozen=True)
class Contender:
    name: str
    function: str  # module.function, called in a process of its own
    needs: str | None = None  # the library that must be installed
    environment: Mapping[str, str] = field(default_factory=dict)
    operations: float = np.inf  # larger problems are timed on a sample of their query blocks


class Worker:
    """A process of ``similarity_worker``."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, FOLDER / "similarity_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(limits, str(threads)), **contender.environment},
        )
        modules = [contender.function.rpartition(".")[0], *([contender.needs] if contender.needs else [])]
        self.ask("import", modules)

    def ask(self, request: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((request, arguments), self.process.stdin)
        self.process.stdin.flush()
        try:
            done, reply = pickle.load(self.process.stdout)
        except EOFError:
            raise RuntimeError(f"{self.contender.name} died with exit code {self.process.wait()}") from None
        if not done:
            raise RuntimeError(f"{self.contender.name}: {reply}")
        return reply

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Race:
    """Contenders on the same arrays and parameters, one call each in every round; the first is what others are compared
    with. ``operations`` of the whole problem (a multiply-add is 2) decide which contenders are sampled."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        arrays: Mapping[str, NDArray[Any]],
        parameters: Mapping[str, Any],
        folder: Path,
        *,
        operations: float = 0.0,
        threads: int | Sequence[int] = 1,
    ) -> None:
        self.contenders = contenders
        self.operations = operations
        self.parameters = dict(parameters)
        self.replies: list[list[dict[str, Any]]] = [[] for _ in contenders]
        self.workers: list[Worker] = []
        each = [threads] * len(contenders) if isinstance(threads, int) else threads
        self.threads = list(each)
        paths = {}
        for name, array in arrays.items():
            paths[name] = str(folder / f"{name}.npy")
            np.save(paths[name], array)
        try:
            for contender, count in zip(contenders, self.threads, strict=True):
                self.workers.append(Worker(contender, count))
                self.workers[-1].ask("load", paths)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Race:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def run(self, rounds: int, warmup_rounds: int = 1) -> None:
        """The warm-up pays for imports, page faults and thread starts; it is not counted."""
        for number in range(warmup_rounds + rounds):
            for worker, replies in zip(self.workers, self.replies, strict=True):
                share = min(1.0, worker.contender.operations / self.operations) if self.operations else 1.0
                reply = worker.ask("call", worker.contender.function, {**self.parameters, "share": share})
                if number >= warmup_rounds:
                    replies.append(reply)

    def answer(self, k: int) -> Any:
        return self.replies[k][-1]["answer"]

    def seconds(self, k: int, clock: str = "cpu") -> float:
        return statistics.median(reply[clock] for reply in self.replies[k])

    def ratio(self, k: int, to: int = 0, clock: str = "cpu") -> float:
        """Median over the rounds of the time of contender ``k`` over that of ``to``."""
        pairs = zip(self.replies[k], self.replies[to], strict=True)
        return statistics.median(one[clock] / other[clock] for one, other in pairs)

    def describe(self) -> dict[str, str]:
        """Versions of all contenders, and what each takes the processor for."""
        facts: dict[str, str] = {}
        for worker in self.workers:
            for fact, value in worker.ask("describe").items():
                if fact != "OpenBLAS":
                    facts[fact] = value
                elif worker.contender.needs == "faiss" or "numpy" in worker.contender.name:
                    facts[f"core type of OpenBLAS in {worker.contender.name}"] = value
        return facts


@dataclass(frozen=True)
class Agreement:
    """How a peer's answer differs from ours. ``wrong``: beyond rounding, on either side."""

    compared: int
    rounding: int
    missed: int  # by the peer
    wrong: int  # the peer has it, we have not

    @property
    def equal(self) -> bool:
        return self.missed == 0 and self.wrong == 0

    def __str__(self) -> str:
        if self.equal:
            return "equal" if not self.rounding else f"equal but for {self.rounding} of {self.compared} at rounding"
        recall = 1 - self.missed / max(self.compared, 1)
        return f"recall {recall:.4f}" if self.wrong == 0 else f"{self.wrong} wrong, recall {recall:.4f}"


def compare_pairs(x: NDArray[Any], threshold: float, ours: Any, theirs: Any) -> Agreement:
    """Over the query blocks that the peer took; pairs with copies of an earlier row are left out on both sides, for we
    give those as ``copy_of``."""
    n = len(x)
    taken = np.zeros(n, bool)
    for start, stop in theirs["queries"]:
        taken[start:stop] = True
    copy = ours["copy_of"] >= 0
    mine, other = (codes(pairs, n, taken, copy) for pairs in (ours, theirs))
    lone = np.setxor1d(mine, other, assume_unique=True)
    rows, cols = lone // n, lone % n
    away = np.abs(pair_similarity(x[rows], x[cols]) - np.float32(threshold)) > ROUNDING
    only_mine = np.isin(lone, mine, assume_unique=True)
    return Agreement(len(mine), int((~away).sum()), int((away & only_mine).sum()), int((away & ~only_mine).sum()))


def codes(pairs: Any, n: int, taken: NDArray[np.bool_], copy: NDArray[np.bool_]) -> NDArray[np.int64]:
    """row * n + col of the pairs to compare."""
    rows, cols = pairs["rows"], pairs["cols"]
    keep = taken[rows] & ~copy[rows] & ~copy[cols]
    found: NDArray[np.int64] = np.unique(rows[keep] * n + cols[keep])
    return found


def compare_neighbors(x: NDArray[Any], y: NDArray[Any], ours: Any, theirs: Any) -> Agreement:
    """Neighbours among ``y`` of those rows of ``x`` that the peer took.

    One of ours that the peer lacks counts as rounding where it is as near as our last; one that only the peer has is
    wrong where it is nearer than our last.
    """
    queries = theirs["queries"] or [(0, len(x))]  # pycurate in another setting takes all
    taken = np.concatenate([np.arange(start, stop) for start, stop in queries])
    mine, other = np.sort(ours["indices"][taken], axis=1), np.sort(theirs["indices"], axis=1)
    rounding = missed = wrong = 0
    for at in np.flatnonzero((mine != other).any(axis=1)):
        row = int(taken[at])
        last = ours["similarities"][row, -1]
        only_mine, only_other = np.setdiff1d(mine[at], other[at]), np.setdiff1d(other[at], mine[at])
        far = similarities(x, row, y, only_mine) > last + ROUNDING
        rounding += int((~far).sum())
        missed += int(far.sum())
        wrong += int((similarities(x, row, y, only_other[only_other >= 0]) > last + ROUNDING).sum())
    return Agreement(mine.size, rounding, missed, wrong)


def similarities(x: NDArray[Any], row: int, y: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float32]:
    return pair_similarity(np.repeat(x[row : row + 1], len(others), axis=0), y[others])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def publish(title: str, *parts: str) -> None:
    """Print, and add to the file that PYCURATE_BENCH_TABLES names."""
    text = "\n\n".join([f"#### {title}", *parts]) + "\n"
    print(f"\n{text}")
    if target := os.environ.get("PYCURATE_BENCH_TABLES"):
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
