from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, get_args

import cleanlab
import cleanlab.count
import cleanlab.filter
import cleanlab.rank
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import pycurate
from pycurate.errors import InputError
from pycurate.ops.labels import confident_learning, joint, label_issues, label_quality, noise_matrices
from pycurate.ops.labels.label_issues import FilterBy
from pycurate.ops.labels.label_quality import ScoreMethod
from pycurate.ops.labels.probabilities import TopProbabilities, probability_blocks

FILTERS = get_args(FilterBy)
SCORES = get_args(ScoreMethod)
PRUNING = ("prune_by_noise_rate", "prune_by_class", "both")


Ties = Any  # the fixture ties_in_row_order
Noisy = Any  # the fixture noisy_labels


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    return {
        "n": draw(st.integers(2, 200)),
        "k": draw(st.integers(2, 30)),
        "seed": draw(st.integers(0, 2**32)),
        "noise": draw(st.sampled_from([0.0, 0.2, 0.9])),
        "sharp": draw(st.sampled_from([0.0, 2.0, 8.0])),
        "digits": draw(st.sampled_from([None, None, 0, 1])),
    }


@settings(max_examples=60, deadline=None)
@given(problems())
def test_joints_and_thresholds_equal_cleanlab(ties_in_row_order: Ties, noisy_labels: Noisy, problem: Any) -> None:
    labels, p = noisy_labels(**problem)
    labels[:2] = [0, 1]  # cleanlab refuses labels of one class
    with ties_in_row_order():
        thresholds = cleanlab.count.get_confident_thresholds(labels, p)
        plain, off = cleanlab.count.compute_confident_joint(
            labels, p, calibrate=False, return_indices_of_off_diagonals=True
        )
        calibrated = cleanlab.count.compute_confident_joint(labels, p)
        estimate = cleanlab.count.estimate_joint(labels, p)
        again = cleanlab.count.calibrate_confident_joint(plain, labels)
        counts = {
            method: cleanlab.count.num_label_issues(labels, p, estimation_method=method)
            for method in ("off_diagonal", "off_diagonal_calibrated")
        }
        latent = [
            cleanlab.count.estimate_latent(calibrated, labels, py_method=method, converge_latent_estimates=converge)
            for method in ("cnt", "marginal", "marginal_ps")
            for converge in (False, True)
        ]
        matrices = cleanlab.count.estimate_py_and_noise_matrices_from_probabilities(labels, p)
    np.testing.assert_allclose(pycurate.get_confident_thresholds(labels, p), thresholds, rtol=1e-14)
    ours, our_off = pycurate.compute_confident_joint(labels, p, calibrate=False, return_indices_of_off_diagonals=True)
    np.testing.assert_array_equal(ours, plain)
    np.testing.assert_array_equal(our_off, off)
    np.testing.assert_array_equal(pycurate.compute_confident_joint(labels, p), calibrated)
    np.testing.assert_array_equal(confident_learning.calibrate_confident_joint(plain, labels), again)
    np.testing.assert_array_equal(pycurate.estimate_joint(labels, p), estimate)
    for method, count in counts.items():
        assert pycurate.num_label_issues(labels, p, estimation_method=method) == count
    found = [
        joint.estimate_latent(calibrated, labels, py_method=method, converge_latent_estimates=converge)
        for method in ("cnt", "marginal", "marginal_ps")
        for converge in (False, True)
    ]
    for ours_of, theirs in zip(found, latent, strict=True):
        for a, b in zip(ours_of, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-300)
    for a, b in zip(noise_matrices.estimate_py_and_noise_matrices_from_probabilities(labels, p), matrices, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-300)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([1.0, 1.0, 0.5, 0.0]), st.sampled_from([1, 1, 0, 5]))
def test_filters_equal_cleanlab(
    ties_in_row_order: Ties, noisy_labels: Noisy, problem: Any, frac_noise: float, least: int
) -> None:
    labels, p = noisy_labels(**problem)
    labels[:2] = [0, 1]  # cleanlab refuses labels of one class
    for filter_by in FILTERS:
        settings_of: dict[str, Any] = {"filter_by": filter_by}
        if filter_by in PRUNING:
            settings_of |= {"frac_noise": frac_noise, "min_examples_per_class": least}
        with ties_in_row_order():
            expected = cleanlab.filter.find_label_issues(labels, p, n_jobs=1, **settings_of)
            ranked = {
                score: cleanlab.filter.find_label_issues(
                    labels, p, n_jobs=1, return_indices_ranked_by=score, **settings_of
                )
                for score in SCORES
            }
        with pytest.warns() if _is_warned(labels, settings_of) else _silence():
            found = pycurate.find_label_issues(labels, p, **settings_of)
            np.testing.assert_array_equal(found, expected)
            for score, rows in ranked.items():
                ours = pycurate.find_label_issues(labels, p, return_indices_ranked_by=score, **settings_of)
                if score == "confidence_weighted_entropy":  # a score may differ in its last digit, and so near ties
                    assert sorted(ours) == sorted(rows)
                    scores = cleanlab.rank.get_label_quality_scores(labels, p, method=score)
                    np.testing.assert_allclose(scores[ours], scores[rows], rtol=1e-12)
                else:
                    np.testing.assert_array_equal(ours, rows)


def _is_warned(labels: NDArray[np.int64], settings_of: dict[str, Any]) -> bool:
    counts = np.bincount(labels)
    least = settings_of.get("min_examples_per_class", 1)
    return settings_of["filter_by"] in PRUNING and bool(((counts > 0) & (counts <= least)).any())


def _silence() -> Any:
    return contextlib.nullcontext()


@settings(max_examples=40, deadline=None)
@given(problems())
def test_given_joints_and_numbers_to_remove_equal_cleanlab(
    ties_in_row_order: Ties, noisy_labels: Noisy, problem: Any
) -> None:
    labels, p = noisy_labels(**problem)
    k = p.shape[1]
    given_joint = np.random.default_rng(len(labels)).integers(0, 6, (k, k)) + 5 * np.eye(k, dtype=int)
    labels = np.concatenate([labels, np.repeat(np.arange(k), 2)])
    p = np.concatenate([p, np.full((2 * k, k), 1 / k)])
    remove = np.random.default_rng(k).integers(0, 2, k)
    for filter_by in PRUNING:
        with ties_in_row_order():
            by_joint = cleanlab.filter.find_label_issues(
                labels, p, n_jobs=1, filter_by=filter_by, confident_joint=given_joint
            )
            removed = cleanlab.filter.find_label_issues(
                labels, p, n_jobs=1, filter_by=filter_by, confident_joint=given_joint,
                num_to_remove_per_class=list(remove),
            )  # fmt: skip
        ours = pycurate.find_label_issues(labels, p, filter_by=filter_by, confident_joint=given_joint)
        np.testing.assert_array_equal(ours, by_joint)
        ours = pycurate.find_label_issues(
            labels, p, filter_by=filter_by, confident_joint=given_joint, num_to_remove_per_class=list(remove)
        )
        np.testing.assert_array_equal(ours, removed)
    with ties_in_row_order():
        count = cleanlab.count.num_label_issues(
            labels, p, confident_joint=given_joint, estimation_method="off_diagonal_custom"
        )
        by_confusion = cleanlab.filter.find_label_issues_using_argmax_confusion_matrix(labels, p)
    assert count == pycurate.num_label_issues(
        labels, p, confident_joint=given_joint, estimation_method="off_diagonal_custom"
    )
    ours = label_issues.find_label_issues_using_argmax_confusion_matrix(labels, p)
    np.testing.assert_array_equal(ours, by_confusion)


@settings(max_examples=40, deadline=None)
@given(problems())
def test_scores_equal_cleanlab(ties_in_row_order: Ties, noisy_labels: Noisy, problem: Any) -> None:
    labels, p = noisy_labels(**problem)
    labels[:2] = [0, 1]  # cleanlab refuses labels of one class
    for method in SCORES:
        with ties_in_row_order():
            expected = cleanlab.rank.get_label_quality_scores(labels, p, method=method)
        ours = pycurate.get_label_quality_scores(labels, p, method=method)
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-300)
        if method == "confidence_weighted_entropy":
            continue
        np.testing.assert_array_equal(ours, expected)
        with ties_in_row_order():
            adjusted = cleanlab.rank.get_label_quality_scores(labels, p, method=method, adjust_pred_probs=True)
            order = cleanlab.rank.order_label_issues(labels > 0, labels, p, rank_by=method)
            ensemble = {
                weights: cleanlab.rank.get_label_quality_ensemble_scores(
                    labels, [p, p[:, ::-1]], method=method, weight_ensemble_members_by=weights, verbose=False
                )
                for weights in ("uniform", "accuracy")
            }
        np.testing.assert_allclose(
            pycurate.get_label_quality_scores(labels, p, method=method, adjust_pred_probs=True), adjusted, rtol=1e-12
        )
        np.testing.assert_array_equal(label_quality.order_label_issues(labels > 0, labels, p, rank_by=method), order)
        if ((p.argmax(1) == labels) | (p[:, ::-1].argmax(1) == labels)).any():
            for weights, theirs in ensemble.items():
                made = label_quality.get_label_quality_ensemble_scores(
                    labels, [p, p[:, ::-1]], method=method, weight_ensemble_members_by=weights
                )
                np.testing.assert_allclose(made, theirs, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("filter_by", FILTERS)
def test_narrow_floats_equal_cleanlab_on_the_same_numbers_as_float64(
    ties_in_row_order: Ties, noisy_labels: Noisy, filter_by: Any, dtype: str
) -> None:
    labels, wide = noisy_labels(3000, 20, 1)
    p = wide.astype(dtype)
    with ties_in_row_order():
        expected = cleanlab.filter.find_label_issues(labels, p.astype(np.float64), filter_by=filter_by, n_jobs=1)
    assert expected.any()
    np.testing.assert_array_equal(pycurate.find_label_issues(labels, p, filter_by=filter_by), expected)


def judged(data: Path, name: str, prefix: str) -> tuple[NDArray[Any], NDArray[np.float64], set[int]]:
    """Labels, probabilities and the rows that people judged."""
    folder = data / f"label_errors_{name}"
    p = np.load(folder / f"{name}_test_set_pyx.npy")
    labels = np.load(folder / f"{name}_test_set_original_labels.npy")
    verdicts = json.loads((folder / f"{name}_mturk.json").read_text())
    if name == "mnist":
        return labels, p, {int(verdict["id"]) for verdict in verdicts}
    place = {
        path: i for i, path in enumerate(json.loads((folder / f"{name}_test_set_index_to_filename.json").read_text()))
    }
    return labels, p, {place[verdict["id"].removeprefix("test/") + ".txt"] for verdict in verdicts}


@pytest.mark.parametrize("filter_by", FILTERS)
def test_mnist_equals_cleanlab(shared_data: Path, filter_by: Any) -> None:
    labels, p, rows = judged(shared_data, "mnist", "mnist")
    margins = pycurate.get_label_quality_scores(labels, p, method="normalized_margin")
    assert set(label_quality.find_top_issues(margins, top=len(rows)).tolist()) == rows
    assert len(rows) == 100
    counted = pycurate.compute_confident_joint(labels, p, calibrate=False)
    assert counted.sum() - np.trace(counted) == 15
    np.testing.assert_array_equal(
        pycurate.compute_confident_joint(labels, p), cleanlab.count.compute_confident_joint(labels, p)
    )
    expected = cleanlab.filter.find_label_issues(labels, p, filter_by=filter_by, n_jobs=1)
    np.testing.assert_array_equal(pycurate.find_label_issues(labels, p, filter_by=filter_by), expected)


@pytest.mark.parametrize("filter_by", FILTERS)
def test_imdb_equals_cleanlab_and_is_not_refused_for_1e_5(
    ties_in_row_order: Ties, shared_data: Path, filter_by: Any
) -> None:
    labels, p, rows = judged(shared_data, "imdb", "imdb")
    with pytest.warns(UserWarning, match=r"rows hold probabilities beyond \[0, 1\] by up to 0.001"):
        margins = pycurate.get_label_quality_scores(labels, p, method="normalized_margin")
    assert set(label_quality.find_top_issues(margins, top=len(rows)).tolist()) == rows
    assert len(rows) == 1310
    inside = np.clip(p, 0, 1)  # cleanlab refuses anything beyond 1e-6
    joint_of = cleanlab.count.compute_confident_joint(labels, inside)
    np.testing.assert_array_equal(pycurate.compute_confident_joint(labels, inside), joint_of)
    with ties_in_row_order():
        expected = cleanlab.filter.find_label_issues(labels, inside, filter_by=filter_by, n_jobs=1)
    np.testing.assert_array_equal(pycurate.find_label_issues(labels, inside, filter_by=filter_by), expected)


@pytest.mark.parametrize("filter_by", FILTERS)
def test_shards_memory_maps_threads_and_instruction_sets_change_nothing(
    noisy_labels: Noisy, tmp_path: Path, isa: Any, filter_by: Any
) -> None:
    labels, wide = noisy_labels(2500, 12, 5)
    p = wide.astype(np.float32)
    np.save(tmp_path / "p.npy", p)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    cuts = np.split(p, [1, 700, 701, 2499])
    expected = pycurate.find_label_issues(labels, p, filter_by=filter_by, n_jobs=1)
    for other in (mapped, cuts, lambda: iter(cuts), np.asfortranarray(p), p[::-1][::-1]):
        for threads in (1, 3):
            found = pycurate.find_label_issues(labels, other, filter_by=filter_by, n_jobs=threads)
            np.testing.assert_array_equal(found, expected)
    blocks = probability_blocks(p, labels)
    small = confident_learning.ProbabilityBlocks(p, blocks.labels, 12, bytes_at_once=100)
    a, b = (confident_learning.class_thresholds(part) for part in (blocks, small))
    assert a.tobytes() == b.tobytes()
    for method in SCORES:
        scores = [
            label_quality.quality_scores(part, method, threads=threads) for part, threads in ((blocks, 1), (small, 3))
        ]
        assert scores[0].tobytes() == scores[1].tobytes()


def top_of(labels: NDArray[np.int64], p: NDArray[Any], kept: int) -> TopProbabilities:
    order = np.argsort(-p, axis=1, kind="stable")[:, :kept]
    return TopProbabilities(order, np.take_along_axis(p, order, 1), p[np.arange(len(p)), labels], p.shape[1])


def test_top_probabilities(noisy_labels: Noisy) -> None:
    labels, p = noisy_labels(2000, 30, 2, sharp=12.0)
    top = top_of(labels, p, 6)
    blocks = probability_blocks(top, labels)
    thresholds = confident_learning.class_thresholds(blocks)
    assert confident_learning.scan_rows(blocks, thresholds).rows_in_doubt == 0
    for filter_by in FILTERS:
        if filter_by in PRUNING:
            continue
        found = pycurate.find_label_issues(labels, top, filter_by=filter_by)
        np.testing.assert_array_equal(found, pycurate.find_label_issues(labels, p, filter_by=filter_by))
    expected = pycurate.compute_confident_joint(labels, p)
    np.testing.assert_array_equal(pycurate.compute_confident_joint(labels, top), expected)
    for kept in (2, 6):
        for method in ("self_confidence", "normalized_margin"):
            np.testing.assert_array_equal(
                pycurate.get_label_quality_scores(labels, top_of(labels, p, kept), method=method),
                pycurate.get_label_quality_scores(labels, p, method=method),
            )
    labels, p = noisy_labels(2000, 30, 2)  # flat rows: many second classes reach the lowest threshold
    thresholds = pycurate.get_confident_thresholds(labels, p)
    narrow = top_of(labels, p, 2)
    doubtful = int((narrow.probabilities[:, -1] >= thresholds.min() - 1e-6).sum())
    assert doubtful > 0
    with pytest.warns(UserWarning, match=f"in {doubtful} rows a class that was not kept may reach its threshold"):
        pycurate.compute_confident_joint(labels, narrow)


def test_wrong_top_probabilities_are_refused(noisy_labels: Noisy) -> None:
    top = top_of(*noisy_labels(20, 30, 2), 4)
    with pytest.raises(InputError, match="expected shapes"):
        TopProbabilities(top.classes, top.probabilities[:, :3], top.self_probability, 30)
    with pytest.raises(InputError, match="less than num_classes = 3"):
        TopProbabilities(top.classes, top.probabilities, top.self_probability, 3)
    with pytest.raises(InputError, match="expected integers and float16"):
        TopProbabilities(top.probabilities, top.probabilities, top.self_probability, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "expected the same length, got 4 rows and 2 labels"),
        ({"labels": [0, 1, 3, 0]}, "expected class ids from 0 to 2, the columns of pred_probs, got 3 in row 2"),
        ({"labels": [0, 1, -1, 0]}, "got -1 in row 2; take rows without a label away first"),
        ({"labels": ["a", "b", "a", "b"]}, "labels: expected one class id a row"),
        ({"labels": [[0], [1], [2], [0]]}, "labels: expected one class id a row, a 1-D array of integers, got 2-D"),
        ({"pred_probs": np.ones(4)}, r"pred_probs: expected a 2-D array \(n, K\), got 1-D"),
        ({"pred_probs": np.ones((4, 3), int)}, "pred_probs: expected float16, float32 or float64, got dtype int64"),
        ({"pred_probs": np.full((4, 3), np.nan)}, "row 0 holds NaN or infinity"),
        ({"pred_probs": np.array([[1.0, 0, 0]] * 3 + [[5.0, -2, -2]])}, "got 5 in row 3; logits need a softmax first"),
        ({"pred_probs": np.full((4, 3), 0.9)}, "expected rows that sum to 1, got 2.7 in row 0; divide"),
        ({"filter_by": "prune"}, "filter_by: expected prune_by_noise_rate, "),
        ({"return_indices_ranked_by": "margin"}, "method: expected self_confidence, "),
        ({"filter_by": "confident_learning", "num_to_remove_per_class": [1, 0, 0]}, "only with prune_by_noise_rate"),
        ({"num_to_remove_per_class": [1, 0]}, "num_to_remove_per_class: expected 3 numbers"),
        (
            {"confident_joint": np.eye(2)},
            r"confident_joint: expected shape \(3, 3\), given by true class, got \(2, 2\)",
        ),
    ],
)
def test_what_cannot_be_used_is_named(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"labels": [0, 1, 2, 0], "pred_probs": np.full((4, 3), 1 / 3)} | change
    with pytest.raises(InputError, match=message):
        pycurate.find_label_issues(**values, min_examples_per_class=0)


def test_joints_of_too_many_classes_are_refused_and_scores_are_not() -> None:
    p = np.zeros((2, 40_000), np.float32)
    p[:, 7] = 1
    with pytest.raises(InputError, match="expected at most 32768 classes"):
        pycurate.find_label_issues([7, 8], p)
    assert pycurate.get_label_quality_scores([7, 8], p).tolist() == [1.0, 0.0]


def test_small_things_are_warned_of(noisy_labels: Noisy) -> None:
    labels, p = noisy_labels(100, 3, 0)
    p[7] *= 1.01
    with pytest.warns(UserWarning, match=r"the sums of 1 rows are off 1 by more than 0.001, such as 1.01 in row 7"):
        pycurate.find_label_issues(labels, p)
    with pytest.warns(UserWarning, match="frac_noise: not used by"):
        pycurate.find_label_issues(labels, p / p.sum(1, keepdims=True), filter_by="confident_learning", frac_noise=0.5)


@pytest.mark.parametrize("filter_by", FILTERS)
def test_no_rows_one_row_one_class(filter_by: Any) -> None:
    assert pycurate.find_label_issues([], np.empty((0, 3)), filter_by=filter_by).tolist() == []
    assert pycurate.find_label_issues(np.zeros(5, int), np.ones((5, 1)), filter_by=filter_by).tolist() == [False] * 5
    with pytest.warns() if filter_by in PRUNING else _silence():
        assert pycurate.find_label_issues([1], np.array([[0.4, 0.6]]), filter_by=filter_by).tolist() == [False]


def test_what_cannot_be_iterated_twice_is_refused(noisy_labels: Noisy) -> None:
    labels, p = noisy_labels(10, 3, 0)
    with pytest.raises(InputError, match="expected 10 rows, one for each label, got 6"):
        pycurate.find_label_issues(labels, lambda: iter([p[:6]]))
    with pytest.raises(InputError, match="one for each label, got more"):
        pycurate.find_label_issues(labels, lambda: iter([p, p]))


def test_memory_is_a_few_numbers_a_row_and_three_joints(tmp_path: Path, noisy_labels: Noisy) -> None:
    import tracemalloc

    labels, p = noisy_labels(40_000, 100, 0)
    np.save(tmp_path / "p.npy", p.astype(np.float32))
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    pycurate.find_label_issues(labels, mapped)
    tracemalloc.start()
    pycurate.find_label_issues(labels, mapped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 25 bytes a row are kept, 48 a row of a block of 16 MB come and go, a joint is 80 kB; probabilities are 16 MB.
    assert peak < 40_000 * (25 + 48 + 24) + 8 * 80_000
