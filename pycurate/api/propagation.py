"""``propagate_labels``: few labels over many rows, along a graph of neighbours, in memory or in a folder."""

from __future__ import annotations

import os
from typing import Any, Literal

from pycurate.api.propagation_folder import propagate_in_folder
from pycurate.engine.memory import default_memory_bytes
from pycurate.kernels.sweeps import gpu_of
from pycurate.ops.labels.propagation import checked_seeds, propagate
from pycurate.ops.labels.propagation_matrix import graph_of
from pycurate.ops.labels.propagation_result import Propagation, checked_prior
from pycurate.ops.labels.propagation_settings import Balance, Method, Solver, Weight, settings_of
from pycurate.ops.labels.propagation_solvers import Told


def propagate_labels(
    graph: Any,
    labels: Any,
    *,
    preset: Literal["zhou", "iscen", "sklearn"] | None = None,
    method: Method | None = None,
    solver: Solver | None = None,
    alpha: float | None = None,
    top: int | None = None,
    classes: int | None = None,
    weight: Weight | None = None,
    symmetrize: bool | None = None,
    balance: Balance | None = None,
    prior: Any = None,
    multi_label: bool = False,
    sweeps: int | None = None,
    tol: float | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    out: str | os.PathLike[str] | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    progress: Told = None,
) -> Propagation:
    """Labels of all rows from those of some, along a graph of neighbours.

    Parameters
    ----------
    graph
        A `KnnGraph` of n rows, as `pycurate.knn_graph` makes it; a square CSR array of SciPy; or (n, k) row numbers, -1
        for none, and as many similarities. Edges from a row to itself are left out and counted.
    labels
        (n,) integers, a class from 0 on or -1 for a row without a label. Or (n, C) floats, rows that sum to 1 within
        1e-3, or to 0 where nothing is known: soft labels. With ``multi_label``, (n, C) values from 0 to 1, each class
        for itself, and -1 in every column of a row of which nothing is known.
    preset
        Published settings: ``"zhou"`` (alpha 0.99), ``"iscen"`` (W = s^3, alpha 0.99, 20 steps of conjugate gradients,
        seeds weighed by class), ``"sklearn"`` (binary directed weights, alpha 0.2, 30 sweeps). The next arguments,
        where they are given, replace its own.
    method, solver, alpha, top, weight, symmetrize, balance, sweeps, tol, dtype
        See `PropagationSettings`: ``spread`` with alpha 0.9 and s^1, until a relative residual of 1e-3. A solver that
        is not given is one that goes with the rest.
    classes
        C, where some classes have no seed. Default: the largest label and 1.
    prior
        (C,) shares of the classes for ``balance="mass"``. Default: those of the seeds.
    out
        A folder to work in, for graphs and states that memory does not hold: by blocks of rows, states on disk. Killed
        at any time, the same call continues and ends with the same bytes; called again, it opens the answer.
        ``spread`` by ``chebyshev`` or ``power``, ``harmonic`` by ``power`` and ``vote``, all in float32.
    memory_bytes
        Memory cap; default half of what is allowed. Without ``out``, work that needs more, by an estimate that is an
        upper one, is refused. With it, blocks fit the cap beside 64 bytes a row; the mapped state is not counted.
    threads, device
        Default: every processor this process may run on, and no GPU; ``"cuda"``, ``"cuda:1"`` or ``"auto"``, see
        `docs/gpu.md`. The result does not depend on them.
    progress
        Called after every sweep with its number and its change.

    Returns
    -------
    Propagation
        Rows that no label reaches have label -1 and confidence 0. Labels and distributions are the same bits for every
        number of threads, instruction set and device.

    Raises
    ------
    InputError, MemoryCapError, WorkspaceError, MemoryError, KeyboardInterrupt
        An argument is not as above, it does not fit ``memory_bytes``, ``out`` or the GPU, or Ctrl-C.
    """
    given = _named(method=method, solver=solver, alpha=alpha, top=top, weight=weight, symmetrize=symmetrize)
    given |= _named(balance=balance, sweeps=sweeps, tol=tol, dtype=dtype)
    settings = settings_of(preset, given, in_folder=out is not None)
    rows = graph_of(graph)
    seeds = checked_seeds(labels, len(rows), classes, multi_label, settings)
    share = checked_prior(prior, seeds, settings)
    cap = default_memory_bytes() if memory_bytes is None else memory_bytes
    how = _named(prior=share, memory_bytes=cap, threads=threads, gpu=gpu_of(device), progress=progress)
    if out is None:
        return propagate(rows, seeds, settings, **how)
    return propagate_in_folder(out, rows, seeds, settings, **how)


def _named(**values: Any) -> dict[str, Any]:
    return values
