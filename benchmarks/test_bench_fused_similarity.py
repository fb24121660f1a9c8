"""Every pair of rows: joins, neighbours and assignment against the best a user has, on generated and real embeddings.

Each contender runs in a process of its own and they take turns; seconds are the processor's, preparation included, on
one thread unless said otherwise. Rows are float32 of unit length, so that no peer has to normalise.
PYCURATE_BENCH_JOIN_ROWS lists the sizes of the tables (5000,20000), PYCURATE_BENCH_TABLES a file to add them to.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embeddings import (
    BLOCK_ROWS,
    clip_like,
    clip_like_blocks,
    flat_spectrum,
    identical_copies,
    noisy_copies,
    normalised,
    real_rows,
    tiled_with_noise,
)
from measure import measure
from numpy.typing import NDArray
from peers.similarity_race import (
    ONLY_AVX2,
    TUNED,
    Contender,
    Race,
    compare_neighbors,
    compare_pairs,
    publish,
    table,
)

from pycurate import _core
from pycurate.kernels import Isa, detected_isa

SIZES = [int(rows) for rows in os.environ.get("PYCURATE_BENCH_JOIN_ROWS", "5000,20000").split(",")]
BLAS, SLOW = 1e12, 2e10  # operations that a peer is given in the tables: about 10 s

OURS = Contender("pycurate", "similarity_ours.join")
FAISS = Contender("faiss as installed", "similarity_peers.join_faiss", "faiss", {}, BLAS)
FAISS_TUNED = Contender("faiss tuned", "similarity_peers.join_faiss", "faiss", TUNED, BLAS)
JOINS = [
    FAISS,
    FAISS_TUNED,
    Contender("faiss tuned, later rows only", "similarity_peers.join_faiss_later", "faiss", TUNED, BLAS),
    Contender("torch float32 blocks", "similarity_peers.join_torch_float32", "torch", {}, BLAS),
    Contender("torch bfloat16 blocks, re-checked", "similarity_peers.join_torch_bfloat16", "torch", {}, BLAS),
    Contender("torch int8 blocks, re-checked", "similarity_peers.join_torch_int8", "torch", {}, BLAS),
    Contender("numpy blocks, tuned", "similarity_peers.join_numpy", None, TUNED, BLAS),
    Contender("usearch exact, k = 64", "similarity_peers.join_usearch", "usearch", {}, SLOW),
]
NEAREST = [
    Contender("faiss flat as installed", "similarity_peers.nearest_faiss", "faiss", {}, BLAS),
    Contender("faiss flat tuned", "similarity_peers.nearest_faiss", "faiss", TUNED, BLAS),
    Contender("torch topk", "similarity_peers.nearest_torch", "torch", {}, BLAS),
    Contender("usearch exact", "similarity_peers.nearest_usearch", "usearch", {}, SLOW),
]
ASSIGN = [
    Contender("faiss flat as installed", "similarity_peers.assign_faiss", "faiss", {}, BLAS),
    Contender("faiss flat tuned", "similarity_peers.assign_faiss", "faiss", TUNED, BLAS),
    Contender("torch argmax", "similarity_peers.assign_torch", "torch", {}, BLAS),
    Contender("numpy argmax, tuned", "similarity_peers.assign_numpy", None, TUNED, BLAS),
]
INEXACT = ("usearch exact, k = 64",)  # drops pairs of a row that has more than 64


def installed(contenders: Sequence[Contender]) -> list[Contender]:
    return [each for each in contenders if each.needs is None or importlib.util.find_spec(each.needs)]


def need(*libraries: str) -> None:
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")


def rows_named(name: str, n: int, d: int, threshold: float = 0.9) -> NDArray[np.float32]:
    """Generated rows, or ``n`` of the real ones tiled with noise; skips where those are not at hand."""
    if name == "flat":
        return flat_spectrum(n, d, threshold)
    if name == "CLIP-like":
        return clip_like(n, d, threshold)
    real = real_rows("web captions" if name == "web captions, tiled with noise" else name)
    if real is None:
        pytest.skip("the real data sets (../shared/data) are not here")
    return tiled_with_noise(real, n) if name == "web captions, tiled with noise" else real


def checked_joins(race: Race, x: NDArray[np.float32], threshold: float, ours: int = 0) -> list[str]:
    """What each contender's pairs are beside ours; fails where they differ by more than rounding."""
    said = []
    for k, contender in enumerate(race.contenders):
        if k == ours:
            said.append(f"{len(race.answer(k)['rows']):,} pairs")
            continue
        theirs = race.answer(k)
        if theirs["queries"] is None:  # pycurate itself, in another setting: not even rounding may differ
            for field in ("rows", "cols", "similarities", "copy_of"):
                np.testing.assert_array_equal(theirs[field], race.answer(ours)[field])
            said.append("the same bits")
            continue
        agreement = compare_pairs(x, threshold, race.answer(ours), theirs)
        assert agreement.equal or contender.name in INEXACT, f"{contender.name}: {agreement}"
        assert agreement.wrong == 0, f"{contender.name}: {agreement}"
        said.append(str(agreement))
    return said


def checked_neighbors(race: Race, x: NDArray[np.float32], y: NDArray[np.float32]) -> list[str]:
    said = [""]
    for k, contender in enumerate(race.contenders[1:], 1):
        agreement = compare_neighbors(x, y, race.answer(0), race.answer(k))
        assert agreement.equal, f"{contender.name}: {agreement}"
        said.append(str(agreement))
    return said


def contenders_table(race: Race, said: Sequence[str], clock: str = "cpu") -> str:
    """Seconds, the part of them that does not grow with the square of the rows, and the ratio to ours."""
    rows = []
    for k, contender in enumerate(race.contenders):
        share = race.replies[k][-1]["share"]
        rows.append(
            [
                contender.name + ("" if share == 1 else f" (from {share:.1%} of the work)"),
                f"{race.seconds(k, clock):.3g} s",
                f"{preparation_seconds(race, k):.3g} s",
                "1" if k == 0 else f"{race.ratio(k, 0, clock):.3g}",
                said[k],
            ]
        )
    return table(["who", f"{clock} time", "of which preparation", "times ours", "answer"], rows)


def preparation_seconds(race: Race, k: int) -> float:
    """Median of the part that does not grow with the square of the rows; pycurate says it of itself."""
    return statistics.median(
        reply.get("work", {}).get("preparation_seconds", reply["preparation"]) for reply in race.replies[k]
    )


def limits(race: Race, k: int = 0, rounds: int = 3) -> dict[str, float]:
    """Medians of what the processor can do, measured in the process of contender ``k``."""
    found = [race.workers[k].ask("measure", "similarity_ours.limits") for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def limits_line(peaks: dict[str, float]) -> str:
    return (
        f"Measured in the same run, one thread: int8 {peaks['int8']:.0f} Gop/s, float32 {peaks['float32']:.0f} Gop/s, "
        f"memory read {peaks['read']:.1f} GB/s."
    )


def share_of_peak(reply: dict[str, Any], peaks: dict[str, float]) -> float:
    """Arithmetic done by the join over what the int8 peak would have done in its time without preparation."""
    work = reply["work"]
    return float(work["operations"] / (reply["cpu"] - work["preparation_seconds"]) / peaks["int8"] / 1e9)


def work_line(work: dict[str, float]) -> str:
    return "Work: " + ", ".join(f"{name.replace('_', ' ')} {value:,.4g}" for name, value in work.items()) + "."


def facts_line(race: Race) -> str:
    return "Versions: " + ", ".join(f"{name} {value}" for name, value in race.describe().items()) + "."


def report(title: str, race: Race, said: Sequence[str]) -> dict[str, float]:
    """Publish a race whose first contender is pycurate; returns the limits of the processor."""
    peaks = limits(race)
    work = race.replies[0][-1]["work"]
    publish(title, contenders_table(race, said), limits_line(peaks), work_line(work), facts_line(race))
    return peaks


def self_join_operations(x: NDArray[np.float32]) -> float:
    return 2.0 * len(x) * len(x) * x.shape[1]


# Tables.


@pytest.mark.parametrize("d", [384, 512, 1024])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", ["flat", "CLIP-like", "web captions, tiled with noise"])
@pytest.mark.benchmark(group="self-join")
def test_bench_self_join(benchmark: Any, tmp_path: Path, name: str, n: int, d: int) -> None:
    if name == "web captions, tiled with noise" and d != 384:
        pytest.skip("those rows have 384 elements")
    race_joins(benchmark, tmp_path, name, rows_named(name, n, d))


@pytest.mark.parametrize("name", ["aerial photographs", "aerial captions", "web captions"])
@pytest.mark.benchmark(group="self-join, real rows")
def test_bench_self_join_of_real_rows(benchmark: Any, tmp_path: Path, name: str) -> None:
    race_joins(benchmark, tmp_path, name, rows_named(name, 0, 0))


def race_joins(benchmark: Any, folder: Path, name: str, x: NDArray[np.float32]) -> None:
    contenders = [OURS, *installed(JOINS)]
    with Race(contenders, {"x": x}, {"threshold": 0.9}, folder, operations=self_join_operations(x)) as race:
        race.run(0)
        benchmark.pedantic(race.run, (1, 0), rounds=3, warmup_rounds=0)
        benchmark.extra_info |= {each.name: round(race.ratio(k), 2) for k, each in enumerate(contenders)}
        report(f"Self-join at 0.9, {name}, {len(x):,} x {x.shape[1]}", race, checked_joins(race, x, 0.9))


@pytest.mark.parametrize("name", ["flat", "CLIP-like"])
@pytest.mark.benchmark(group="self-join, threads")
def test_bench_threads(benchmark: Any, tmp_path: Path, name: str) -> None:
    """Clock time of one and of two threads, all sides."""
    need("faiss", "torch")
    n, d = max(SIZES), 512
    x = rows_named(name, n, d)
    pairs = [OURS, FAISS_TUNED, next(each for each in JOINS if each.name == "torch float32 blocks")]
    contenders = [each for each in pairs for _ in (1, 2)]
    threads = [1, 2] * len(pairs)
    operations = self_join_operations(x)
    with Race(contenders, {"x": x}, {"threshold": 0.9}, tmp_path, operations=operations, threads=threads) as race:
        race.run(0)
        benchmark.pedantic(race.run, (1, 0), rounds=3, warmup_rounds=0)
        checked_joins(race, x, 0.9)
        rows = []
        for k in range(0, len(contenders), 2):
            seconds = [f"{race.seconds(each, 'wall'):.3g} s" for each in (k, k + 1)]
            rows.append([contenders[k].name, *seconds, f"{race.ratio(k, k + 1, 'wall'):.2f}"])
    publish(
        f"Self-join at 0.9, {name}, {n:,} x {d}: clock time",
        table(["who", "one thread", "two threads", "times faster"], rows),
    )


@pytest.mark.parametrize("name", ["flat", "CLIP-like"])
@pytest.mark.benchmark(group="self-join, growth")
def test_bench_growth(benchmark: Any, tmp_path: Path, name: str) -> None:
    """Only pycurate, by rows: brute force costs four times as much for twice the rows."""
    rows: list[list[object]] = []

    def grow() -> None:
        for n in SIZES:
            x = rows_named(name, n, 512)
            with Race([OURS], {"x": x}, {"threshold": 0.9}, tmp_path) as race:
                race.run(3)
                work = race.replies[0][-1]["work"]
                seconds = race.seconds(0)
                each = f"{1e9 * seconds / (n * (n - 1) / 2):.3g}"
                done = work_line(work).removeprefix("Work: ")
                rows.append([f"{n:,}", f"{seconds:.3g} s", f"{preparation_seconds(race, 0):.3g} s", each, done])

    benchmark.pedantic(grow, rounds=1)
    header = ["rows", "cpu time", "of which preparation", "ns a pair", "work"]
    publish(f"Self-join at 0.9, {name}, d = 512, by rows", table(header, rows))


@pytest.mark.parametrize("name", ["flat", "CLIP-like"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.benchmark(group="nearest")
def test_bench_nearest(benchmark: Any, tmp_path: Path, n: int, name: str) -> None:
    x = rows_named(name, n, 512)
    contenders = [Contender("pycurate", "similarity_ours.nearest"), *installed(NEAREST)]
    with Race(contenders, {"x": x}, {"k": 32}, tmp_path, operations=self_join_operations(x)) as race:
        race.run(0)
        benchmark.pedantic(race.run, (1, 0), rounds=3, warmup_rounds=0)
        report(f"32 nearest, {name}, {n:,} x 512", race, checked_neighbors(race, x, x))


@pytest.mark.parametrize("name", ["flat", "CLIP-like"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.benchmark(group="assignment")
def test_bench_assignment(benchmark: Any, tmp_path: Path, n: int, name: str) -> None:
    x = rows_named(name, n, 512)
    centroids = centroids_of(x, 4096)
    contenders = [Contender("pycurate", "similarity_ours.assign"), *installed(ASSIGN)]
    arrays = {"x": x, "centroids": centroids}
    with Race(contenders, arrays, {}, tmp_path, operations=2.0 * n * centroids.size) as race:
        race.run(0)
        benchmark.pedantic(race.run, (1, 0), rounds=3, warmup_rounds=0)
        report(
            f"Assignment to {len(centroids):,} centroids, {name}, {n:,} x 512",
            race,
            checked_neighbors(race, x, centroids),
        )


def centroids_of(x: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Means of 8 rows each about one of ``k`` rows: as spread and as far from any row as k-means leaves them."""
    random = np.random.default_rng(k)
    k = min(k, len(x) // 2)
    anchors = x[random.permutation(len(x))[:k]]
    sample = x[random.permutation(len(x))[: 4 * k]]
    nearest = np.concatenate([np.argpartition(-(part @ sample.T), 8)[:, :8] for part in np.array_split(anchors, 64)])
    return normalised(sample[nearest].mean(axis=1))


# Bars.


@pytest.mark.gate
def test_gate_self_join_of_a_flat_spectrum(tmp_path: Path) -> None:
    need("faiss")
    x = flat_spectrum(20_000, 512)
    with Race([OURS, FAISS, FAISS_TUNED], {"x": x}, {"threshold": 0.9}, tmp_path) as race:
        race.run(5)
        said = checked_joins(race, x, 0.9)
        peaks = report("Bar: self-join at 0.9, flat, 20,000 x 512", race, said)
        installed_ratio, tuned_ratio = race.ratio(1), race.ratio(2)
        share = statistics.median(share_of_peak(reply, peaks) for reply in race.replies[0])
        print(f"{installed_ratio:.2f} x as installed, {tuned_ratio:.2f} x tuned, {share:.0%} of the int8 peak")
    whole = share_of_peak_by_whole_rows(x)
    print(f"whole rows, where no prefix can reject a tile (threshold 0.3): {whole:.0%} of the int8 peak")
    assert installed_ratio >= 12
    assert tuned_ratio >= 7
    assert whole >= 0.75


def share_of_peak_by_whole_rows(x: NDArray[np.float32]) -> float:
    """Of a join that computes every tile over all coordinates, in median of three; prefixes, which save most of that
    work, spend more of their shorter time between tiles."""
    fused = _core.fused_similarity
    rows = fused.Operand(x, "float32", None, "cosine", None, "exact", 1)
    shares = []
    for _ in range(3):
        peak = fused.peak_rate("int8", 0.3)
        start = time.process_time()
        fused.pairs_above(rows, None, 0.3, len(x) * 100, 1, None)
        shares.append(fused.last_work()["operations"] / (time.process_time() - start) / peak)
    return statistics.median(shares)


@pytest.mark.gate
def test_gate_self_join_with_avx2_only(tmp_path: Path) -> None:
    need("faiss")
    if detected_isa() < Isa.avx2:
        pytest.skip("this processor has no AVX2")
    x = flat_spectrum(20_000, 512)
    ours = Contender("pycurate, AVX2", OURS.function, None, ONLY_AVX2)
    faiss = Contender("faiss, AVX2", FAISS.function, "faiss", ONLY_AVX2)
    with Race([ours, faiss, OURS], {"x": x}, {"threshold": 0.9}, tmp_path) as race:
        race.run(5)
        said = checked_joins(race, x, 0.9)
        publish(
            "Bar: self-join, flat, 20,000 x 512, AVX2 on both sides", contenders_table(race, said), facts_line(race)
        )
        ratio = race.ratio(1)
    assert ratio >= 2


@pytest.mark.gate
@pytest.mark.parametrize(
    ("name", "n", "d", "bar"),
    [
        ("web captions", 10_000, 384, 10),
        ("CLIP-like", 50_000, 512, 25),
        ("web captions, tiled with noise", 50_000, 384, 25),
    ],
)
def test_gate_self_join_of_real_spectra(tmp_path: Path, name: str, n: int, d: int, bar: float) -> None:
    need("faiss")
    x = rows_named(name, n, d)
    assert x.shape == (n, d)
    with Race([OURS, FAISS], {"x": x}, {"threshold": 0.9}, tmp_path) as race:
        race.run(5 if n <= 10_000 else 3)
        report(f"Bar: self-join at 0.9, {name}, {n:,} x {d}", race, checked_joins(race, x, 0.9))
        ratio = race.ratio(1)
    assert ratio >= bar


@pytest.mark.gate
@pytest.mark.parametrize(("name", "n"), [("flat", 20_000), ("CLIP-like", 50_000)])
def test_gate_two_threads(tmp_path: Path, name: str, n: int) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    x = rows_named(name, n, 512)
    with Race([OURS, OURS], {"x": x}, {"threshold": 0.9}, tmp_path, threads=[2, 1]) as race:
        race.run(7)
        checked_joins(race, x, 0.9)
        ratio = race.ratio(1, 0, "wall")
    print(f"\n{name}, {n:,} x 512: two threads are {ratio:.2f} x as fast as one")
    assert ratio >= 1.7


@pytest.mark.gate
@pytest.mark.parametrize("name", ["flat", "CLIP-like"])
def test_gate_nearest(tmp_path: Path, name: str) -> None:
    need("faiss")
    x = rows_named(name, 50_000, 512)
    contenders = [Contender("pycurate", "similarity_ours.nearest"), Contender(FAISS.name, NEAREST[0].function, "faiss")]
    with Race(contenders, {"x": x}, {"k": 32}, tmp_path) as race:
        race.run(3)
        report(f"Bar: 32 nearest, {name}, 50,000 x 512", race, checked_neighbors(race, x, x))
        ratio = race.ratio(1)
    assert ratio >= 6


@pytest.mark.gate
@pytest.mark.parametrize("name", ["flat", "CLIP-like"])
def test_gate_assignment(tmp_path: Path, name: str) -> None:
    need("faiss")
    x = rows_named(name, 50_000, 512)
    centroids = centroids_of(x, 4096)
    contenders = [Contender("pycurate", "similarity_ours.assign"), Contender(FAISS.name, ASSIGN[0].function, "faiss")]
    with Race(contenders, {"x": x, "centroids": centroids}, {}, tmp_path) as race:
        race.run(5)
        said = checked_neighbors(race, x, centroids)
        report(f"Bar: assignment to 4,096 centroids, {name}, 50,000 x 512", race, said)
        ratio = race.ratio(1)
    assert ratio >= 4


@pytest.mark.gate
@pytest.mark.parametrize("similarity", [0.95, 0.9])
def test_gate_clump_of_noisy_copies(tmp_path: Path, similarity: float) -> None:
    """Against a float32 pass that computes every product and its maximum and nothing else. At 0.9 the pairs lie on both
    sides of the threshold, as near to it as noise brings them.

    Our own float32 pass skips what is linked already, so it is printed but no measure; so are counts of neighbours,
    which need every pair.
    """
    need("torch")
    x = noisy_copies(20_000, 512, similarity)
    contenders = [
        Contender("pycurate", "similarity_ours.components"),
        Contender("torch float32 products", "similarity_peers.pass_torch_float32", "torch"),
        Contender("pycurate, float32", "similarity_ours.components_float32"),
        Contender("pycurate, counts of neighbours", "similarity_ours.counts"),
    ]
    with Race(contenders, {"x": x}, {"threshold": 0.9}, tmp_path) as race:
        race.run(5)
        assert (race.answer(0) == 0).all()
        assert (race.answer(2) == 0).all()
        said = ["one component", "", "one component", f"{race.answer(3).mean():,.1f} on average"]
        report(f"Bar: components of {len(x):,} noisy copies at {similarity}", race, said)
        ratio = 1 / race.ratio(1)
    assert ratio <= 1.5


@pytest.mark.gate
def test_gate_identical_copies(tmp_path: Path) -> None:
    """Four times the copies take four times as long, and no pair is made of them."""
    sizes = (25_000, 50_000, 100_000)
    seconds = {}
    for what in ("join", "components"):
        for n in sizes:
            x = identical_copies(n, 512)
            with Race(
                [Contender("pycurate", f"similarity_ours.{what}")], {"x": x}, {"threshold": 0.9}, tmp_path
            ) as race:
                race.run(5)
                seconds[what, n] = race.seconds(0)
                answer = race.answer(0)
            if what == "join":
                assert len(answer["rows"]) == 0
                assert answer["copy_of"][0] == -1
                assert (answer["copy_of"][1:] == 0).all()
            else:
                assert (answer == 0).all()
        print(f"\n{what} of identical copies: " + ", ".join(f"{n:,} in {1e3 * seconds[what, n]:.3g} ms" for n in sizes))
    assert seconds["join", 100_000] <= 6 * seconds["join", 25_000]
    assert seconds["components", 100_000] <= 6 * seconds["components", 25_000]


@pytest.mark.gate
def test_gate_memory(tmp_path: Path) -> None:
    """A whole process that joins a memory-mapped float16 matrix of 1M rows at 0.95, all processors."""
    n, d = 1_000_000, 512
    path = tmp_path / "rows.npy"
    mapped = np.lib.format.open_memmap(path, "w+", np.float16, (n, d))
    for number, block in enumerate(clip_like_blocks(n, d, 0.95)):
        mapped[number * BLOCK_ROWS : number * BLOCK_ROWS + len(block)] = block
    mapped.flush()
    del mapped
    script = Path(__file__).parent / "peers" / "similarity_whole_join.py"
    found = measure([sys.executable, script, path, "0.95", tmp_path / "facts.json"])
    facts = json.loads((tmp_path / "facts.json").read_text())
    print(
        f"\n{n:,} x {d} float16, mapped, self-join at 0.95: {facts['pairs']:,} pairs, {found.wall_seconds:.1f} s, "
        f"{found.cpu_seconds:.1f} cpu s, peak {found.peak_bytes / 1e9:.2f} GB\n{work_line(facts['work'])}"
    )
    assert facts["pairs"] >= n // 400  # of 1 % planted, half lie above the threshold
    assert found.peak_bytes < 2.5e9
