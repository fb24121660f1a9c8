from __future__ import annotations

import numpy as np
import pytest

from pycurate.errors import InputError
from pycurate.ops.selection.imbalance import class_imbalance
from pycurate.reference import balance as reference


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_their_definitions(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 300, random.integers(1, 40))
    labels = random.permutation(np.concatenate([np.repeat(3 * np.arange(len(sizes)), sizes), np.full(17, -1)]))
    found = class_imbalance(labels)
    p = sizes / sizes.sum()
    assert (found.rows, found.unlabelled, found.classes) == (len(labels), 17, len(sizes))
    assert found.entropy == pytest.approx(-sum(x * np.log(x) for x in p))
    assert found.effective_classes == pytest.approx(np.prod(p**-p))
    assert found.inverse_simpson == pytest.approx(1 / sum(x * x for x in p))
    assert found.gini == pytest.approx(reference.gini(sizes.tolist()))
    assert found.ratio == sizes.max() / sizes.min()
    falling = sorted(sizes.tolist(), reverse=True)
    assert sum(falling[: found.half]) >= sizes.sum() / 2 > sum(falling[: found.half - 1])
    assert found.rare + found.common + found.frequent == len(sizes)
    assert found.rare == sum(size <= 10 for size in sizes)
    assert found.frequent == sum(size > 100 for size in sizes)
    assert [rows for _, rows in found.head] == falling[:10]
    assert [rows for _, rows in found.tail] == falling[-10:]
    assert found.to_dict()["classes"] == len(sizes)


def test_equal_classes_are_even_and_one_class_is_no_imbalance() -> None:
    even = class_imbalance(np.arange(80) % 8)
    assert even.effective_classes == pytest.approx(8)
    assert (even.evenness, even.gini, even.ratio, even.half) == (pytest.approx(1), pytest.approx(0), 1, 4)
    one = class_imbalance(["dog"] * 5)
    assert (one.entropy, one.evenness, one.effective_classes, one.gini) == (0, 1, 1, 0)
    assert one.head == (("dog", 5),)


def test_no_label_at_all_is_named() -> None:
    with pytest.raises(InputError, match="labels: expected at least one row with a label, got none among 2 rows"):
        class_imbalance([-1, -1])
