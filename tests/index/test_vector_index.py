"""Index folders: built, opened, searched, filtered, interrupted, damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pycurate import build_index, nearest
from pycurate.errors import InputError, MemoryCapError, WorkspaceError
from pycurate.index import VectorIndex, faiss_calls, index_memory, open_vector_index
from pycurate.index import vector_index as module
from pycurate.index.folder import MARKER
from pycurate.index.kinds import FLAT_ROWS, KINDS, PQ_WIDTHS, default_nprobe, plan_index
from pycurate.io.store import RUN_MARKER
from pycurate.reference import rowwise as reference
from pycurate.types import UID_DTYPE, Block

N, D = 3000, 20
METRICS = ["cosine", "inner_product", "l2"]


def rows(n: int = N, d: int = D, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(30, d))
    return (centres[random.integers(0, 30, n)] + 0.6 * random.normal(size=(n, d))).astype(np.float32)


@pytest.fixture
def approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small selections go to FAISS, too."""
    monkeypatch.setattr(module, "EXACT_ROWS", 0)


def assert_canonical(index: VectorIndex, queries: NDArray[Any], found: Any) -> None:
    """Similarities are those of the reference, in order, ties by row, and no row comes twice."""
    wide = index.vectors.widened()[np.maximum(found.indices, 0)]
    for query, indices, similarities, vectors in zip(queries, found.indices, found.similarities, wide, strict=True):
        scores = reference.pair_similarity(
            np.broadcast_to(query.astype(np.float32), vectors.shape), vectors, index.metric
        )
        assert scores[indices >= 0].tobytes() == similarities[indices >= 0].tobytes()
        assert np.lexsort((indices, -similarities)).tolist() == list(range(len(indices)))
        assert len(np.unique(indices)) == len(indices)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("few", [True, False])
def test_a_flat_index_is_brute_force(tmp_path: Path, metric: Any, dtype: Any, few: bool) -> None:
    x = rows().astype(dtype)
    index = build_index(x, tmp_path, metric=metric, kind="flat")
    queries = rows(4 if few else 40, seed=1).astype(dtype)
    found, expected = index.search(queries, 7), nearest(queries, 7, x, metric)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.similarities.tobytes() == expected.similarities.tobytes()
    assert found.exact
    assert found.note == "exact: brute force over 3,000 rows"
    assert list(tmp_path.glob("*.faiss")) == []


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq", "hnsw"])
@pytest.mark.parametrize("element", ["float32", "float16", "bfloat16", "int8"])
def test_approximate_kinds_find_most_and_score_canonically(
    tmp_path: Path, metric: Any, kind: Any, element: Any, capfd: Any
) -> None:
    x = rows()
    stored: NDArray[Any] = x.astype(np.float32)
    dtype = None
    if element == "int8":
        stored = np.clip(x * 20, -127, 127).astype(np.int8)
    elif element == "bfloat16":
        stored, dtype = reference.narrow(x, "bfloat16"), "bfloat16"
    elif element == "float16":
        stored = x.astype(np.float16)
    index = build_index(stored, tmp_path, metric=metric, kind=kind, dtype=dtype)
    queries = stored[::100]
    found = index.search(queries, 5, dtype=dtype)
    assert_canonical(index, reference.widen(queries), found)
    truth = nearest(queries, 5, stored, metric, dtype=dtype).indices
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(truth.tolist(), found.indices.tolist(), strict=True)])
    assert recall >= 0.9
    assert not found.exact
    assert found.note.startswith(f"approximate: {kind}")
    assert "recall@10" in found.note
    assert index.manifest["certificate"]["lower_bound"] > 0.8
    assert capfd.readouterr() == ("", "")  # FAISS would warn on standard error


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_index_gives_the_same_answers_for_any_threads(tmp_path: Path, kind: Any) -> None:
    x = rows()
    index = build_index(x, tmp_path / "a", kind=kind, threads=1)
    again = build_index(x, tmp_path / "b", kind=kind, threads=1)
    one = index.search(x[:50], 6, threads=1)
    for other in (index.search(x[:50], 6, threads=2), again.search(x[:50], 6, threads=2)):
        assert other.indices.tolist() == one.indices.tolist()
        assert other.similarities.tobytes() == one.similarities.tobytes()


def test_lists_do_not_depend_on_the_threads_that_built_them(tmp_path: Path) -> None:
    built = [build_index(rows(), tmp_path / str(t), kind="ivf_flat", threads=t).folder for t in (1, 2)]
    one, two = ([path.read_bytes() for path in folder.glob("index.*.faiss")] for folder in built)
    assert one == two


def test_faiss_threads_are_set_back(tmp_path: Path) -> None:
    faiss = faiss_calls.load_faiss()
    before = faiss.omp_get_max_threads()
    seen = []

    def fail() -> None:
        with faiss_calls.faiss_threads(before + 1):
            seen.append(faiss.omp_get_max_threads())
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert seen == [before + 1]
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("kind", KINDS)
def test_only_selected_rows_are_found(tmp_path: Path, kind: Any, approximate: None) -> None:
    x = rows()
    index = build_index(x, tmp_path, kind=kind)
    where = np.random.default_rng(0).random(N) < 0.3
    found = index.search(x[:30], 8, where=where)
    assert where[found.indices].all()
    selected = np.flatnonzero(where)
    truth = selected[nearest(x[:30], 8, x[selected]).indices]
    assert np.mean(truth == found.indices) > 0.9
    assert found.exact == (kind == "flat")
    assert f"among {where.sum():,} selected rows" in found.note


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq", "hnsw"])
def test_few_selected_rows_are_searched_by_brute_force(tmp_path: Path, kind: Any) -> None:
    x = rows()
    index = build_index(x, tmp_path, kind=kind)
    where = np.zeros(N, np.bool_)
    where[[7, 700, 1500]] = True
    found = index.search(x[:4], 5, where=where)
    assert found.exact
    assert found.note == "exact: brute force among 3 selected rows"
    assert (np.sort(found.indices[:, :3]) == [7, 700, 1500]).all()
    assert (found.indices[:, 3:] == -1).all()
    assert np.isnan(found.similarities[:, 3:]).all()
    assert (index.search(x[:4], 5, where=np.zeros(N, np.bool_)).indices == -1).all()


@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_pq", "hnsw"])
def test_as_many_are_found_as_there_are(tmp_path: Path, kind: Any, approximate: None) -> None:
    x = rows(400)
    index = build_index(x, tmp_path, kind=kind, nlist=None if kind == "hnsw" else 40)
    options = {} if kind == "hnsw" else {"nprobe": 1}  # a list holds some ten rows
    found = index.search(x[:5], 300, **options)
    assert (found.indices >= 0).all()
    assert_canonical(index, x[:5], found)
    where = np.zeros(400, np.bool_)
    where[::20] = True
    found = index.search(x[:5], 30, where=where, **options)
    assert ((found.indices >= 0).sum(axis=1) == 20).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_cannot_be_judged_are_named_and_never_found(tmp_path: Path, kind: Any, approximate: None) -> None:
    x = rows(500)
    x[[3, 250]] = 0
    x[4] = np.inf
    index = build_index(x, tmp_path, kind=kind)
    assert index.manifest["unjudged"] == {"rows": 3, "first": [3, 4, 250]}
    queries = x[[0, 3, 251]]
    found = index.search(queries, 497)
    assert found.unjudged.tolist() == [1]
    assert (found.indices[1] == -1).all()
    assert set(found.indices[0].tolist()) == set(range(500)) - {3, 4, 250}
    assert [int(found.indices[0, 0]), int(found.indices[2, 0])] == [0, 251]
    where = np.zeros(500, np.bool_)
    where[[3, 4, 5, 251, 252]] = True
    chosen = index.search(queries, 4, where=where)
    assert set(chosen.indices[0].tolist()) == {5, 251, 252, -1}


def test_a_prefix_proposes_and_all_coordinates_decide(tmp_path: Path) -> None:
    x = rows(d=24)
    x[:, 12:] *= 0.2
    queries = x[:40]
    truth = nearest(queries, 5, x).indices
    flat = build_index(x, tmp_path / "flat", kind="flat")
    found = flat.search(queries, 5, prefix=12)
    assert_canonical(flat, queries, found)
    assert not found.exact
    assert found.note == "approximate: first 12 coordinates, 104 candidates re-scored"
    assert np.mean(found.indices == truth) > 0.9
    # With as many candidates as rows nothing is missed; with k of them the prefix alone decides which.
    assert flat.search(queries, 5, prefix=12, candidates=N).indices.tolist() == truth.tolist()
    only = flat.search(queries, 5, prefix=12, candidates=5)
    by_prefix = nearest(queries[:, :12].copy(), 5, x[:, :12].copy()).indices
    assert np.sort(only.indices).tolist() == np.sort(by_prefix).tolist()
    for kind in ("ivf_flat", "ivf_pq", "hnsw", "flat"):
        index = build_index(x, tmp_path / "built", kind=kind, prefix=12)  # type: ignore[arg-type]
        found = index.search(queries, 5)
        assert np.mean(found.indices == truth) > 0.85
        assert "first 12 coordinates" in found.note
        assert index.manifest["certificate"]["recall"] > 0.85


def test_rows_that_are_zero_in_the_prefix_are_still_found(tmp_path: Path, approximate: None) -> None:
    x = rows(400)
    x[[10, 20], :8] = 0
    for kind in ("ivf_flat", "hnsw", "flat"):
        index = build_index(x, tmp_path, kind=kind, prefix=8)  # type: ignore[arg-type]
        assert index.search(x[:3], 400).indices.min() >= 0
        assert index.search(x[[10]], 2).indices[0, 0] == 10


def test_queries_of_another_float_type_are_widened(tmp_path: Path) -> None:
    x = rows(300).astype(np.float16)
    index = build_index(x, tmp_path, kind="flat")
    wide = index.search(x[:5].astype(np.float32), 4)
    assert wide.similarities.tobytes() == index.search(x[:5], 4).similarities.tobytes()
    back = build_index(x.astype(np.float32), tmp_path, kind="flat")
    assert back.search(x[:5], 4).similarities.tobytes() == wide.similarities.tobytes()


def blocks(x: NDArray[Any], uids: Any, step: int = 700) -> Any:
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        widths = pa.array(list(range(len(x)))[part])
        yield Block("s", start, len(x[part]), uids[part], {"width": widths}, {"emb": x[part]})


def test_blocks_uids_and_attributes_are_stored(tmp_path: Path) -> None:
    x = rows()
    uids = np.zeros(N, UID_DTYPE)
    uids["f0"], uids["f1"] = np.arange(N) // 7, np.arange(N)
    index = build_index(blocks(x, uids), tmp_path / "blocks", kind="ivf_flat", source={"pool": "p"})
    attributes = pa.table({"width": list(range(N))})
    array = build_index(x, tmp_path / "array", kind="ivf_flat", uids=uids, attributes=attributes)
    found, same = index.search(x[:9], 3), array.search(x[:9], 3)
    assert found.indices.tolist() == same.indices.tolist()
    assert found.uids is not None
    assert found.uids.tolist() == uids[found.indices].tolist()
    assert index.rows_of_uid((3, 22)).tolist() == [22]
    assert index.manifest["columns"] == ["width"]
    assert index.manifest["source"] == {"pool": "p"}
    assert index.attributes_path is not None
    with pytest.raises(InputError, match="has no uids"):
        build_index(x, tmp_path / "array", kind="flat").rows_of_uid((0, 0))
    assert list((tmp_path / "array").glob("attributes.*")) == []  # of the index that was there before


def test_blocks_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    x = rows(20)
    uids = np.zeros(20, UID_DTYPE)
    first = Block("s", 0, 20, uids, {}, {"emb": x})
    for second, sentence in (
        (Block("s", 0, 20, uids, {}, {"emb": x[:, :5].copy()}), "expected blocks of 20 elements of float32 as the fir"),
        (Block("s", 0, 20, uids, {}, {"emb": x.astype(np.float16)}), "got 20 of float16"),
        (Block("s", 0, 20, None, {}, {"emb": x}), "expected every block to have uids and columns as the first has"),
        (Block("s", 0, 20, uids, {"a": pa.array([1] * 20)}, {"emb": x}), "expected every block to have uids and"),
        (Block("s", 0, 20, uids, {}, {"a": x, "b": x}), r"expected blocks of one embedding each, got \['a', 'b'\]"),
    ):
        with pytest.raises(InputError, match=sentence):
            build_index([first, second], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


def test_the_kind_is_chosen_by_rows_and_memory() -> None:
    def plan(limit: int | None, n: int = 1_000_000, kind: Any = "auto", element: str = "float32") -> Any:
        return plan_index(kind, n, 768, element=element, memory_limit_bytes=limit)

    assert plan(None, FLAT_ROWS).kind == "flat"
    assert (plan(None, FLAT_ROWS + 1).kind, plan(None).kind) == ("ivf_flat", "ivf_flat")
    assert plan(None).nlist == 1000
    whole = plan(None).memory_bytes
    assert whole > 1_000_000 * 768 * 4
    assert plan(whole).kind == "ivf_flat"
    widths = []
    limit = whole
    for _ in PQ_WIDTHS:
        chosen = plan(limit - 1)
        assert chosen.kind == "ivf_pq"
        assert chosen.memory_bytes < limit
        widths.append(chosen.pq_width)
        limit = chosen.memory_bytes
    assert widths == list(PQ_WIDTHS)
    assert limit == index_memory("ivf_pq", 1_000_000, 768)
    needs = r"an index of kind 'ivf_pq' of 1,000,000 rows of 768 elements needs about 665 MiB, 664 MiB are allowed; "
    with pytest.raises(MemoryCapError, match=needs + r"give more memory, or use kind 'flat' \(256 MiB\)$"):
        plan(limit - 1)
    assert plan(None, element="float16").memory_bytes == whole - 1_000_000 * 768 * 2
    with pytest.raises(
        MemoryCapError, match=r"'hnsw' .* needs about 3,\d{3} MiB, 3,000 MiB are allowed; give more mem"
    ):
        plan(3000 << 20, kind="hnsw")
    with pytest.raises(MemoryCapError, match="or use kind 'ivf_pq'"):
        plan(3000 << 20, kind="hnsw")
    assert [default_nprobe(nlist) for nlist in (4, 100, 1600)] == [4, 16, 100]


def test_nothing_is_written_when_memory_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(MemoryCapError):
        build_index(rows(), tmp_path / "x", kind="ivf_flat", memory_limit_bytes=1 << 20)
    assert not (tmp_path / "x").exists()


def test_an_index_stays_until_the_next_one_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(500)
    build_index(x, tmp_path, kind="ivf_flat")
    before = open_vector_index(tmp_path).search(x[:5], 3)
    monkeypatch.setattr(faiss_calls, "write", lambda index, path: (_ for _ in ()).throw(WorkspaceError("disk full")))
    with pytest.raises(WorkspaceError, match="disk full"):
        build_index(x[::-1].copy(), tmp_path, kind="ivf_flat")
    after = open_vector_index(tmp_path)
    assert after.search(x[:5], 3).indices.tolist() == before.indices.tolist()
    assert len(list(tmp_path.glob("vectors.*"))) == 1


KILLED = """
import sys, numpy as np
from pycurate.index import faiss_calls
from pycurate import build_index
def write(index, path):
    open(path, "wb").write(b"half")
    print("writing", flush=True)
    import time; time.sleep(60)
faiss_calls.write = write
build_index(np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32), sys.argv[1], kind="ivf_flat")
"""


def test_a_killed_build_leaves_no_index_and_the_next_one_clears_up(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    with pytest.raises(WorkspaceError, match="another build is writing"):
        build_index(rows(50), tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with pytest.raises(InputError, match=r"has no index\.json; its build did not finish: build it again"):
        open_vector_index(tmp_path)
    assert len(list(tmp_path.glob("index.*.faiss"))) == 1
    index = build_index(rows(50), tmp_path, kind="flat")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [MARKER, "index.json", index.manifest["files"]["vectors"]["name"]]
    )


def test_damage_is_noticed_and_named(tmp_path: Path) -> None:
    build_index(rows(500), tmp_path, kind="ivf_flat")
    [path] = tmp_path.glob("index.*.faiss")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WorkspaceError, match=r"index\..*\.faiss should have .* bytes, it has"):
        open_vector_index(tmp_path)
    path.write_bytes(b"\0" * len(whole))
    with pytest.raises(WorkspaceError, match=r"FAISS cannot read .*index\..*; build the index again"):
        open_vector_index(tmp_path)
    path.write_bytes(whole)
    manifest = json.loads((tmp_path / "index.json").read_text())
    del manifest["files"]["vectors"]
    (tmp_path / "index.json").write_text(json.dumps(manifest))
    with pytest.raises(WorkspaceError, match="names no vectors; build the index again"):
        open_vector_index(tmp_path)


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match=r"is not empty and is not from an earlier build \(it has 'mine\.txt'\)"):
        build_index(rows(10), tmp_path)
    (tmp_path / MARKER).write_text("{}")
    with pytest.raises(WorkspaceError, match="is not from an earlier build"):  # a run's output
        build_index(rows(10), tmp_path)
    with pytest.raises(WorkspaceError, match=r"cannot use .* as a folder"):
        build_index(rows(10), tmp_path / "mine.txt")
    assert MARKER == RUN_MARKER  # pools are listed without such folders


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metric": "angle"}, "metric: expected one of cosine, inner_product, l2, got 'angle'"),
        ({"kind": "annoy"}, "kind: expected auto, flat, ivf_flat, ivf_pq, hnsw, got 'annoy'"),
        ({"kind": "ivf_pq"}, "kind: ivf_pq is trained on at least 256 rows, got 50; use kind 'flat'"),
        ({"nlist": 0}, "nlist: expected a whole number of at least 1, got 0"),
        ({"prefix": 20}, "prefix: expected less than the dimension 20, got 20"),
        ({"uids": np.zeros(3, UID_DTYPE)}, "uids: expected 50 rows as x has, got 3"),
        ({"uids": np.zeros(50, np.int64)}, "uids: expected dtype"),
        ({"attributes": pa.table({"a": [1]})}, "attributes: expected 50 rows as x has, got 1"),
    ],
)
def test_bad_arguments_of_a_build_say_what_was_expected(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build_index(rows(50), tmp_path / "x", **change)


def test_rows_of_which_none_can_be_judged_are_refused(tmp_path: Path) -> None:
    for x in (np.zeros((4, 3), np.float32), np.zeros((0, 3), np.float32)):
        with pytest.raises(InputError, match=f"expected at least one row that can be judged, got {len(x)} rows"):
            build_index(x, tmp_path)
    with pytest.raises(InputError, match="expected at least one row that can be judged, got 0 rows"):
        build_index([], tmp_path)


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("flat", {"k": 0}, "k: expected a whole number of at least 1, got 0"),
        ("flat", {"nprobe": 4}, "nprobe: expected None, as an index of kind 'flat' has no such setting"),
        ("ivf_flat", {"ef": 4}, "ef: expected None, as an index of kind 'ivf_flat' has no such setting"),
        ("flat", {"prefix": 20}, "prefix: expected at least 1 and below the dimension 20, got 20"),
        ("ivf_flat", {"prefix": 8}, "prefix: expected None, as this index of kind 'ivf_flat' was built, got 8"),
        ("flat", {"candidates": 2}, "candidates: expected a whole number of at least 3, got 2"),
        ("flat", {"where": np.ones(3, np.bool_)}, r"where: expected a bool array of shape \(400,\)"),
        ("flat", {"where": np.ones(400)}, r"where: .* got float64 \(400,\)"),
        ("flat", {"queries": np.ones((2, 3), np.float32)}, "queries: expected 20 elements as the rows of the index"),
        (
            "flat",
            {"queries": np.ones((2, 20), np.int8)},
            "queries: expected float32 as the rows of the index, got int8",
        ),
    ],
)
def test_bad_arguments_of_a_search_say_what_was_expected(
    tmp_path: Path, kind: Any, change: dict[str, Any], sentence: str
) -> None:
    x = rows(400)
    index = build_index(x, tmp_path, kind=kind)
    arguments = {"queries": x[:2], "k": 3, **change}
    with pytest.raises(InputError, match=sentence):
        index.search(arguments.pop("queries"), arguments.pop("k"), **arguments)


def test_building_a_flat_index_does_not_load_faiss(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, pycurate\n"
        "index = pycurate.build_index(np.eye(5, dtype=np.float32), sys.argv[1])\n"
        "assert index.search(np.eye(5, dtype=np.float32), 2).indices[0, 0] == 0\n"
        "assert 'faiss' not in sys.modules and 'duckdb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)


def test_searching_an_opened_index_takes_no_copy_of_its_rows(tmp_path: Path) -> None:
    index = build_index(rows(), tmp_path, kind="flat")
    assert isinstance(index.vectors.values, np.memmap)
    started = time.perf_counter()
    open_vector_index(tmp_path)
    assert time.perf_counter() - started < 1
