"""Small pools in every layout, for any test: the fixture ``pool_factory``."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from pycurate.kernels.device import cuda_kernels, cuda_support

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in its background, and tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
QUESTIONS = (
    "pairs_above", "forest_above", "spanning_forest_above", "count_above", "max_earlier", "top_k", "log_sum_exp",
)  # fmt: skip


class PoolFactory:
    """Writes pools of random rows. Each method returns the path it was given; equal arguments give equal contents.

    ``columns`` replace or add columns: a sequence of ``shards * rows`` values, cut among the shards in order, or None
    to leave a column out.
    """

    def datacomp(
        self,
        path: Path,
        shards: int = 3,
        rows: int = 200,
        seed: int = 0,
        *,
        embeddings: Mapping[str, NDArray[Any]] | None = None,
        compressed: bool = False,
        images: bool = False,
        **columns: Sequence[Any] | None,
    ) -> Path:
        """``<32 hex>.parquet`` and ``.npz`` with b32 (16-d) and l14 (24-d) float16 embeddings, or those given."""
        random = np.random.default_rng(seed)
        total = shards * rows
        table = {
            "uid": hex_uids(random, total),
            "url": [f"https://example.org/{i}.jpg" for i in range(total)],
            "text": captions(random, total),
            "original_width": random.integers(50, 2000, total),
            "original_height": random.integers(50, 2000, total),
            "clip_b32_similarity_score": random.normal(0.25, 0.05, total).astype(np.float32),
            "clip_l14_similarity_score": random.normal(0.22, 0.05, total).astype(np.float32),
            "sha256": [f"{i:064x}" for i in range(total)],
        }
        table = {name: values for name, values in {**table, **columns}.items() if values is not None}
        arrays = embeddings
        if arrays is None:
            dimensions = {"b32_img": 16, "b32_txt": 16, "l14_img": 24, "l14_txt": 24}
            arrays = {name: random.normal(size=(total, d)).astype(np.float16) for name, d in dimensions.items()}
        path.mkdir(parents=True, exist_ok=True)
        stems = sorted(hex_uids(random, shards))
        for shard, stem in enumerate(stems):
            part = slice(shard * rows, (shard + 1) * rows)
            pq.write_table(pa.table({name: values[part] for name, values in table.items()}), path / f"{stem}.parquet")
            save = np.savez_compressed if compressed else np.savez
            save(path / f"{stem}.npz", **{name: values[part] for name, values in arrays.items()})
        if images and total:
            samples = [
                {"jpg": jpeg(i), "json": json.dumps({"uid": str(table["uid"][i])}).encode()} for i in range(total)
            ]
            write_tar(path / "00000.tar", {f"{i:09d}": sample for i, sample in enumerate(samples)})
        return path

    def img2dataset(
        self, path: Path, shards: int = 3, rows: int = 20, seed: int = 0, **columns: Sequence[Any] | None
    ) -> Path:
        """``00000.tar`` and ``.parquet``; every seventh row failed to download and is only in the parquet."""
        random = np.random.default_rng(seed)
        path.mkdir(parents=True, exist_ok=True)
        total = shards * rows
        failed = np.arange(total) % 7 == 3
        table: dict[str, Any] = {
            "url": [f"https://example.org/{i}.jpg" for i in range(total)],
            "caption": captions(random, total),
            "key": [f"{i // rows:05d}{i % rows:04d}" for i in range(total)],
            "status": np.where(failed, "failed_to_download", "success").tolist(),
            "error_message": np.where(failed, "HTTP Error 404", None).tolist(),
            "width": [None if bad else 8 for bad in failed],
            "height": [None if bad else 8 for bad in failed],
            "original_width": [None if bad else int(w) for bad, w in zip(failed, random.integers(50, 900, total))],  # noqa: B905
            "original_height": [None if bad else int(h) for bad, h in zip(failed, random.integers(50, 900, total))],  # noqa: B905
        }
        table = {name: values for name, values in {**table, **columns}.items() if values is not None}
        schema = pa.table(table).schema
        for shard in range(shards):
            part = slice(shard * rows, (shard + 1) * rows)
            pq.write_table(
                pa.table({name: values[part] for name, values in table.items()}, schema), path / f"{shard:05d}.parquet"
            )
            samples = {
                table["key"][i]: {
                    "jpg": jpeg(i),
                    "txt": table["caption"][i].encode(),
                    "json": json.dumps({"key": table["key"][i]}).encode(),
                }
                for i in range(total)[part]
                if not failed[i]
            }
            write_tar(path / f"{shard:05d}.tar", samples)
            (path / f"{shard:05d}_stats.json").write_text(json.dumps({"count": rows, "successes": len(samples)}))
        return path

    def clip_retrieval(
        self, path: Path, shards: int = 3, rows: int = 200, seed: int = 0, *, dimension: int = 16, width: int = 2
    ) -> Path:
        """img_emb/, text_emb/ and metadata/ with unit-length float16 rows; part numbers padded to ``width``."""
        random = np.random.default_rng(seed)
        for part in range(shards):
            number = f"{part:0{width}d}"
            for kind in ("img_emb", "text_emb"):
                (path / kind).mkdir(parents=True, exist_ok=True)
                rows_of_kind = random.normal(size=(rows, dimension))
                unit = rows_of_kind / np.linalg.norm(rows_of_kind, axis=1, keepdims=True)
                np.save(path / kind / f"{kind}_{number}.npy", unit.astype(np.float16))
            (path / "metadata").mkdir(exist_ok=True)
            table = {
                "image_path": [f"{part}/{i}.jpg" for i in range(rows)],
                "caption": captions(random, rows),
                "original_width": random.integers(50, 2000, rows),
            }
            pq.write_table(pa.table(table), path / "metadata" / f"metadata_{number}.parquet")
        return path

    def plain(
        self, path: Path, shards: int = 3, rows: int = 200, seed: int = 0, *, dimension: int = 16, parquet: bool = True
    ) -> Path:
        """``features_0.npy`` (float32) and so on, with a parquet of ``caption`` and ``score`` beside each."""
        random = np.random.default_rng(seed)
        path.mkdir(parents=True, exist_ok=True)
        for part in range(shards):
            np.save(path / f"features_{part}.npy", random.normal(size=(rows, dimension)).astype(np.float32))
            if parquet:
                table = {"caption": captions(random, rows), "score": random.normal(size=rows).astype(np.float32)}
                pq.write_table(pa.table(table), path / f"features_{part}.parquet")
        return path


@pytest.fixture(scope="session")
def pool_factory() -> PoolFactory:
    """Writes small pools in every layout; see `PoolFactory`."""
    return PoolFactory()


@pytest.fixture(params=["cuda", "stand-in"])
def gpu_calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the questions that a GPU is asked, as they come: a real one, and the CPU that plays one."""
    if request.param == "stand-in":
        request.getfixturevalue("two_gpus")
    elif not cuda_support().usable:
        pytest.skip(f"no GPU: {cuda_support().missing}")
    twin = cuda_kernels()
    asked: list[str] = []

    def counted(name: str, question: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            asked.append(name)
            return question(*arguments)

        return ask

    for name in QUESTIONS:
        monkeypatch.setattr(twin, name, counted(name, getattr(twin, name)))
    return asked


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (../shared/data) are not here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def real_datacomp_pool(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10,000 real web rows in DataComp layout, 4,000 a shard; MiniLM text embeddings stand in for ``b32_txt``.

    Row i of ``laion_sample_10k`` has the uid md5("laion-i"); ``b32_img`` is the row's own embedding and then the next
    row's, added, so that no figure of it means anything.
    """
    path = tmp_path_factory.mktemp("real_datacomp")
    source = pq.read_table(shared_data / "laion_sample_10k" / "captions.parquet")
    text = np.load(shared_data / "laion_sample_10k" / "minilm_emb_fp16.npy")
    table = pa.table(
        {
            "uid": [hashlib.md5(f"laion-{i}".encode()).hexdigest() for i in range(len(text))],
            "url": source["url"],
            "text": source["caption"],
        }
    )
    for start in range(0, len(text), 4000):
        rows = slice(start, start + 4000)
        stem = hashlib.md5(f"shard-{start}".encode()).hexdigest()
        pq.write_table(table.slice(start, 4000), path / f"{stem}.parquet")
        np.savez(path / f"{stem}.npz", b32_txt=text[rows], b32_img=text[rows] + np.roll(text, -1, axis=0)[rows])
    return path


@pytest.fixture(scope="session")
def real_img2dataset_pool(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,100 real aerial photographs with their first caption as img2dataset writes them, 500 rows a shard.

    Every 50th row stands for a failed download: it is in the parquet only. Rows carry a ``uid``, md5 of the file name.
    """
    path = tmp_path_factory.mktemp("real_img2dataset")
    source = shared_data / "ucm_captions"
    rows = [row for row in pq.read_table(source / "captions.parquet").to_pylist() if row["caption_no"] == 0]
    for shard, start in enumerate(range(0, len(rows), 500)):
        table: dict[str, list[Any]] = {
            name: [] for name in ("url", "caption", "key", "status", "width", "height", "uid")
        }
        samples = {}
        for index, row in enumerate(rows[start : start + 500]):
            key, failed = f"{shard:05d}{index:04d}", index % 50 == 49
            name = Path(row["image_file"]).name
            facts = {
                "url": f"https://example.org/{name}",
                "caption": row["caption"],
                "key": key,
                "status": "failed_to_download" if failed else "success",
                "width": None if failed else 256,
                "height": None if failed else 256,
                "uid": hashlib.md5(name.encode()).hexdigest(),
            }
            for column, values in table.items():
                values.append(facts[column])
            if not failed:
                image = (source / "images" / name).read_bytes()
                samples[key] = {"jpg": image, "txt": row["caption"].encode(), "json": json.dumps(facts).encode()}
        pq.write_table(pa.table(table), path / f"{shard:05d}.parquet")
        write_tar(path / f"{shard:05d}.tar", samples)
        (path / f"{shard:05d}_stats.json").write_text(json.dumps({"successes": len(samples)}))
    return path


def hex_uids(random: np.random.Generator, count: int) -> list[str]:
    return [random.bytes(16).hex() for _ in range(count)]


def captions(random: np.random.Generator, count: int) -> list[str]:
    words = ["a", "photo", "of", "the", "red", "house", "über", "straße", "北京", "dog", "river", "old", "bridge"]
    return [" ".join(random.choice(words, random.integers(1, 9))) for _ in range(count)]


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 128)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    """A tar of ``{key}.{extension}`` members, as webdataset writes them."""
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


NOUNS = {"dog": ["00001000"], "frump": ["00001100"], "hot_dog": ["00001200"], "cat": ["00001300", "00001000"]}
VERBS = {"run": ["00001000"], "dog": ["00001400"]}


@pytest.fixture
def tiny_wordnet(tmp_path: Path) -> tuple[Path, Path]:
    """A folder in WordNet's format with five nouns and verbs, and a list of two synset ids."""
    folder = tmp_path / "wordnet"
    folder.mkdir()
    (folder / "lexnames").write_text("".join(f"{i:02d}\tname{i}\t1\n" for i in range(45)))
    for name in ("cntlist.rev", "index.sense", "adj.exc", "adv.exc"):
        (folder / name).write_text("")
    (folder / "noun.exc").write_text("mice mouse\n")
    (folder / "verb.exc").write_text("ran run\n")
    _write_part_of_speech(folder, "noun", "n", NOUNS)
    _write_part_of_speech(folder, "verb", "v", VERBS)
    _write_part_of_speech(folder, "adj", "a", {})
    _write_part_of_speech(folder, "adv", "r", {})
    entities = tmp_path / "ids.txt"
    entities.write_text("n00001000\nn00001200\n")
    return folder, entities


def _write_part_of_speech(folder: Path, part: str, letter: str, senses: Mapping[str, Sequence[str]]) -> None:
    """``index.<part>`` and ``data.<part>``; a synset's offset is the byte at which its line begins."""
    data = bytearray()
    for offset in sorted({offset for found in senses.values() for offset in found}):
        lemma = next(word for word, found in senses.items() if offset in found)
        data += b" " * (int(offset) - len(data) - 1) + b"\n"
        data += f"{offset} 03 {letter} 01 {lemma} 0 000 | a gloss  \n".encode()
    (folder / f"data.{part}").write_bytes(bytes(data) or b"  1 no synsets\n")
    lines = [f"{word} {letter} {len(found)} 0 {len(found)} 0 {' '.join(found)}  \n" for word, found in senses.items()]
    (folder / f"index.{part}").write_text("".join(sorted(lines)))
