"""What `evaluate` wrote, read back: one cell per network, variant and evaluation set."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = Mapping[str, npt.NDArray[np.float64]]
"""A curve: column name -> ``(N,) float64``."""

KINDS = ("image", "target", "score", "classes", "segments")
"""Pictures are called ``<image id>_<kind>.png``."""


@dataclass(frozen=True)
class Cell:
    """The evaluation of one network and variant on one set.

    Attributes
    ----------
    network, variant, dataset
        The three keys.
    metrics
        ``metrics.json`` as it is; fractions in [0, 1], null where undefined.
    curves
        File stem -> columns.
    pictures
        Image id -> kind -> file, both sorted.
    """

    network: str
    variant: str
    dataset: str
    metrics: Mapping[str, Any]
    curves: Mapping[str, Columns] = field(default_factory=dict)
    pictures: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)

    def value(self, *names: str) -> float | None:
        """Return the metric below the nested keys `names`, None if absent, null or not finite.

        Examples
        --------
        >>> cell = Cell("n", "baseline", "d", {"auroc": 0.9, "scores": {"energy": {"auroc": None}}})
        >>> cell.value("auroc"), cell.value("scores", "energy", "auroc"), cell.value("fpr95")
        (0.9, None, None)
        """
        found: Any = self.metrics
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return float(found) if math.isfinite(found) else None

    def section(self, *names: str) -> Mapping[str, Any]:
        """Return the mapping below the nested keys `names`, empty if there is none."""
        found: Any = self.metrics
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def interval(self, name: str) -> tuple[float, float] | None:
        """Return the confidence interval ``(low, high)`` of a headline metric, None if unknown.

        Examples
        --------
        >>> Cell("n", "v", "d", {"intervals": {"auroc": [0.8, 0.9]}}).interval("auroc")
        (0.8, 0.9)
        """
        ends = self.section("intervals").get(name)
        if isinstance(ends, Sequence) and len(ends) == 2 and None not in ends:
            return float(ends[0]), float(ends[1])
        return None


@dataclass(frozen=True)
class Results:
    """All cells that params.yaml asks for, in its order, and the keys of those not found."""

    networks: tuple[str, ...]
    variants: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: Mapping[tuple[str, str, str], Cell]

    @property
    def missing(self) -> list[tuple[str, str, str]]:
        """The ``(network, variant, dataset)`` without result."""
        return [
            (network, variant, dataset)
            for dataset in self.datasets
            for network in self.networks
            for variant in self.variants
            if (network, variant, dataset) not in self.cells
        ]

    @property
    def ordered(self) -> list[Cell]:
        """The cells by dataset, network and variant, so that variants stand one below another."""
        return [
            self.cells[network, variant, dataset]
            for dataset in self.datasets
            for network in self.networks
            for variant in self.variants
            if (network, variant, dataset) in self.cells
        ]

    def pair(self, network: str, dataset: str) -> tuple[Cell, Cell] | None:
        """Return baseline and OoD-trained cell, None unless both are there."""
        before = self.cells.get((network, "baseline", dataset))
        after = self.cells.get((network, "ood_trained", dataset))
        return (before, after) if before and after else None

    @property
    def pairs(self) -> list[tuple[Cell, Cell]]:
        """All ``(baseline, ood_trained)`` pairs, by dataset and network."""
        found = (self.pair(n, d) for d in self.datasets for n in self.networks)
        return [pair for pair in found if pair is not None]


def read_results(
    evaluation: Path, networks: Sequence[str], variants: Sequence[str], datasets: Sequence[str]
) -> Results:
    """Read ``evaluation/<network>/<variant>/<dataset>/{metrics.json, curves, pictures}``.

    Cells without ``metrics.json`` are missing from the result, not an error.

    Raises
    ------
    ValueError
        If a file cannot be understood; it is named.
    """
    cells = {}
    for network in networks:
        for variant in variants:
            for dataset in datasets:
                folder = evaluation / network / variant / dataset
                if (folder / "metrics.json").is_file():
                    cells[network, variant, dataset] = Cell(
                        network,
                        variant,
                        dataset,
                        _metrics(folder / "metrics.json"),
                        {p.stem: _columns(p) for p in sorted(folder.glob("curves/*.csv"))},
                        _pictures(folder / "pictures"),
                    )
    return Results(tuple(networks), tuple(variants), tuple(datasets), cells)


def _metrics(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected an object, got {type(values).__name__}")
    return values


def _columns(path: Path) -> Columns:
    """Read a CSV file with a header; a column that is not all numbers is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    columns = {}
    for index, name in enumerate(header):
        try:
            columns[name] = np.array([float(row[index] or "nan") for row in rows], np.float64)
        except ValueError:
            continue
        except IndexError:
            raise ValueError(f"{path}: a row has fewer than {len(header)} columns") from None
    return columns


def _pictures(folder: Path) -> Mapping[str, Mapping[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        image_id, _, kind = path.stem.rpartition("_")
        if image_id and kind in KINDS:
            found.setdefault(image_id, {})[kind] = path
    return found
