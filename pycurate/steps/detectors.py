"""Language identifiers: one caption in, one language code out. The files and packages are the user's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pycurate.errors import MissingDependencyError
from pycurate.steps.files import file_version

Detector: TypeAlias = Callable[[str], str]
"""Language code of one caption without line breaks; empty where there is none."""

KnownDetector: TypeAlias = Literal["py3langid", "fasttext", "gcld3"]

PACKAGED_HINT = "The preset datacomp-basic-langid uses the packaged identifier py3langid instead, with other results."
FASTTEXT_MODEL_HINT = (
    "The DataComp rule uses lid.176.bin, published at https://fasttext.cc/docs/en/language-identification.html. "
    + PACKAGED_HINT
)


def load_detector(name: KnownDetector, model: str | None) -> Detector:
    """A known identifier, loaded once per process.

    Parameters
    ----------
    name
        ``py3langid`` comes with pycurate. ``fasttext`` gives the top label of ``model``, as the DataComp filters do.
        ``gcld3`` reads at most 1,000 bytes and has no least length, as the DataComp laion2b filter does.
    model
        Path of the fastText model.

    Raises
    ------
    MissingDependencyError
        The package or the model is not there; says what to install or where it is published.
    """
    if name == "fasttext":
        return _fasttext(*file_version(str(model), "language: model", FASTTEXT_MODEL_HINT))
    return _gcld3() if name == "gcld3" else _py3langid()


def package_version(package: str) -> str:
    """Installed version of an identifier's package; empty where it is installed under another name."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def _py3langid() -> Detector:
    from py3langid import classify

    def detect(caption: str) -> str:
        return str(classify(caption)[0])

    return detect


@cache
def _fasttext(model: Path, size_bytes: int, modified_ns: int) -> Detector:
    try:
        import fasttext
    except ImportError as error:
        raise MissingDependencyError(
            "language: detector fasttext needs the fastText package: pip install fasttext. " + PACKAGED_HINT
        ) from error
    fasttext.FastText.eprint = lambda *args, **kwargs: None  # a warning about an interface nobody here uses
    try:
        loaded: Any = fasttext.load_model(str(model))
    except ValueError as error:
        raise MissingDependencyError(
            f"language: model {str(model)!r} is not a fastText model ({error}). " + FASTTEXT_MODEL_HINT
        ) from error

    def detect(caption: str) -> str:
        # A list of one, because predict on a single text breaks under NumPy 2; the model's work is the same.
        labels = loaded.predict([caption], k=1)[0][0]
        return str(labels[0]).removeprefix("__label__") if len(labels) else ""

    return detect


@cache
def _gcld3() -> Detector:
    try:
        import gcld3
    except ImportError as error:
        raise MissingDependencyError(
            "language: detector gcld3 needs the gcld3 package: pip install gcld3 (it compiles with protobuf). "
            "The packaged identifier is detector: py3langid, with other results"
        ) from error
    identifier: Any = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)

    def detect(caption: str) -> str:
        return str(identifier.FindLanguage(text=caption).language)

    return detect
