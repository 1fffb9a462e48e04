"""Published results beside ours: what is known of the same network, variant and dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from meta_ood.config import DatasetParams, NetworkParams
from meta_ood.data.files import read_csv
from meta_ood.report.results import Evaluation, Results

# evidence mark -> what it stands for; a row without a source has none
MARKS = {"A": "the authors' own", "I": "an independent run", "T": "a table of another paper", "U": "a user's log"}
LEAD = (
    "Results of the same network, variant and dataset from other sources, in per cent: "
    + ", ".join(f"[{mark}] {meaning}" for mark, meaning in MARKS.items())
    + ". A question mark: no source was found."
)
_METRICS = ("auroc", "fpr95", "auprc", "miou")


@dataclass(frozen=True)
class PublishedRow:
    """One line of published.csv; metrics in per cent, as they were published."""

    architecture: str
    variant: str
    sets: str  # reader:split; several with the same frames are separated by spaces
    options: str  # option=value of the reader that the metrics hold for; empty if any
    frames: int
    score: str
    protocol: str  # empty if the source does not say
    auroc: str  # this and the next three: "?" if no source was found, empty if not defined
    fpr95: str
    auprc: str
    miou: str
    mark: str  # a key of MARKS, or empty
    source: str  # with reservations

    def fits(self, network: NetworkParams, variant: str, dataset: DatasetParams) -> bool:
        """Return whether the metrics are of this network, variant and dataset."""
        option, _, value = self.options.partition("=")
        is_network = (self.architecture, self.variant) == (network.architecture, variant)
        is_set = f"{dataset.reader}:{dataset.split}" in self.sets.split()
        return is_network and is_set and str(dataset.options.get(option, value)) == value


class PublishedLine(NamedTuple):
    """One printed line: whose metrics, the metrics as texts, protocol and source."""

    of: str
    metrics: tuple[str, ...]
    protocol: str
    source: str


class BesidePublished(NamedTuple):
    """Our metrics of one score of one evaluation in the first line, below it published ones."""

    evaluation: Evaluation
    score: str  # empty: the known classes
    protocol: str  # of our line: the published one if we have it, else exact
    lines: Sequence[PublishedLine]
    remarks: Sequence[str]  # why the two cannot be compared as they are


def read_published(path: Path | None = None) -> tuple[PublishedRow, ...]:
    """Read published results from a CSV file, without `path` those of the package; errors name file and line."""
    path = path or Path(__file__).with_name("published.csv")
    rows = []
    for number, line in enumerate(read_csv(path, [f.name for f in fields(PublishedRow)]), start=2):
        if line["mark"] not in (*MARKS, "") or not line["frames"].isdigit():
            marks = ", ".join(MARKS)
            raise ValueError(f"{path}, line {number}: expected a number of frames and a mark of {marks} or none")
        rows.append(PublishedRow(**{**line, "frames": int(line["frames"])}))  # type: ignore[arg-type]
    return tuple(rows)


def match_published(
    results: Results,
    networks: Mapping[str, NetworkParams],
    datasets: Mapping[str, DatasetParams],
    published: Sequence[PublishedRow],
) -> list[BesidePublished]:
    """Find the published results of every evaluation: one entry per score and protocol; none for the demo's networks.

    `networks` and `datasets` are the entries of params.yaml.
    """
    found = []
    for one in results.ordered:
        network = networks[one.network]
        groups: dict[tuple[str, str], list[PublishedRow]] = {}
        for row in published:
            if row.fits(network, one.variant, datasets[one.dataset]):
                groups.setdefault((row.score, row.protocol), []).append(row)
        for (score, protocol), rows in groups.items():
            # ours by the same protocol if we have it, else by the exact one
            metrics = _ours(one, score, protocol)
            if score and not {*metrics} - {"–", ""}:
                protocol = "exact"
                metrics = _ours(one, score, protocol)
            lines = [PublishedLine("here", metrics, protocol, "")]
            for row in rows:
                metrics = (row.auroc, row.fpr95, row.auprc, row.miou)
                stated = row.protocol or ("not stated" if score else "")
                lines.append(PublishedLine(f"[{row.mark or '?'}]", metrics, stated, row.source))
            found.append(BesidePublished(one, score, protocol, lines, _remarks(one, network, rows[0].frames)))
    return found


def _ours(one: Evaluation, score: str, protocol: str) -> tuple[str, ...]:
    """Return our metrics as texts: of the known classes only mIoU, of a score all but that."""
    place = ("protocols", protocol, score) if score else ()
    texts = dict.fromkeys(_METRICS, "")
    for key in _METRICS[:3] if score else _METRICS[3:]:
        value = one.value(*place, key)
        texts[key] = "–" if value is None else f"{100 * value:.2f}"
    return tuple(texts.values())


def _remarks(one: Evaluation, network: NetworkParams, frames: int) -> list[str]:
    remarks = []
    if (here := one.value("frames")) not in (None, frames):
        remarks.append(f"{one.dataset} has {here:.0f} frames here, {frames} where published")
    if network.options:
        remarks.append(f"{one.network} is not the published network: options {', '.join(sorted(network.options))}")
    return remarks


def all_remarks(beside: Sequence[BesidePublished]) -> list[str]:
    """Return each remark once, as a sentence."""
    return [f"Not comparable: {r}." for r in dict.fromkeys(r for b in beside for r in b.remarks)]


def numbered_sources(beside: Sequence[BesidePublished]) -> dict[str, int]:
    """Return the sources in the order of the lines, with their numbers from 1."""
    sources = dict.fromkeys(line.source for one in beside for line in one.lines if line.source)
    return {source: number for number, source in enumerate(sources, start=1)}


HEADER = ["evaluation set", "network", "variant", "score", "of", "protocol", "AUROC", "FPR95", "AUPRC", "mIoU"]


def table_rows(beside: Sequence[BesidePublished], numbers: Mapping[str, int] | None = None) -> list[list[str]]:
    """Return a row per line below :data:`HEADER`: with the number of its source, without `numbers` with the source."""
    found = []
    for b in beside:
        names = [b.evaluation.dataset, b.evaluation.network, b.evaluation.variant, b.score or "–"]
        for line in b.lines:
            source = [line.source] if numbers is None else []
            number = f" {numbers[line.source]}" if numbers and line.source else ""
            found.append([*names, line.of + number, line.protocol, *line.metrics, *source])
    return found
