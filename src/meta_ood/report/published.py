"""Published results beside ours: what is known of the same network, variant and dataset."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from meta_ood.config import DatasetParams, NetworkParams
from meta_ood.data.files import read_csv
from meta_ood.data.text_table import text_table
from meta_ood.metrics.catalogue import METRICS
from meta_ood.report.results import Evaluation, Results

MARKS = {
    "A": "the authors' own",
    "I": "an independent run",
    "T": "a table of another paper",
    "U": "a user's log",
    "": "no source",
}
"""Evidence mark -> what it stands for."""
COLUMNS = tuple(METRICS[key] for key in ("auroc", "fpr95", "auprc", "miou"))
LEAD = (
    "Results of the same network, variant and dataset from other sources, in per cent: "
    "[A] the authors' own, [I] an independent run, [T] a table of another paper, [U] a user's log. "
    "A question mark: no source was found."
)


@dataclass(frozen=True)
class PublishedRow:
    """One line of published.csv; metrics in per cent, as they were published.

    Attributes:
        architecture, variant: Of the network.
        sets: ``reader:split``; several with the same frames are separated by spaces.
        options: ``option=value`` of the reader that the metrics hold for; empty if any.
        frames: Number of frames of the published dataset.
        score, protocol: What was evaluated and how; the protocol is empty if the source does not say.
        auroc, fpr95, auprc, miou: Texts; ``?`` if no source was found, empty if the metric is not defined there.
        mark: A key of :data:`MARKS`.
        source: Where it is from, and reservations.
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
        """Return whether the metrics are of this network, variant and dataset."""
        option, _, value = self.options.partition("=")
        return (
            (self.architecture, self.variant) == (network.architecture, variant)
            and f"{dataset.reader}:{dataset.split}" in self.sets.split()
            and str(dataset.options.get(option, value)) == value
        )


@dataclass(frozen=True)
class PublishedLine:
    """One printed line: whose metrics, the metrics as texts, protocol and source."""

    of: str
    metrics: tuple[str, ...]
    protocol: str
    source: str


@dataclass(frozen=True)
class BesidePublished:
    """Our metrics of one score of one evaluation, and the published ones.

    Attributes:
        evaluation, score: Ours; the score is empty for the known classes.
        protocol: Of our metrics: the published one if we have it, else ``exact``.
        lines: Ours first.
        remarks: Why the two cannot be compared as they are.
    """

    evaluation: Evaluation
    score: str
    protocol: str
    lines: tuple[PublishedLine, ...]
    remarks: tuple[str, ...]


def read_published(path: Path | None = None) -> tuple[PublishedRow, ...]:
    """Read published results from a CSV file; without `path` those of the package.

    Raises:
        ValueError: If a line is wrong; file and line are named.
    """
    path = path or Path(__file__).with_name("published.csv")
    rows = []
    for number, line in enumerate(read_csv(path, [f.name for f in fields(PublishedRow)]), start=2):
        if line["mark"] not in MARKS or not line["frames"].isdigit():
            raise ValueError(
                f"{path}, line {number}: expected a number of frames and a mark of "
                f"{', '.join(filter(None, MARKS))} or none"
            )
        rows.append(PublishedRow(**{**line, "frames": int(line["frames"])}))  # type: ignore[arg-type]
    return tuple(rows)


def match_published(
    results: Results,
    networks: Mapping[str, NetworkParams],
    datasets: Mapping[str, DatasetParams],
    published: Sequence[PublishedRow],
) -> list[BesidePublished]:
    """Find the published results of every evaluation.

    Args:
        results: Ours.
        networks, datasets: The entries of params.yaml.
        published: What is known.

    Returns:
        One entry for each evaluation, score and protocol that something was published of; none for networks that
        nothing was published of, such as those of the demo.
    """
    found = []
    for one in results.ordered:
        network, dataset = networks[one.network], datasets[one.dataset]
        groups: dict[tuple[str, str], list[PublishedRow]] = {}
        for row in published:
            if row.fits(network, one.variant, dataset):
                groups.setdefault((row.score, row.protocol), []).append(row)
        for (score, protocol), rows in groups.items():
            is_known = any(v is not None for v in _values(one, score, protocol))
            ours = protocol if is_known or not score else "exact"
            values = ("–" if v is None else f"{100 * v:.2f}" for v in _values(one, score, ours))
            # the known classes have nothing but mIoU, and scores everything but it
            metrics = tuple(
                text if (metric.key == "miou") != bool(score) else ""
                for metric, text in zip(COLUMNS, values, strict=True)
            )
            lines = [PublishedLine("here", metrics, ours, ""), *map(_line, rows)]
            remarks = _remarks(one, network, rows[0].frames)
            found.append(BesidePublished(one, score, ours, tuple(lines), remarks))
    return found


def _values(one: Evaluation, score: str, protocol: str) -> list[float | None]:
    place = ("protocols", protocol, score) if score else ()
    return [one.value(*place, metric.key) for metric in COLUMNS]


def _line(row: PublishedRow) -> PublishedLine:
    metrics = (row.auroc, row.fpr95, row.auprc, row.miou)
    protocol = row.protocol or ("not stated" if row.score else "")
    return PublishedLine(f"[{row.mark or '?'}]", metrics, protocol, row.source)


def _remarks(one: Evaluation, network: NetworkParams, frames: int) -> tuple[str, ...]:
    remarks = []
    here = one.value("frames")
    if here is not None and here != frames:
        remarks.append(f"{one.dataset} has {here:.0f} frames here, {frames} where published")
    if network.options:
        changed = ", ".join(sorted(network.options))
        remarks.append(f"{one.network} is not the published network: options {changed}")
    return tuple(remarks)


def remarks_of(beside: Sequence[BesidePublished]) -> list[str]:
    """Return each remark once, as a sentence."""
    return [f"Not comparable: {r}." for r in dict.fromkeys(r for b in beside for r in b.remarks)]


def numbered_sources(beside: Sequence[BesidePublished]) -> dict[str, int]:
    """Return the sources in the order of the lines, with their numbers from 1."""
    sources = dict.fromkeys(line.source for one in beside for line in one.lines if line.source)
    return {source: number for number, source in enumerate(sources, start=1)}


def published_markdown(beside: Sequence[BesidePublished]) -> str:
    """Return the comparison as Markdown, every row complete; empty if nothing was published."""
    if not beside:
        return ""
    titles = ["evaluation set", "network", "variant", "score", "of"]
    titles += [*(metric.name for metric in COLUMNS), "protocol", "source"]
    lines = ["## Published results", "", LEAD, "", *(f"- {text}" for text in remarks_of(beside)), ""]
    lines += [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for b in beside:
        names = [b.evaluation.dataset, b.evaluation.network, b.evaluation.variant, b.score or "–"]
        for line in b.lines:
            cells = [*names, line.of, *line.metrics, line.protocol, line.source]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["", *lines, ""])


def published_text(beside: Sequence[BesidePublished]) -> str:
    """Return the comparison for a terminal, its sources below; empty if nothing was published."""
    if not beside:
        return ""
    sources = numbered_sources(beside)
    rows = []
    last = ["", "", ""]
    for b in beside:
        names = [b.evaluation.dataset, b.evaluation.network, b.evaluation.variant]
        # a name is not repeated below itself as long as those before it are the same
        shown = [n if names[: i + 1] != last[: i + 1] else "" for i, n in enumerate(names)]
        for index, line in enumerate(b.lines):
            first = [*shown, b.score or "–"] if index == 0 else [""] * 4
            of = f"{line.of} {sources[line.source]}" if line.source else line.of
            rows.append([*first, of, line.protocol, *line.metrics])
        last = names
    header = ["evaluation set", "network", "variant", "score", "of", "protocol"]
    header += [metric.name for metric in COLUMNS]
    top = ["", "Published results [%]", textwrap.fill(LEAD, 100)]
    top += [f"- {text}" for text in remarks_of(beside)]
    notes = [f"{number} {source}" for source, number in sources.items()]
    return "\n".join([*top, "", text_table(header, rows, left=6), "", *notes, ""])
