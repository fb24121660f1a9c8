from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pycurate.errors import MissingDependencyError, RecipeError
from pycurate.io import open_pool
from pycurate.recipes import Recipe, preset_descriptions
from pycurate.steps import (
    STEPS,
    CaptionRules,
    ClassBalance,
    ClipScore,
    Coreset,
    Decontaminate,
    ExactDedup,
    Filter,
    Frequency,
    ImageHash,
    ImageRules,
    KnnLabelNoise,
    Language,
    MinHashDedup,
    PerceptualDedup,
    RareTokens,
    RowScores,
    SemanticDedup,
    SubsetStep,
    TextEntity,
    Threshold,
    TopFraction,
    ZeroShotTopK,
)

TEXT = """
name: mine
description: every kind of step
steps:
  - clip_score: {embeddings: l14, as: clip}
  - clip_score: {column: clip_b32_similarity_score, as: b32}
  - row_scores: {name: mine, version: 3, function: "numpy:asarray", embeddings: [l14_img], inputs: [clip, url]}
  - filter: original_width >= 200 and clip > 0.1
  - threshold: {score: clip, minimum: 0.28}
  - class_balance: {label: cluster, total: 500, floor: 2, score: clip}
  - coreset: {embedding: l14_img, fraction: 0.5, method: k_center}
  - threshold: {score: b32, maximum: 0.9, inclusive: false, unjudged: keep}
  - top_fraction: {score: clip, fraction: 0.3, of: survivors, ties: datacomp}
  - caption_rules: {min_words: 3, max_chars: 200}
  - image_rules: {min_side: 200, max_aspect: 3, name: shape}
  - language: {languages: ["en", "no"]}
  - language: {languages: [de], detector: "json:dumps", version: 1}
  - text_entity: {wordnet: folder, entities: ids.txt}
  - frequency: {key: caption, max_rows: 10, normalise: true}
  - rare_tokens: {vocabulary: 1000}
  - exact_dedup: url
  - exact_dedup: {key: embedding, embedding: l14_img, keep: {highest: clip}, of: pool}
  - semantic_dedup: {embedding: l14_img, eps: 0.05, removal: greedy, keep: {highest: clip}}
  - minhash_dedup: {threshold: 0.8, n: [2, 4], removal: component}
  - decontaminate: {against: [a.pack, b.pack], similarity: {l14_img: 0.9}, ngram: 6}
  - subset: {keep: a.npy, drop: [b.npy, c.npy]}
  - image_hash: {hash: dhash, bits: 256, as: looks}
  - perceptual_dedup: {radius: 8, dihedral: true, removal: greedy, keep: {highest: clip}}
  - knn_label_noise: {embedding: l14_img, label: class_id, method: vote, k: 20}
  - zero_shot_top_k: {embedding: l14_img, classes: classes.npy, k: 16}
"""


def in_python() -> Recipe:
    return Recipe(
        name="mine",
        description="every kind of step",
        steps=[
            ClipScore(embeddings="l14", as_="clip"),
            ClipScore(column="clip_b32_similarity_score", as_="b32"),
            RowScores(name="mine", version=3, function="numpy:asarray", embeddings=["l14_img"], inputs=["clip", "url"]),
            Filter(expression="original_width >= 200 and clip > 0.1"),
            Threshold(score="clip", minimum=0.28),
            ClassBalance(label="cluster", total=500, floor=2, score="clip"),
            Coreset(embedding="l14_img", fraction=0.5, method="k_center"),
            Threshold(score="b32", maximum=0.9, inclusive=False, unjudged="keep"),
            TopFraction(score="clip", fraction=0.3, of="survivors", ties="datacomp"),
            CaptionRules(min_words=3, max_chars=200),
            ImageRules(min_side=200, max_aspect=3, name="shape"),
            Language(languages=["en", "no"]),
            Language(languages=["de"], detector="json:dumps", version=1),
            TextEntity(wordnet="folder", entities="ids.txt"),
            Frequency(key="caption", max_rows=10, normalise=True),
            RareTokens(vocabulary=1000),
            ExactDedup(key="url"),
            ExactDedup(key="embedding", embedding="l14_img", keep={"highest": "clip"}, of="pool"),
            SemanticDedup(embedding="l14_img", eps=0.05, removal="greedy", keep={"highest": "clip"}),
            MinHashDedup(threshold=0.8, n=(2, 4), removal="component"),
            Decontaminate(against=("a.pack", "b.pack"), similarity={"l14_img": 0.9}, ngram=6),
            SubsetStep(keep="a.npy", drop=["b.npy", "c.npy"]),
            ImageHash(hash="dhash", bits=256, as_="looks"),
            PerceptualDedup(radius=8, dihedral=True, removal="greedy", keep={"highest": "clip"}),
            KnnLabelNoise(embedding="l14_img", label="class_id", method="vote", k=20),
            ZeroShotTopK(embedding="l14_img", classes="classes.npy", k=16),
        ],
    )


def test_yaml_and_python_give_the_same_recipe() -> None:
    assert Recipe.from_yaml(TEXT) == in_python()
    assert {step.kind for step in in_python().steps} == set(STEPS)


def test_a_recipe_survives_the_way_to_yaml_and_back() -> None:
    recipe = in_python()
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert "- filter: original_width >= 200 and clip > 0.1" in recipe.to_yaml()


def test_names_are_unique_and_the_given_ones_stay() -> None:
    steps = [
        {"threshold": {"score": "a", "minimum": 1}},
        {"threshold": {"score": "a", "minimum": 1, "name": "threshold_2"}},
        {"threshold": {"score": "a", "minimum": 1}},
        {"filter": {"expression": "a > 1", "name": "threshold"}},
        {"threshold": {"score": "a", "minimum": 1}},
    ]
    recipe = Recipe(name="names", steps=steps)
    assert [step.name for step in recipe.steps] == [
        "threshold_3",
        "threshold_2",
        "threshold_4",
        "threshold",
        "threshold_5",
    ]
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_steps_know_which_names_are_scores_and_which_are_columns() -> None:
    recipe = in_python()
    by_name = {step.name: step for step in recipe.steps}
    assert by_name["threshold"].decide_needs().scores == ("clip", "clip.flags")
    assert by_name["filter"].score_needs().columns == ("original_width",)
    assert by_name["filter"].score_needs().scores == ("clip",)
    columns, embeddings = recipe.needed()
    assert embeddings == ["l14_img", "l14_txt"]
    assert set(columns) == {
        "clip_b32_similarity_score",
        "url",
        "cluster",
        "original_width",
        "original_height",
        "caption",
        "class_id",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps: [threshold: {score: a, minimum: 1}]", "recipe: name is missing"),
        ("name: x\nstep: []", r"recipe: unknown key 'step'; did you mean 'steps'\? \(keys: description, name, steps\)"),
        ("name: x\nsteps: {a: 1}", "recipe: steps: expected a list of steps"),
        ("name: x\nsteps: [treshold: {score: a}]", "recipe: steps: unknown step 'treshold'; did you mean 'threshold'"),
        ("name: x\nsteps: [{threshold: {}, filter: x}]", "step 1: expected one key"),
        ("name: x\nsteps: [threshold]", "step 1: expected one key"),
        ("name: x\nsteps: [threshold: 0.3]", "threshold: expected a mapping of keys .*got 0.3"),
        ("name: x\nsteps: [threshold: ]", "threshold: score is missing"),
        (
            "name: x\nsteps: [threshold: {score: a, minimu: 1}]",
            "threshold: unknown key 'minimu'; did you mean 'minimum'",
        ),
        ("name: x\nsteps: [language: {languages: [no]}]", "expected a valid string, got False .*quote them"),
        ("name: x\nsteps: [threshold: {no: 1}]", "threshold: expected keys of text, got False; quote it"),
        ("name: x\nsteps: [filter: random() < 1]", r"random\(\) gives another value"),
        ("- a\n- b", "recipe: expected the keys name, description and steps, got list"),
        ("", "recipe: expected the keys name, description and steps, got NoneType"),
        ("name: [", "recipe: not valid YAML: .*line 1"),
        ("name: !!python/object/apply:os.getcwd []", "recipe: not valid YAML: could not determine a constructor"),
        (
            "name: x\nsteps: [threshold: {score: a, minimum: 1}, clip_score: {column: c, as: a}]",
            "step 'threshold' uses 'a', which step 'clip_score' makes only later; move that step up",
        ),
        (
            "name: x\nsteps: [clip_score: {column: c, as: a}, clip_score: {column: d, as: a}]",
            "step 'clip_score_2' makes score 'a', which step 'clip_score' makes too; rename one",
        ),
        ("name: x\nsteps: [clip_score: {column: c, as: uid}]", "makes score 'uid', which the pipeline makes too"),
        (
            "name: x\nsteps: [clip_score: {column: c, name: a}, clip_score: {column: d, name: a}]",
            "two steps are named 'a'; name them differently",
        ),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said(text: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Recipe.from_yaml(text)


def test_a_recipe_cannot_be_changed_behind_its_key() -> None:
    recipe = in_python()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.steps[4].minimum = 0.1  # type: ignore[attr-defined]


def test_the_key_changes_with_anything_that_changes_rows(tmp_path: Path) -> None:
    listed = tmp_path / "a.npy"
    listed.write_bytes(b"one")
    keys = set()

    def key(**threshold: Any) -> str:
        steps = [Threshold(score="a", **threshold), SubsetStep(drop=str(listed))]
        return Recipe(name="x", steps=steps).key

    keys = {key(minimum=1), key(minimum=2), key(minimum=1, inclusive=False), key(minimum=1, unjudged="keep")}
    assert len(keys) == 4
    assert key(minimum=1) in keys
    listed.write_bytes(b"two")
    assert key(minimum=1) not in keys


def test_load_reads_presets_and_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    assert Recipe.load(path) == Recipe.load(str(path)) == in_python()
    assert Recipe.load("datacomp-clip-l14-30").name == "datacomp-clip-l14-30"
    with pytest.raises(RecipeError, match=r"only presets take parameters, and .*mine.yaml is a file; got \['a'\]"):
        Recipe.load(path, a=1)
    with pytest.raises(RecipeError, match="no preset and no file 'datacomp-basik'; did you mean 'datacomp-basic'"):
        Recipe.load("datacomp-basik")
    path.write_text("name: x\nsteps: [thresold: {}]")
    with pytest.raises(RecipeError, match=r"mine\.yaml: recipe: steps: unknown step 'thresold'"):
        Recipe.load(path)
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match=r"mine\.yaml: expected UTF-8 text"):
        Recipe.load(path)


def test_check_names_what_the_pool_lacks(pool_factory, tmp_path: Path) -> None:
    pool = open_pool(pool_factory.datacomp(tmp_path / "pool", shards=1, rows=20))

    def check(*steps: Any) -> None:
        Recipe(name="x", steps=list(steps)).check(pool)

    check(ClipScore(embeddings="l14"), CaptionRules(min_words=1), Filter(expression="caption is not null"))
    with pytest.raises(RecipeError, match=r"step 'threshold': .*no column 'clip_b32_similarty_score'; did you mean"):
        check(Threshold(score="clip_b32_similarty_score", minimum=0))
    with pytest.raises(RecipeError, match=r"step 'threshold': .*'clp'.*or the score 'clip'"):
        check(ClipScore(embeddings="l14", as_="clip"), Threshold(score="clp", minimum=0))
    with pytest.raises(RecipeError, match="step 'clip_score': the pool has no embedding 'l41_img'; did you mean 'l14"):
        check(ClipScore(embeddings="l41"))
    with pytest.raises(RecipeError, match=r"got b32_img \(16-d float16\) and l14_txt \(24-d float16\)"):
        check(ClipScore(image="b32_img", text="l14_txt"))
    with pytest.raises(MissingDependencyError, match=r"there is no file or folder 'none\.npy'"):
        check(SubsetStep(keep="none.npy"))


def test_every_preset_is_described_and_goes_to_yaml_and_back() -> None:
    given = {"fasttext_model": "lid.176.bin", "wordnet": "wordnet", "entities": "ids.txt"}
    needed = {"datacomp-basic": ["fasttext_model"], "datacomp-text": list(given)}
    given["embedding"] = "l14_img"
    needed |= {name: ["embedding"] for name in ("semdedup", "semdedup-nemo", "dedup-clip94")}
    for name, description in preset_descriptions().items():
        recipe = Recipe.load(name, **{key: given[key] for key in needed.get(name, [])})
        assert recipe.name == name
        assert description.startswith(recipe.description)
        assert f"Needs {', '.join(needed.get(name, []))}." in description or name not in needed
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("datacomp-basic", {}, r"needs fasttext_model: .*lid\.176\.bin.*datacomp-basic-langid uses the packaged"),
        ("datacomp-text", {"fasttext_model": "m"}, "needs wordnet: path of WordNet"),
        ("datacomp-text", {"fasttext_model": "m", "wordnet": "w"}, "needs entities: .*imagenet21k_wordnet_ids"),
        ("datacomp-basic", {"fastext_model": "m"}, "unknown parameter 'fastext_model'; did you mean 'fasttext_model'"),
        ("datacomp-none", {"x": 1}, r"unknown parameter 'x' \(takes: none\)"),
        ("datacomp-clip-b32-0", {}, "expected a percentage above 0 up to 100"),
        ("datacomp-clip-b32-101", {}, "expected a percentage above 0 up to 100"),
        ("datacomp-clip-b16-30", {}, "no preset and no file 'datacomp-clip-b16-30'; did you mean"),
    ],
)
def test_what_a_preset_needs_is_said(name: str, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Recipe.load(name, **parameters)


@pytest.mark.parametrize("amount", ["1", "7", "10", "17.5", "30", "33.3", "75", "100"])
def test_a_percentage_is_the_number_a_user_would_type(amount: str) -> None:
    (step,) = Recipe.load(f"datacomp-clip-b32-{amount}").steps
    assert isinstance(step, TopFraction)
    assert step.fraction == np.round(float(amount) / 100, 6)
