from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter

import numpy as np
import py3langid
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pycurate.demo import generate_demo_pool
from pycurate.demo.captions import COLOURS, LANGUAGES, TOPICS, sentences
from pycurate.errors import InputError, WorkspaceError

KEYS = {"b32_img": 512, "b32_txt": 512, "l14_img": 768, "l14_txt": 768}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return generate_demo_pool(tmp_path_factory.mktemp("demo"), rows=3000, seed=3, shards=2)


@pytest.fixture(scope="module")
def table(demo):
    return pa.concat_tables(pq.read_table(path) for path in sorted(demo.root.glob("*.parquet")))


@pytest.fixture(scope="module")
def arrays(demo):
    parts = []
    for path in sorted(demo.root.glob("*.npz")):
        with np.load(path) as part:
            parts.append(dict(part))
    return {key: np.concatenate([part[key] for part in parts]) for key in KEYS}


def file_hashes(root):
    return {p.relative_to(root): hashlib.sha256(p.read_bytes()).digest() for p in root.rglob("*") if p.is_file()}


def test_layout_is_datacomps(demo, table, arrays):
    stems = {path.stem for path in demo.root.glob("*.parquet")}
    assert stems == {path.stem for path in demo.root.glob("*.npz")}
    assert len(stems) == demo.shards == 2
    assert all(len(stem) == 32 and int(stem, 16) >= 0 for stem in stems)
    assert table.num_rows == demo.rows == 3000
    types = {field.name: str(field.type) for field in table.schema}
    assert types["clip_l14_similarity_score"] == "float"
    assert types["original_width"] == "int64"
    assert types["face_bboxes"].startswith("list<element: list<element: double")
    assert {k: (a.shape, a.dtype) for k, a in arrays.items()} == {k: ((3000, d), np.float16) for k, d in KEYS.items()}
    for path in demo.root.glob("*.npz"):
        with zipfile.ZipFile(path) as file:
            assert all(member.compress_type == zipfile.ZIP_STORED for member in file.infolist())
    uids = table["uid"].to_pylist()
    assert len(set(uids)) == 3000
    assert all(len(uid) == 32 and uid == f"{int(uid, 16):032x}" for uid in uids)
    assert demo.bytes == sum(p.stat().st_size for p in demo.root.parent.rglob("*") if p.is_file())


@pytest.mark.parametrize("arch", ["b32", "l14"])
def test_scores_agree_with_the_embeddings_and_part_true_from_false_captions(table, arrays, arch):
    image, text = (arrays[f"{arch}_{side}"].astype(np.float64) for side in ("img", "txt"))
    with np.errstate(invalid="ignore"):
        cosine = (image * text).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(text, axis=1)
    score = table[f"clip_{arch}_similarity_score"].to_numpy()
    np.testing.assert_allclose(score, cosine, atol=1e-6)
    shuffled = (image[1:] * text[:-1]).sum(1)
    assert np.nanmedian(score) > np.nanmedian(shuffled) + 0.05
    assert 0.15 < np.nanquantile(score, 0.7) < 0.35


def test_spectrum_and_cone_look_like_clips(arrays):
    image = arrays["l14_img"].astype(np.float64)
    image = image[np.isfinite(image).all(1)]
    assert 0.3 < np.linalg.norm(image.mean(0)) ** 2 < 0.6  # unrelated images have a clearly positive cosine
    variance = np.sort(np.linalg.eigvalsh(np.cov(image.T)))[::-1]
    assert variance[:77].sum() > 0.4 * variance.sum()
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, atol=2e-3)


def test_planted_facts_are_there(demo, table, arrays):
    captions, sides = table["text"].to_pylist(), np.stack([table["original_width"], table["original_height"]])
    counts = Counter(captions)
    assert demo.planted["nan_embeddings"] == np.isnan(arrays["b32_img"]).any(1).sum() > 0
    assert demo.planted["zero_embeddings"] == (~arrays["l14_txt"].any(1)).sum() > 0
    assert demo.planted["captions_under_three_words"] == sum(len(c.split()) < 3 for c in captions) > 30
    assert demo.planted["repeated_captions"] == sum(n for n in counts.values() if n > 10) > 30
    assert demo.planted["images_under_200_pixels"] == (sides.min(0) < 200).sum() > 30
    assert demo.planted["images_over_aspect_3"] == (sides.max(0) > 3 * sides.min(0)).sum() > 10
    assert any(caption.startswith("IMG_") for caption in captions)
    broken = np.isnan(arrays["b32_img"]).any(1) | ~arrays["b32_txt"].any(1)
    assert np.array_equal(broken, np.isnan(table["clip_b32_similarity_score"].to_numpy()))


def test_copied_images_are_near_duplicates_and_exact_copies_share_their_bytes(demo, table, arrays):
    image = np.nan_to_num(arrays["b32_img"].astype(np.float32))
    cosine = image @ image.T
    np.fill_diagonal(cosine, 0)
    near = (cosine > 0.96).any(1)
    assert 0.5 * demo.planted["copied_images"] < near.sum() <= demo.planted["copied_images"]
    repeated = {sha for sha, n in Counter(table["sha256"].to_pylist()).items() if n > 1}
    assert repeated
    same_bytes = np.array([sha in repeated for sha in table["sha256"].to_pylist()])
    whole = image.any(1)
    assert near[same_bytes & whole].all()


def test_tars_hold_pictures_of_the_rows(demo, table):
    rows = {row["uid"]: row for row in table.to_pylist()}
    seen = 0
    for path in sorted(demo.root.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for name, data in members.items():
            if name.endswith(".json"):
                key, record = name.removesuffix(".json"), json.loads(data)
                row, picture = rows[record["uid"]], members[f"{key}.jpg"]
                assert hashlib.sha256(picture).hexdigest() == row["sha256"]
                assert members[f"{key}.txt"].decode() == row["text"] == record["caption"]
                seen += 1
    assert seen == demo.planted["pictures"] > 50
    with Image.open(io.BytesIO(picture)) as image:
        assert image.convert("RGB").size == (96, 96)


def test_a_language_identifier_can_tell_the_languages():
    rng = np.random.default_rng(0)
    captions, languages = sentences(rng, rng.integers(0, len(TOPICS), 600), rng.integers(0, len(COLOURS), 600))
    found = np.array([py3langid.classify(caption)[0] for caption in captions])
    assert set(languages.tolist()) == set(LANGUAGES)
    assert (found == languages).mean() > 0.9


def test_one_shard_of_the_damaged_pool_is_cut_short(demo):
    cut, whole = sorted(demo.damaged.glob("*.npz"))
    with cut.open("rb") as file, pytest.raises(zipfile.BadZipFile):
        np.load(file)
    with np.load(whole) as arrays:
        assert arrays["l14_img"].shape == (200, 768)
    assert {pq.read_metadata(path).num_rows for path in demo.damaged.glob("*.parquet")} == {200}
    assert demo.planted["truncated_shards"] == 1


def test_same_arguments_give_the_same_bytes_and_another_seed_others(tmp_path):
    hashes = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        generate_demo_pool(tmp_path / name, rows=120, seed=seed, shards=2)
        hashes.append(file_hashes(tmp_path / name))
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_without_images_there_are_no_tars(tmp_path):
    made = generate_demo_pool(tmp_path, rows=50, shards=1, images=False)
    assert not list(made.root.glob("*.tar"))
    assert made.planted.get("pictures", 0) == 0


def test_impossible_sizes_and_used_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="shards: expected a number from 1 to rows = 3, got 4"):
        generate_demo_pool(tmp_path, rows=3, shards=4)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "notes.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="pool: is not empty; remove it or choose another folder"):
        generate_demo_pool(tmp_path, rows=3, shards=1)
