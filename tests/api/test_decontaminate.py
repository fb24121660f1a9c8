from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pycurate import Subset, build_pack, decontaminate, open_pool
from pycurate.api import contamination_shards
from pycurate.errors import InputError, PoolError
from pycurate.kernels.uid import format_hex

SHARDS, ROWS, ITEMS = 3, 80, 40
WORDS = [f"word{i}" for i in range(4000)]


def sentences(random: np.random.Generator, count: int) -> list[str]:
    return [" ".join(random.choice(WORDS, random.integers(9, 15))) for _ in range(count)]


def planted(pool_factory: Any, path: Path, dtype: type = np.float16) -> dict[str, Any]:
    """A pool of 240 rows and an evaluation set of 40 items; row -> the rule and the item that it is planted for."""
    random = np.random.default_rng(11)
    total = SHARDS * ROWS
    captions, items = sentences(random, total), sentences(random, ITEMS)
    image, item_image = (random.normal(size=(n, 32)).astype(np.float16) for n in (total, ITEMS))
    uids, item_uids = ([random.bytes(16).hex() for _ in range(n)] for n in (total, ITEMS))
    sha256, item_sha256 = ([random.bytes(32).hex() for _ in range(n)] for n in (total, ITEMS))
    expected: dict[int, tuple[str, int]] = {}
    for row, rule, item in [
        (5, "img", 0), (90, "img", 0), (161, "img", 7), (12, "caption", 3), (200, "8-gram", 3), (33, "sha256", 21),
        (110, "uid", 9), (111, "sha256", 10),
    ]:  # fmt: skip
        expected[row] = (rule, item)
        if rule == "img":
            image[row] = item_image[item].astype(np.float32) * 3 + 0.1 * random.normal(size=32)
        if rule == "caption":
            captions[row] = "  " + items[item].upper()
        if rule == "8-gram":
            captions[row] = "before " + " ".join(items[item].split()[1:9]) + " after"
        if rule == "sha256":
            sha256[row] = item_sha256[item]
        if rule == "uid":
            uids[row] = item_uids[item]
    image[111] = item_image[4]  # found twice: the surer rule is its reason
    captions[20] = " ".join(items[5].split()[:7])  # seven words in common are no 8-gram
    image[60], captions[61] = 0, ""
    pool_factory.datacomp(
        path / "pool", SHARDS, ROWS, embeddings={"img": image}, uid=uids, text=captions, sha256=sha256
    )
    pool_factory.datacomp(
        path / "eval", 1, ITEMS, embeddings={"img": item_image.astype(dtype)}, uid=item_uids, text=items,
        sha256=item_sha256,
    )  # fmt: skip
    build_pack(path / "eval", path / "pack", models={"img": "a model"})
    return {"uids": uids, "item_uids": item_uids, "expected": expected}


def ledger_of(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / "ledger").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_planted_contamination_is_found_and_named(pool_factory: Any, tmp_path: Path, dtype: type) -> None:
    made = planted(pool_factory, tmp_path, dtype)
    report = decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out", similarity=0.9)
    ledger, expected = ledger_of(tmp_path / "out"), made["expected"]
    assert [row["uid"] for row in ledger] == made["uids"]
    found = {n: (row["rule"], row["item"]) for n, row in enumerate(ledger) if not row["keep"]}
    assert found == {n: (rule, made["item_uids"][item]) for n, (rule, item) in expected.items()}
    assert {row["pack"] for row in ledger if not row["keep"]} == {"eval"}
    assert all(row["rule"] is row["pack"] is row["item"] is row["value"] is None for row in ledger if row["keep"])
    assert ledger[5]["value"] > ledger[5]["threshold"] == 0.9
    kept = sorted(uid for n, uid in enumerate(made["uids"]) if n not in expected)
    assert [text.decode() for text in format_hex(Subset.load(tmp_path / "out" / "subset.npy").uids)] == kept
    assert (report.rows, report.removed, report.kept) == (240, 8, 232)
    counts = {count.rule: (count.rows, count.items) for count in report.counts}
    assert counts == {"uid": (1, 1), "sha256": (2, 2), "img": (4, 3), "caption": (1, 1), "8-gram": (2, 1)}
    assert report.removed_by_pack == {"eval": 8}
    assert report.unjudged == {"caption": 1, "sha256": 0, "img": 1}
    hits = pq.read_table(tmp_path / "out" / "contamination.parquet").to_pylist()
    assert len(hits) == 10
    assert [hit["rule"] for hit in hits if hit["shard"] == open_pool(tmp_path / "pool").shards[1].name] == [
        "img", "uid", "sha256", "img",
    ]  # fmt: skip
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert (items[0]["rows"], items[0]["rule"], items[0]["item_row"]) == (2, "img", 0)
    assert sum(item["rows"] for item in items) == 10
    printed = report.render()
    assert "removed   8 of 240 rows (3.333%); 232 remain" in printed
    assert "unjudged  1 rows by img" in printed
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(json.dumps(report.to_dict()))


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.suffix in (".npy", ".parquet")}


def test_a_killed_call_continues_and_another_question_starts_anew(
    pool_factory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(pool_factory, tmp_path)
    decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "whole")
    ran: list[str] = []
    real = contamination_shards._large_blocks

    def until_the_third(shard: Any, *arguments: Any) -> Any:
        ran.append(shard.name)
        if len(ran) == 3:
            raise KeyboardInterrupt
        return real(shard, *arguments)

    monkeypatch.setattr(contamination_shards, "_large_blocks", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out")
    decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out", threads=1)
    assert len(ran) == 4
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out", similarity={}, ngram=None)
    assert len(ran) == 7
    rules = {row["rule"] for row in ledger_of(tmp_path / "out")}
    assert rules == {None, "uid", "sha256", "caption"}


def test_several_packs_and_what_is_left_out(pool_factory: Any, tmp_path: Path) -> None:
    made = planted(pool_factory, tmp_path)
    build_pack(tmp_path / "pool", tmp_path / "own", embeddings={"image": "img", "img": "img"}, name="own split")
    report = decontaminate(tmp_path / "pool", [tmp_path / "pack", tmp_path / "own"], tmp_path / "out", similarity=0.9)
    assert report.removed == 240
    assert report.removed_by_pack == {"eval": 8, "own split": 240}
    assert "embedding 'image' of pack 'own split' was not compared" in report.not_compared
    assert any("does not state the model of 'img'" in said for said in report.not_compared)
    assert len(np.load(tmp_path / "out" / "subset.npy")) == 0
    first = ledger_of(tmp_path / "out")[110]
    assert (first["rule"], first["pack"], first["item"]) == ("uid", "eval", made["item_uids"][9])
    captions_only = decontaminate(
        tmp_path / "pool", tmp_path / "pack", tmp_path / "out", similarity={}, captions=True, ngram=8
    )
    assert "embedding 'img' of pack 'eval' was not compared" in captions_only.not_compared


def test_a_copy_of_one_image_everywhere_is_one_item(pool_factory: Any, tmp_path: Path) -> None:
    """Each of 600 equal rows is near each of 50 equal items: 30,000 pairs, of which none is held."""
    row = np.random.default_rng(0).normal(size=(1, 16)).astype(np.float16)
    pool_factory.datacomp(tmp_path / "pool", 2, 300, 1, embeddings={"img": np.repeat(row, 600, 0)}, sha256=None)
    pool_factory.datacomp(tmp_path / "eval", 1, 50, 2, embeddings={"img": np.repeat(row, 50, 0)}, sha256=None)
    build_pack(tmp_path / "eval", tmp_path / "pack")
    report = decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out", captions=False)
    assert report.removed == 600
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert [(item["item_row"], item["rows"], item["best"]) for item in items] == [(0, 600, 1.0)]


def test_uids_made_from_places_are_not_compared(pool_factory: Any, tmp_path: Path) -> None:
    """Two plain folders have the same file names, hence the same uids, and nothing in common."""
    for name, seed in (("pool", 1), ("eval", 2)):
        pool_factory.plain(tmp_path / name, shards=1, rows=20, seed=seed, parquet=False)
    build_pack(tmp_path / "eval", tmp_path / "pack")
    report = decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out")
    assert report.removed == 0
    assert [count.rule for count in report.counts] == ["features"]


def test_images_are_known_by_their_bytes(pool_factory: Any, tmp_path: Path) -> None:
    """An img2dataset pool, whose sha256 come from its tars, against a folder with one of its images."""
    pool = pool_factory.img2dataset(tmp_path / "pool", shards=1, rows=10)
    (tmp_path / "images").mkdir()
    with tarfile.open(pool / "00000.tar") as tar:
        images = {name: tar.extractfile(name).read() for name in tar.getnames() if name.endswith(".jpg")}  # type: ignore[union-attr]
    (tmp_path / "images" / "x.jpg").write_bytes(images["000000005.jpg"])
    build_pack(tmp_path / "images", tmp_path / "pack")
    report = decontaminate(pool, tmp_path / "pack", tmp_path / "out")
    ledger = ledger_of(tmp_path / "out")
    removed = [n for n, row in enumerate(ledger) if (row["rule"], row["item"]) == ("sha256", "x.jpg")]
    same = [int(name.removesuffix(".jpg")) for name, data in images.items() if data == images["000000005.jpg"]]
    assert removed == same == [n for n, row in enumerate(ledger) if not row["keep"]]
    assert report.unjudged["sha256"] == 1


def picture(seed: int, quality: int = 90, side: int = 96) -> bytes:
    """Soft blotches as a JPEG."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_images_are_known_by_their_looks(pool_factory: Any, tmp_path: Path) -> None:
    """Items are pictures of the pool at another size and quality; every seventh row has no image."""
    pool = pool_factory.img2dataset(tmp_path / "pool", shards=2, rows=20)
    for shard in range(2):
        with tarfile.open(pool / f"{shard:05d}.tar", "w") as tar:
            for row in range(20):
                if (shard * 20 + row) % 7 != 3:
                    info, data = tarfile.TarInfo(f"{shard:05d}{row:04d}.jpg"), picture(shard * 20 + row)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (tmp_path / "images").mkdir()
    for number in (2, 30):
        (tmp_path / "images" / f"{number:02d}.jpg").write_bytes(picture(number, quality=40, side=150))
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no picture")
    made = build_pack(tmp_path / "images", tmp_path / "pack")
    assert made.pack.has_phash
    assert "perceptual hashes" in made.render()
    report = decontaminate(pool, tmp_path / "pack", tmp_path / "out", radius=6)
    ledger = ledger_of(tmp_path / "out")
    found = {n: (row["rule"], row["item"]) for n, row in enumerate(ledger) if not row["keep"]}
    assert found == {2: ("phash", "02.jpg"), 30: ("phash", "30.jpg")}
    assert all(row["value"] >= row["threshold"] == np.float32(1 - 6 / 64) for row in ledger if not row["keep"])
    assert report.unjudged["phash"] == 6
    assert decontaminate(pool, tmp_path / "pack", tmp_path / "out").removed == 0
    planted(pool_factory, tmp_path / "other")
    with pytest.raises(InputError, match="radius: no pack has perceptual hashes"):
        decontaminate(pool, tmp_path / "other" / "pack", tmp_path / "out", radius=6)
    with pytest.raises(InputError, match="radius: expected 0 to 64 bits or None, got 65"):
        decontaminate(pool, tmp_path / "pack", tmp_path / "out", radius=65)
    with pytest.raises(InputError, match="this pool is datacomp"):
        decontaminate(tmp_path / "other" / "pool", tmp_path / "pack", tmp_path / "out", radius=6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"similarity": {"clip": 0.9}}, "similarity: 'clip' is no embedding of the pool; the pool shares img"),
        ({"similarity": 1.5}, r"similarity: expected a cosine in \[-1, 1\] for 'img', got 1.5"),
        ({"ngram": 2}, "ngram: expected 3 to 8 words or None, got 2"),
        (
            {"models": {"img": "other"}},
            "pack 'eval': embedding 'img' was made with 'a model', that of the pool with 'other'",
        ),
        ({"models": {"x": "other"}}, "models: the pool has no embedding 'x'; it has img"),
    ],
)
def test_wrong_options_are_named(pool_factory: Any, tmp_path: Path, options: Any, sentence: str) -> None:
    planted(pool_factory, tmp_path)
    with pytest.raises(InputError, match=sentence):
        decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_packs_that_do_not_suit_are_refused(pool_factory: Any, tmp_path: Path) -> None:
    planted(pool_factory, tmp_path)
    pool, out = tmp_path / "pool", tmp_path / "out"
    with pytest.raises(InputError, match="against: expected at least one pack, got none"):
        decontaminate(pool, [], out)
    with pytest.raises(InputError, match="are both called 'eval'"):
        decontaminate(pool, [tmp_path / "pack", tmp_path / "pack"], out)
    with pytest.raises(InputError, match="is no pack"):
        decontaminate(pool, tmp_path / "eval", out)
    wide = np.random.default_rng(0).normal(size=(4, 48)).astype(np.float16)
    pool_factory.datacomp(tmp_path / "wide", 1, 4, embeddings={"img": wide})
    build_pack(tmp_path / "wide", tmp_path / "p2")
    with pytest.raises(InputError, match="pack 'wide': embedding 'img' has 48 dimensions, the pool's has 32"):
        decontaminate(pool, tmp_path / "p2", out)
    pool_factory.datacomp(tmp_path / "int8", 1, 4, embeddings={"img": np.ones((4, 32), np.int8)})
    build_pack(tmp_path / "int8", tmp_path / "p3")
    with pytest.raises(InputError, match="embedding 'img' is int8, the pool's float16"):
        decontaminate(pool, tmp_path / "p3", out)
    pool_factory.plain(tmp_path / "plain", shards=1, rows=5, parquet=False)
    build_pack(tmp_path / "plain", tmp_path / "p4")
    with pytest.raises(
        InputError, match="nothing of pack 'plain' can be compared with the pool: the pack holds features"
    ):
        decontaminate(pool, tmp_path / "p4", out)
    build_pack(tmp_path / "eval", tmp_path / "p5", name="second", models={"img": "b model"})
    with pytest.raises(InputError, match="'img' was made with 'b model', that of pack 'eval' with 'a model'"):
        decontaminate(pool, [tmp_path / "pack", tmp_path / "p5"], out)


def test_repeated_uids_are_refused_unless_allowed(pool_factory: Any, tmp_path: Path) -> None:
    planted(pool_factory, tmp_path)
    uids = ["0" * 31 + "1"] * 10
    pool_factory.datacomp(tmp_path / "twice", 1, 10, uid=uids, embeddings={"img": np.eye(10, 32, dtype=np.float16)})
    with pytest.raises(PoolError, match="is there 10 times"):
        decontaminate(tmp_path / "twice", tmp_path / "pack", tmp_path / "out")
    decontaminate(tmp_path / "twice", tmp_path / "pack", tmp_path / "out", allow_duplicate_uids=True)
    assert len(np.load(tmp_path / "out" / "subset.npy")) == 10


def test_real_captions_and_vectors(shared_data: Path, tmp_path: Path) -> None:
    """ucm_captions: every hundredth image held out as a test split, its captions and vectors looked for in the rest."""
    source = shared_data / "ucm_captions"
    table = pq.read_table(source / "captions.parquet")
    embedding = np.load(next(source.glob("*minilm*.npy")))
    image = np.array([Path(name).stem for name in table["image_file"].to_pylist()])
    held = np.isin(image, np.unique(image)[::100])
    for name, mask in (("pool", ~held), ("test", held)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "minilm_0.npy", embedding[mask])
        rows = pa.table({"caption": table["caption"].filter(pa.array(mask)), "id": image[mask].tolist()})
        pq.write_table(rows, tmp_path / name / "minilm_0.parquet")
    build_pack(tmp_path / "test", tmp_path / "pack", id_column="id", models={"minilm": "all-MiniLM-L6-v2"})
    report = decontaminate(tmp_path / "pool", tmp_path / "pack", tmp_path / "out", similarity=0.99, ngram=8)
    captions = np.array(table["caption"].to_pylist())
    plain = [" ".join(caption.casefold().split()) for caption in captions]
    test_captions = {plain[row] for row in np.flatnonzero(held)}
    equal = np.array([caption in test_captions for caption in plain])[~held]
    ledger = ledger_of(tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / "contamination.parquet").to_pylist()
    assert sorted(hit["row"] for hit in found if hit["rule"] == "caption") == np.flatnonzero(equal).tolist()
    x, y = (embedding[mask].astype(np.float32) for mask in (~held, held))
    x, y = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (x, y))
    best = (x @ y.T).max(axis=1)
    near = {hit["row"] for hit in found if hit["rule"] == "minilm"}
    assert set(np.flatnonzero(best > 0.9901).tolist()) <= near <= set(np.flatnonzero(best > 0.9899).tolist())
    assert report.removed == sum(not row["keep"] for row in ledger) >= equal.sum() > 1000
    assert {row["item"] for row in ledger if not row["keep"]} <= set(image[held].tolist())
