"""The settings of label propagation, their published values, and what goes together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pycurate.errors import InputError

Method: TypeAlias = Literal["spread", "harmonic", "vote"]
Solver: TypeAlias = Literal["power", "chebyshev", "cg"]
Balance: TypeAlias = Literal["none", "seeds", "mass"]
Weight: TypeAlias = float | Literal["binary", "exp"] | Callable[[NDArray[np.float32]], NDArray[Any]]

METHODS, SOLVERS, BALANCES = ("spread", "harmonic", "vote"), ("power", "chebyshev", "cg"), ("none", "seeds", "mass")


@dataclass(frozen=True, slots=True)
class PropagationSettings:
    """How labels spread. The defaults are those of `propagate_labels`.

    Attributes
    ----------
    method
        ``"spread"``: F = alpha S F + (1 - alpha) Y with S = D^-1/2 W D^-1/2 (Zhou et al., 2003), D the sums of the
        columns of W. ``"harmonic"``: seeds keep their labels, every other row is the weighted mean of its neighbours
        (Zhu et al., 2003). ``"vote"``: the weighted labels of the neighbours that are seeds, one step.
    solver
        ``"cg"``: conjugate gradients, class by class, which take the fewest sweeps; for symmetric graphs, in memory,
        float32. ``"chebyshev"``: semi-iteration over the spectrum [-alpha, alpha] that a symmetric S may have; some
        1 / sqrt(1 - alpha) times fewer sweeps than ``power`` where labels must go far. ``"power"``: sweep after sweep,
        for any graph and for ``top``; the quickest to write down, and where all is near by.
    alpha
        Of ``spread``, from 0 to below 1: the share of a row's value that comes from its neighbours.
    top
        How many labels a row keeps after every sweep; None keeps all.
    weight
        What an edge of similarity s weighs: a number p means s^p, ``"binary"`` 1, ``"exp"`` e^s, which is for squared
        distances with a minus, as l2 graphs hold them; a function is asked for the weights of (e,) float32
        similarities.
    symmetrize
        Weights of both directions are added, W + Wᵀ; False takes the directed graph as it is.
    balance
        ``"seeds"``: the seeds of a class weigh 1 together (Iscen et al., 2019). ``"mass"``: the values of a class are
        scaled at the end so that its total is its share of the seeds, or of ``prior`` (class mass normalisation, Zhu
        et al., 2003).
    sweeps, tol
        At most so many sweeps; fewer when the sum of \\|alpha S F + (1 - alpha) Y - F\\| is at most ``tol`` of that of
        what is added, (1 - alpha) Y.
    dtype
        Of dense values: ``"float32"`` or ``"float64"``.
    """

    method: Method = "spread"
    solver: Solver = "cg"
    alpha: float = 0.9
    top: int | None = None
    weight: Weight = 1.0
    symmetrize: bool = True
    balance: Balance = "none"
    sweeps: int = 200
    tol: float = 1e-3
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        for name, options in (("method", METHODS), ("solver", SOLVERS), ("balance", BALANCES)):
            if getattr(self, name) not in options:
                raise InputError(f"{name}: expected one of {', '.join(options)}, got {getattr(self, name)!r}")
        if self.dtype not in ("float32", "float64"):
            raise InputError(f"dtype: expected 'float32' or 'float64', got {self.dtype!r}")
        if not 0 <= self.alpha < 1:
            raise InputError(f"alpha: expected a number from 0 to below 1, got {self.alpha}")
        if self.sweeps < 1 or not self.tol >= 0:
            raise InputError(
                f"sweeps, tol: expected at least 1 and a number from 0 on, got {self.sweeps} and {self.tol}"
            )
        if self.top is not None and self.top < 1:
            raise InputError(f"top: expected None or at least 1, got {self.top}")
        if not callable(self.weight) and self.weight not in ("binary", "exp") and not _is_power(self.weight):
            raise InputError(f"weight: expected a power above 0, 'binary', 'exp' or a function, got {self.weight!r}")
        self._check_what_goes_together()

    def _check_what_goes_together(self) -> None:
        if self.top is not None and (self.solver != "power" or self.dtype != "float32"):
            raise InputError(
                "top: rows that keep their largest values take solver='power' and dtype='float32', got "
                f"{self.solver!r} and {self.dtype!r}: other solvers pass through values that must not be cut off"
            )
        if self.solver == "chebyshev" and self.method == "harmonic":
            raise InputError(
                "solver: 'chebyshev' needs the spectrum, which is known for 'spread' only; take 'cg' or 'power'"
            )
        if self.solver == "cg" and self.dtype != "float32":
            raise InputError("dtype: solver='cg' works in float32; take 'power' or 'chebyshev' for float64")
        if self.solver == "cg" and not self.symmetrize and self.method == "harmonic":
            raise InputError("solver: 'cg' for 'harmonic' needs symmetrize=True; take 'power' for a directed graph")


PRESETS: dict[str, dict[str, Any]] = {
    # Zhou, Bousquet, Lal, Weston, Schoelkopf: Learning with local and global consistency (2003), section 3: 0.99.
    "zhou": {"method": "spread", "solver": "chebyshev", "alpha": 0.99, "weight": 1.0, "symmetrize": True},
    # Iscen, Tolias, Avrithis, Chum: Label propagation for deep semi-supervised learning (2019): gamma = 3, alpha =
    # 0.99, conjugate gradients, of which the published code takes 20; seeds of a class weigh 1 together.
    "iscen": {
        "method": "spread",
        "solver": "cg",
        "alpha": 0.99,
        "weight": 3.0,
        "symmetrize": True,
        "balance": "seeds",
        "sweeps": 20,
        "tol": 1e-6,
    },
    # scikit-learn's LabelSpreading(kernel="knn") with its defaults; its tolerance is absolute: see KnnLabelSpreading.
    "sklearn": {
        "method": "spread",
        "solver": "power",
        "alpha": 0.2,
        "weight": "binary",
        "symmetrize": False,
        "sweeps": 30,
        "dtype": "float64",
    },
}


def settings_of(preset: str | None, given: dict[str, Any], *, in_folder: bool = False) -> PropagationSettings:
    """The settings of a preset with those that are given in their place; None is not given.

    A solver that is not given is one that goes with the rest: ``power`` with ``top``, for ``vote`` and for a directed
    graph, ``chebyshev`` in a folder or for float64, where ``harmonic`` takes ``power``, and else ``cg``.
    """
    if preset is not None and preset not in PRESETS:
        raise InputError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    values = {
        **(PRESETS[preset] if preset else {}),
        **{name: value for name, value in given.items() if value is not None},
    }
    method, directed = values.get("method", "spread"), values.get("symmetrize") is False
    if given.get("solver") is None and (preset is None or given.get("method") or given.get("top")):
        if method == "vote" or values.get("top") is not None or directed:
            values["solver"] = "power"
        elif in_folder or values.get("dtype") == "float64":
            values["solver"] = "power" if method == "harmonic" else "chebyshev"
        else:
            values["solver"] = "cg"
    if values.get("method") == "vote":
        values.setdefault("symmetrize", False)
    names = {field.name for field in dataclasses.fields(PropagationSettings)}
    assert values.keys() <= names
    return PropagationSettings(**values)


def _is_power(weight: object) -> bool:
    return isinstance(weight, int | float | np.number) and 0 < float(weight) < float("inf")
