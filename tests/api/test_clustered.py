"""What ``clustered_join`` refuses, in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pycurate.api.clustered import clustered_join
from pycurate.errors import MemoryCapError


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metric": "l2"}, "metric: expected 'cosine', got 'l2'; the bound on borders is one of angles"),
        ({"probes": -1}, "probes: expected a whole number of at least 0, got -1"),
        ({"probes": "all"}, "probes: expected a whole number of at least 0, got 'all'"),
        ({"clusters": 0}, "clusters: expected a whole number of at least 1, got 0"),
        ({"clusters": 9, "sample": 8}, "sample: expected at least one row for each of 9 clusters, got 8"),
        ({"min_recall": 1.5}, "min_recall: expected None or a share from 0 to 1, got 1.5"),
    ],
)
def test_refusals(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        clustered_join(np.ones((300, 8), np.float32), tmp_path, **given)


def test_a_cap_too_small_for_training_is_refused_and_clusters_do_not_follow_it(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((20_000, 256)).astype(np.float16)
    found = clustered_join(x, tmp_path, clusters=300, memory_bytes=210 << 20)
    with pytest.raises(MemoryCapError, match=r"memory_bytes: training 300 centroids on 19,200 rows takes .* MiB more"):
        found.pairs_above(0.9)
