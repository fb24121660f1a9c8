"""`KnnLabelSpreading`: label spreading with the face of a scikit-learn estimator, which needs no scikit-learn."""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError
from pycurate.index.graph import KnnGraph
from pycurate.index.graph_build import knn_graph
from pycurate.kernels.fused_similarity import nearest
from pycurate.kernels.sweeps import gpu_of
from pycurate.ops.labels.propagation import checked_seeds, solve
from pycurate.ops.labels.propagation_matrix import edge_weights, graph_of
from pycurate.ops.labels.propagation_settings import Solver, Weight, settings_of
from pycurate.ops.labels.propagation_solvers import Problem

_BLOCK_VALUES = 1 << 21


class KnnLabelSpreading:
    """Label spreading on the exact graph of nearest neighbours.

    With the defaults it is scikit-learn's ``LabelSpreading(kernel="knn")`` in float64: binary directed weights,
    normalised by in-degrees, alpha 0.2, 30 sweeps. Rows that no label reaches get -1, where scikit-learn gives them the
    first class.

    Parameters
    ----------
    n_neighbors
        Neighbours of a row, itself counted as scikit-learn counts it: 7 are the 6 nearest others.
    alpha
        From 0 to below 1: the share of a row's value that comes from its neighbours.
    max_iter, tol
        At most so many sweeps; they end when the sum of the changes of all values is below ``tol``, which is not
        relative.
    metric
        ``"l2"``, ``"cosine"``, ``"inner_product"``, or ``"precomputed"``: X is a graph.
    weight, symmetrize, balance, solver
        As in `pycurate.propagate_labels`; what reaches farther than the defaults is weight=3.0 with metric="cosine",
        symmetrize=True, alpha=0.9, solver="chebyshev".
    threads
        Default: every processor this process may run on.
    device
        Where sweeps run and nearest rows are found: ``"cpu"``, also None; ``"cuda"``, ``"cuda:1"`` or ``"auto"``, a GPU
        where one can be used.

    Attributes
    ----------
    classes_
        (C,) the labels in ``y``, sorted, without -1.
    label_distributions_
        (n, C) float64 rows that sum to 1, or to 0 where no label came.
    transduction_
        (n,) label of each row of X; -1 where no label came.
    n_iter_
        Sweeps.
    n_features_in_
        d; not for a precomputed graph.
    X_
        X as float32, or the graph.
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        n_neighbors: int = 7,
        *,
        alpha: float = 0.2,
        max_iter: int = 30,
        tol: float = 1e-3,
        metric: Literal["l2", "cosine", "inner_product", "precomputed"] = "l2",
        weight: Weight = "binary",
        symmetrize: bool = False,
        balance: Literal["none", "seeds"] = "none",
        solver: Solver = "power",
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.metric = metric
        self.weight = weight
        self.symmetrize = symmetrize
        self.balance = balance
        self.solver = solver
        self.threads = threads
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        """Spread the labels of ``y`` over all rows.

        Parameters
        ----------
        X
            (n, d) numbers, taken as float32; int8 and half types as they are. With metric="precomputed" a graph as
            `pycurate.propagate_labels` takes it.
        y
            (n,) labels, -1 for a row without one; numbers, or an object array of names and -1.
        """
        gpu = gpu_of(self.device)
        graph, rows = self._graph(X)
        given = np.asarray(y)
        if given.shape != (len(graph),):
            raise InputError(f"y: expected ({len(graph)},) labels, one a row of X, got shape {given.shape}")
        known = np.array([label != -1 for label in given.tolist()], np.bool_)
        if not known.any():
            raise InputError("y: no row has a label; -1 is an unlabelled row")
        classes, numbers = np.unique(given[known], return_inverse=True)
        labels = np.full(len(graph), -1, np.int64)
        labels[known] = numbers
        settings = settings_of(
            None,
            {
                "method": "spread",
                "solver": self.solver,
                "alpha": self.alpha,
                "weight": self.weight,
                "symmetrize": self.symmetrize,
                "balance": self.balance,
                "sweeps": self.max_iter,
                "dtype": "float32" if self.solver == "cg" else "float64",
            },
        )
        if self.balance not in ("none", "seeds"):
            raise InputError(f"balance: expected 'none' or 'seeds', got {self.balance!r}")
        seeds = checked_seeds(labels, len(graph), None, False, settings)
        below = float(np.nextafter(self.tol, -1))  # scikit-learn asks for less than tol
        solved = solve(graph, Problem.of(settings, seeds), limit=below, threads=self.threads, gpu=gpu)
        if not solved.converged:
            warnings.warn(
                f"max_iter={self.max_iter} sweeps ended with a change not below tol={self.tol}; raise one of them",
                UserWarning,
                stacklevel=2,
            )
        values = np.maximum(solved.state[:, : len(classes)].astype(np.float64, copy=False), 0)
        sums = values.sum(axis=1)
        self.X_ = rows if rows is not None else graph
        self.classes_: NDArray[Any] = classes
        self.label_distributions_: NDArray[np.float64] = values / np.where(sums > 0, sums, 1)[:, None]
        self.transduction_ = _named(np.where(sums > 0, values.argmax(axis=1), -1), classes)
        self.n_iter_ = len(solved.changes)
        if rows is not None:
            self.n_features_in_ = rows.shape[1]
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(m, C) distributions of other rows: the weighted mean of those of their nearest rows of the fit.

        With metric="precomputed" X is a CSR array (m, n) or (m, k) row numbers and similarities. A row whose nearest
        rows no label reached gets zeros.
        """
        self._check_fitted()
        indptr, indices, similarities = self._neighbors_of(X)
        weights = edge_weights(similarities, self.weight).astype(np.float64)
        classes = len(self.classes_)
        sums = np.zeros((len(indptr) - 1, classes))
        step = max(1, _BLOCK_VALUES // (classes * max(1, self.n_neighbors)))
        for first in range(0, len(sums), step):
            last = min(first + step, len(sums))
            edges = slice(int(indptr[first]), int(indptr[last]))
            row = np.repeat(np.arange(first, last), np.diff(indptr[first : last + 1]).astype(np.int64))
            np.add.at(sums, row, weights[edges, None] * self.label_distributions_[indices[edges].astype(np.int64)])
        total = sums.sum(axis=1)
        return sums / np.where(total > 0, total, 1)[:, None]

    def predict(self, X: Any) -> NDArray[Any]:
        """(m,) most likely label of other rows; -1 for a row whose nearest rows no label reached."""
        shares = self.predict_proba(X)
        return _named(np.where(shares.any(axis=1), shares.argmax(axis=1), -1), self.classes_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of rows whose predicted label is that of ``y``."""
        return float(np.average(self.predict(X) == np.asarray(y), weights=sample_weight))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the constructor."""
        return {name: getattr(self, name) for name in _parameters()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the constructor."""
        for name, value in params.items():
            if name not in _parameters():
                raise ValueError(f"{name}: expected one of {', '.join(_parameters())}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        given = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default and value != defaults[name].default
        ]
        return f"KnnLabelSpreading({', '.join(given)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "label_distributions_")

    def __sklearn_tags__(self) -> Any:
        """Asked for by scikit-learn only, which is then loaded."""
        utils = importlib.import_module("sklearn.utils")
        return utils.Tags(
            estimator_type="classifier",
            target_tags=utils.TargetTags(required=True),
            transformer_tags=None,
            classifier_tags=utils.ClassifierTags(),
            regressor_tags=None,
            input_tags=utils.InputTags(pairwise=self.metric == "precomputed"),
        )

    # -- neighbours ----------------------------------------------------------------------------------------------

    def _graph(self, x: Any) -> tuple[KnnGraph, NDArray[Any] | None]:
        if self.metric == "precomputed":
            return graph_of(x), None
        if self.metric not in ("l2", "cosine", "inner_product"):
            raise InputError(f"metric: expected l2, cosine, inner_product or precomputed, got {self.metric!r}")
        rows = _rows(x)
        if self.n_neighbors < 2:
            raise InputError(f"n_neighbors: expected at least 2, a row and its nearest other, got {self.n_neighbors}")
        return knn_graph(rows, self.n_neighbors - 1, metric=self.metric, threads=self.threads, device=self.device), rows

    def _neighbors_of(self, x: Any) -> tuple[NDArray[np.uint64], NDArray[Any], NDArray[Any]]:
        if self.metric == "precomputed":
            if isinstance(x, tuple):
                given = graph_of(x)
                found = given.indptr, given.indices, given.weights
            else:
                if not all(hasattr(x, name) for name in ("indptr", "indices", "data")):
                    raise InputError(
                        f"X: expected a CSR array (m, n) or (indices, similarities), got {type(x).__name__}"
                    )
                found = np.asarray(x.indptr).astype(np.uint64), np.asarray(x.indices), np.asarray(x.data, np.float32)
            if len(found[1]) and not 0 <= int(found[1].min()) <= int(found[1].max()) < len(self.label_distributions_):
                raise InputError(f"X: expected row numbers of the fit, 0 to {len(self.label_distributions_) - 1}")
            return found
        assert isinstance(self.X_, np.ndarray)
        rows = _rows(x)
        if rows.shape[1] != self.X_.shape[1]:
            raise InputError(f"X: expected {self.X_.shape[1]} columns as in the fit, got {rows.shape[1]}")
        near = nearest(
            rows, min(self.n_neighbors, len(self.X_)), self.X_, self.metric, threads=self.threads, device=self.device
        )
        there = near.indices >= 0
        indptr = np.concatenate([np.zeros(1, np.uint64), np.cumsum(there.sum(axis=1), dtype=np.uint64)])
        return indptr, near.indices[there], near.similarities[there]

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise InputError("KnnLabelSpreading: not fitted yet; call fit(X, y) first")


def _parameters() -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(KnnLabelSpreading.__init__).parameters if name != "self")


def _rows(x: Any) -> NDArray[Any]:
    array = np.asarray(x)
    if array.ndim != 2 or array.dtype.kind not in "iufb":
        raise InputError(f"X: expected (n, d) numbers, got shape {array.shape} of {array.dtype}")
    return np.ascontiguousarray(array if array.dtype in (np.float16, np.int8) else array.astype(np.float32, copy=False))


def _named(labels: NDArray[np.int64], classes: NDArray[Any]) -> NDArray[Any]:
    """Classes by number; -1 stays, in an array of objects where classes are no numbers."""
    if classes.dtype.kind in "if":
        named = classes[np.maximum(labels, 0)]
        named[labels < 0] = -1
        return named
    if (labels >= 0).all():
        return classes[labels]
    found = classes[np.maximum(labels, 0)].astype(object)
    found[labels < 0] = -1
    return found
