"""Presets: recipes of published data sets and baselines, with the parameters their papers or scripts give.

The DataComp ones keep exactly the uids that the public script keeps (mlfoundations/datacomp, ``baselines.py``; Gadre et
al. 2023); the others follow the papers named in their descriptions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pycurate.errors import RecipeError
from pycurate.recipes.recipe import Recipe
from pycurate.steps import (
    CaptionRules,
    Frequency,
    ImageRules,
    Language,
    MinHashDedup,
    PerceptualDedup,
    RareTokens,
    RecipeStep,
    SemanticDedup,
    TextEntity,
    Threshold,
    TopFraction,
)
from pycurate.steps.base import suggestion
from pycurate.steps.detectors import FASTTEXT_MODEL_HINT
from pycurate.steps.text_entity import ENTITIES_HINT, WORDNET_HINT

Steps = list[RecipeStep]

_CLIP = re.compile(r"datacomp-clip-(b32|l14)-(\d+(?:\.\d+)?)")

PARAMETER_HINTS: Mapping[str, str] = {
    "fasttext_model": f"path of the fastText model. {FASTTEXT_MODEL_HINT}",
    "wordnet": f"path of WordNet. {WORDNET_HINT}",
    "entities": f"path of the list of synset ids. {ENTITIES_HINT}",
    "embedding": "name of the embedding that is compared, such as l14_img.",
}
"""What a required parameter is, and where users get it."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A named recipe; the keyword parameters of ``build`` are those of the preset."""

    description: str
    build: Callable[..., Steps]


def _datacomp_basic(language: Language) -> Steps:
    return [
        language,
        CaptionRules(min_words=3, min_chars=6),
        ImageRules(min_side=200, max_aspect=3.0),
    ]


def _fasttext_english(model: str) -> Language:
    return Language(languages=("en",), detector="fasttext", model=model)


def _laion(score: str, minimum: float) -> Steps:
    return [
        Threshold(score=score, minimum=minimum),
        CaptionRules(min_chars=5),
        ImageRules(min_bytes=5000),
    ]


def _laion_scores(minimum: float, aesthetic: str, pwatermark: str, punsafe: str) -> Steps:
    return [
        Threshold(name="aesthetic", score=aesthetic, minimum=minimum, inclusive=False),
        Threshold(name="watermark", score=pwatermark, maximum=0.8, inclusive=False),
        Threshold(name="unsafe", score=punsafe, maximum=0.5, inclusive=False),
    ]


def _none() -> Steps:
    return []


def _basic(fasttext_model: str) -> Steps:
    return _datacomp_basic(_fasttext_english(fasttext_model))


def _basic_langid() -> Steps:
    return _datacomp_basic(Language(languages=("en",), detector="py3langid"))


def _laion2b() -> Steps:
    return [
        Language(languages=("en",), detector="gcld3"),
        Threshold(score="clip_b32_similarity_score", minimum=0.28),
    ]


def _text(fasttext_model: str, wordnet: str, entities: str) -> Steps:
    return [_fasttext_english(fasttext_model), TextEntity(wordnet=wordnet, entities=entities)]


def _laion400m(score: str = "clip_b32_similarity_score") -> Steps:
    return _laion(score, 0.30)


def _laion5b_multi(score: str = "similarity") -> Steps:
    return _laion(score, 0.26)


def _laion_aesthetic(aesthetic: str = "aesthetic", pwatermark: str = "pwatermark", punsafe: str = "punsafe") -> Steps:
    return _laion_scores(7.0, aesthetic, pwatermark, punsafe)


def _laion_art(aesthetic: str = "aesthetic", pwatermark: str = "pwatermark", punsafe: str = "punsafe") -> Steps:
    return _laion_scores(8.0, aesthetic, pwatermark, punsafe)


def _align(image_key: str = "image", vocabulary: int = 100_000_000) -> Steps:
    return [
        ImageRules(min_side=200, max_aspect=3.0, inclusive=False),
        Frequency(name="texts_of_image", key=image_key, max_rows=1000),
        Frequency(name="images_of_caption", key="caption", max_rows=10),
        CaptionRules(min_words=3, max_words=20),
        RareTokens(vocabulary=vocabulary),
    ]


def _wukong(word_list: str | None = None) -> Steps:
    return [
        ImageRules(min_side=200, max_aspect=3.0),
        CaptionRules(script="Han", word_list=word_list),
        Frequency(key="caption", max_rows=10),
    ]


def _dedup_phash10() -> Steps:
    return [PerceptualDedup(radius=10)]


def _semdedup(embedding: str, eps: float = 0.07, clusters: int | None = 50_000) -> Steps:
    return [
        SemanticDedup(
            embedding=embedding, eps=eps, strict=True, removal="published", keep="hard", unjudged="keep",
            mode="clustered", clusters=clusters, probes=0, iterations=100, tolerance=0, seed=1234,
        )
    ]  # fmt: skip


def _semdedup_nemo(embedding: str, eps: float = 0.01, clusters: int | None = None) -> Steps:
    return [
        SemanticDedup(
            embedding=embedding, eps=eps, strict=False, removal="published", keep="hard", unjudged="keep",
            mode="clustered", clusters=clusters, probes=0, init="k-means||", iterations=300, tolerance=1e-4,
        )
    ]  # fmt: skip


def _dedup_clip94(embedding: str) -> Steps:
    return [SemanticDedup(embedding=embedding, eps=0.06, removal="component", unjudged="keep")]


def _minhash() -> Steps:
    return [MinHashDedup(preset="minhash")]


def _minhash_256() -> Steps:
    return [MinHashDedup(preset="minhash-256")]


def _minhash_captions() -> Steps:
    return [MinHashDedup(preset="minhash-captions")]


def _clip(arch: str, amount: str) -> Preset:
    score = f"clip_{arch}_similarity_score"
    if amount.startswith("0."):
        minimum = float(amount)
        return Preset(
            f"DataComp clip_score: {score} at least {amount}.", lambda: [Threshold(score=score, minimum=minimum)]
        )
    fraction = float(Decimal(amount) / 100)
    if not 0 < fraction <= 1:
        raise RecipeError(
            f"preset datacomp-clip-{arch}-{amount}: expected a percentage above 0 up to 100, or a threshold 0.xx"
        )
    return Preset(
        f"DataComp clip_score: the top {amount} % of the pool by {score}; like the script, one row more, plus ties.",
        lambda: [TopFraction(score=score, fraction=fraction, ties="datacomp", of_unjudged=True)],
    )


_PRESETS: Mapping[str, Preset] = {
    "datacomp-none": Preset("DataComp no_filter: every row.", _none),
    "datacomp-basic": Preset(
        "DataComp basic_filter: English by fastText, more than 2 words, more than 5 characters, shorter side at least "
        "200 pixels, aspect ratio at most 3. Needs fasttext_model.",
        _basic,
    ),
    "datacomp-basic-langid": Preset(
        "The rules of datacomp-basic with the packaged identifier py3langid instead of fastText: other rows.",
        _basic_langid,
    ),
    "datacomp-laion2b": Preset(
        "DataComp laion2b: English by gcld3, clip_b32_similarity_score at least 0.28. Needs the package gcld3.",
        _laion2b,
    ),
    "datacomp-text": Preset(
        "DataComp text_based: English by fastText, and a word whose first WordNet synset is in ImageNet-21k. Needs "
        "fasttext_model, wordnet, entities.",
        _text,
    ),
    "laion400m": Preset(
        "LAION-400M (Schuhmann et al. 2021): CLIP B/32 score at least 0.3, captions of at least 5 characters, images "
        "of at least 5,000 bytes.",
        _laion400m,
    ),
    "laion5b-multi": Preset(
        "LAION-5B, other languages (Schuhmann et al. 2022): multilingual CLIP score at least 0.26, captions of at "
        "least 5 characters, images of at least 5,000 bytes. Does not look at the language.",
        _laion5b_multi,
    ),
    "laion-aesthetic": Preset(
        "LAION-Aesthetics: aesthetic score above 7, watermark probability below 0.8, unsafe probability below 0.5, "
        "from columns of the pool.",
        _laion_aesthetic,
    ),
    "laion-art": Preset("LAION-Art: as laion-aesthetic, aesthetic score above 8.", _laion_art),
    "align": Preset(
        "ALIGN (Jia et al. 2021): shorter side above 200 pixels, aspect ratio below 3, images of at most 1,000 texts, "
        "captions of at most 10 images, 3 to 20 words, all of their uni- and bigrams among the pool's 100 million "
        "most frequent. One rule of the paper is not in it: near-duplicates of evaluation images stay.",
        _align,
    ),
    "dedup-phash10": Preset(
        "Of images whose 64-bit DCT hashes are at most 10 bits apart, directly or through others, the row of lowest "
        "uid. Needs the tars that img2dataset wrote.",
        _dedup_phash10,
    ),
    "semdedup": Preset(
        "SemDeDup (Abbas et al. 2023): 50,000 clusters by spherical k-means; within a cluster, farthest from the "
        "centroid first, a row goes if any earlier one, even one that goes itself, has a cosine above 1 - eps, 0.93. "
        "Takes eps and, for pools of fewer rows than that, clusters. Needs embedding.",
        _semdedup,
    ),
    "semdedup-nemo": Preset(
        "NeMo Curator's form of SemDeDup: eps 0.01, a cosine of 1 - eps or more, clusters from k-means|| and at most "
        "300 iterations. Takes eps and clusters, by default half the square root of the rows. Needs embedding.",
        _semdedup_nemo,
    ),
    "dedup-clip94": Preset(
        "Of rows linked by a cosine of at least 0.94, directly or through others, the row of lowest uid; every pair "
        "is compared. Needs embedding.",
        _dedup_clip94,
    ),
    "wukong": Preset(
        "Wukong (Gu et al. 2022): shorter side at least 200 pixels, aspect ratio at most 3, captions with a Chinese "
        "character that at most 10 rows share; with word_list, captions with none of its words.",
        _wukong,
    ),
    "minhash": Preset(
        "FineWeb (Penedo et al. 2024), for documents: near-duplicate texts by MinHash of 5-grams of words in 14 bands "
        "of 8, here with verified Jaccard similarity of at least 0.75; of each kept one is the lowest uid.",
        _minhash,
    ),
    "minhash-256": Preset(
        "The Stack (Kocetkov et al. 2022), for documents: the same with 256 permutations at Jaccard 0.7, in 25 bands "
        "of 10.",
        _minhash_256,
    ),
    "minhash-captions": Preset(
        "Near-duplicate captions: 2- and 3-grams of words in 32 bands of 4, verified Jaccard similarity of at least "
        "0.7.",
        _minhash_captions,
    ),
}

_CLIP_EXAMPLES = (("b32", "30"), ("l14", "30"), ("b32", "0.28"))


def preset_descriptions() -> dict[str, str]:
    """Name -> what it keeps, for every preset; ``datacomp-clip-*`` takes any percentage or threshold as its ending."""
    described = {name: preset.description for name, preset in _PRESETS.items()}
    for arch, amount in _CLIP_EXAMPLES:
        ending = " Any other percentage, or threshold 0.xx, may stand at the end of the name."
        described[f"datacomp-clip-{arch}-{amount}"] = _clip(arch, amount).description + ending
    return described


def build_preset(name: str, parameters: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a preset; None when there is no preset of that name.

    Raises
    ------
    RecipeError
        A parameter is missing (says what it is and where to get it) or unknown.
    """
    preset = _find(name)
    if preset is None:
        return None
    known = inspect.signature(preset.build).parameters
    for key in parameters:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise RecipeError(
                f"preset {name}: unknown parameter {key!r}{suggestion(key, list(known))} (takes: {takes})"
            )
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in parameters:
            raise RecipeError(f"preset {name} needs {key}: {PARAMETER_HINTS[key]}")
    return Recipe(name=name, description=preset.description, steps=preset.build(**parameters))


def _find(name: str) -> Preset | None:
    match = _CLIP.fullmatch(name)
    return _clip(match[1], match[2]) if match else _PRESETS.get(name)
