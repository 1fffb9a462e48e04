"""Published figures beside our own: what is known of the same network, variant and dataset."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from meta_ood.config import DatasetParams, NetworkParams
from meta_ood.report.results import Cell, Results

MARKS = {
    "A": "the authors' own",
    "I": "an independent run",
    "T": "a table of another paper",
    "U": "a user's log",
    "": "no source",
}
"""Evidence mark -> what it stands for."""
FIGURES = {"auroc": "AUROC", "fpr95": "FPR95", "auprc": "AUPRC", "miou": "mIoU"}
"""Key in metrics.json -> title."""


@dataclass(frozen=True)
class Published:
    """One line of published figures, per cent, as they were published.

    Attributes
    ----------
    architecture, variant
        Of the network.
    sets
        ``reader:split``, one or several apart by spaces that give the same frames.
    options
        ``option=value`` of the reader that the figures hold for; empty if any.
    frames
        Number of frames of the published set.
    score, protocol
        What was evaluated and how; the protocol is empty where the source does not say.
    auroc, fpr95, auprc, miou
        Texts; ``?`` where none could be sourced, empty where there is none by nature.
    mark
        A key of :data:`MARKS`.
    source
        Where it is from, and what to beware of.
    """

    architecture: str
    variant: str
    sets: str
    options: str
    frames: int
    score: str
    protocol: str
    auroc: str
    fpr95: str
    auprc: str
    miou: str
    mark: str
    source: str

    def fits(self, network: NetworkParams, variant: str, dataset: DatasetParams) -> bool:
        """Return whether the figures are of this network, variant and dataset."""
        option, _, value = self.options.partition("=")
        return (
            (self.architecture, self.variant) == (network.architecture, variant)
            and f"{dataset.reader}:{dataset.split}" in self.sets.split()
            and str(dataset.options.get(option, value)) == value
        )


@dataclass(frozen=True)
class Comparison:
    """Our figures of one score of one cell, and the published ones.

    Attributes
    ----------
    cell
        Ours.
    score, protocol
        Of our figures; the protocol is the published one where we have it, else ``exact``.
    here
        Our figures as text, in the order of :data:`FIGURES`.
    rows
        What was published.
    remarks
        Why the two cannot be compared as they are.
    """

    cell: Cell
    score: str
    protocol: str
    here: tuple[str, ...]
    rows: tuple[Published, ...]
    remarks: tuple[str, ...]


def read_published(path: Path | None = None) -> tuple[Published, ...]:
    """Read published figures from a CSV file; without `path` those of the package.

    Raises
    ------
    ValueError
        If a line is wrong; file and line are named.
    """
    path = path or Path(__file__).with_name("published.csv")
    names = [field.name for field in fields(Published)]
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if header != names:
        raise ValueError(f"{path}: expected the header {','.join(names)}")
    rows = []
    for number, line in enumerate(lines, start=2):
        if len(line) != len(names):
            raise ValueError(f"{path}, line {number}: expected {len(names)} columns")
        values = dict(zip(names, line, strict=True))
        if values["mark"] not in MARKS or not values["frames"].isdigit():
            raise ValueError(
                f"{path}, line {number}: expected a number of frames and a mark of "
                f"{', '.join(filter(None, MARKS))} or none"
            )
        rows.append(Published(**{**values, "frames": int(values["frames"])}))  # type: ignore[arg-type]
    return tuple(rows)


def match_published(
    results: Results,
    networks: Mapping[str, NetworkParams],
    datasets: Mapping[str, DatasetParams],
    published: Sequence[Published],
) -> list[Comparison]:
    """Find the published figures of every cell.

    Parameters
    ----------
    results
        Our figures.
    networks, datasets
        The entries of params.yaml.
    published
        What is known.

    Returns
    -------
    One comparison for each cell, score and protocol that something was published of; empty for
    networks that nothing was published of, such as those of the demo.
    """
    found = []
    for cell in results.ordered:
        network, dataset = networks[cell.network], datasets[cell.dataset]
        groups: dict[tuple[str, str], list[Published]] = {}
        for row in published:
            if row.fits(network, cell.variant, dataset):
                groups.setdefault((row.score, row.protocol), []).append(row)
        for (score, wanted), rows in groups.items():
            protocol = wanted if _known(cell, wanted, score) else "exact"
            here = tuple(_here(cell, protocol, score, key) for key in FIGURES)
            remarks = _remarks(cell, network, rows[0].frames)
            protocol = protocol if score else ""
            found.append(Comparison(cell, score, protocol, here, tuple(rows), remarks))
    return found


def _known(cell: Cell, protocol: str, score: str) -> bool:
    return any(cell.value("protocols", protocol, score, k) is not None for k in FIGURES)


def _here(cell: Cell, protocol: str, score: str, key: str) -> str:
    value = cell.value(key) if not score else cell.value("protocols", protocol, score, key)
    if (key == "miou") == bool(score):
        return ""
    return "–" if value is None else f"{100 * value:.2f}"


def _remarks(cell: Cell, network: NetworkParams, frames: int) -> tuple[str, ...]:
    remarks = []
    here = cell.value("frames")
    if here is not None and here != frames:
        remarks.append(f"{cell.dataset} has {here:.0f} frames here, {frames} where published")
    if network.options:
        changed = ", ".join(sorted(network.options))
        remarks.append(f"{cell.network} is not the published network: options {changed}")
    return tuple(remarks)
