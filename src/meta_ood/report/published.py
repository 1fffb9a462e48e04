"""Published results beside ours: what is known of the same network, variant and dataset."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from meta_ood.config import DatasetParams, NetworkParams
from meta_ood.data.files import read_csv
from meta_ood.data.text_table import markdown_table, text_table
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
LEAD = (
    "Results of the same network, variant and dataset from other sources, in per cent: "
    + ", ".join(f"[{mark}] {meaning}" for mark, meaning in MARKS.items() if mark)
    + ". A question mark: no source was found."
)
_METRICS = tuple(METRICS[key] for key in ("auroc", "fpr95", "auprc", "miou"))


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
    mark: str  # a key of MARKS
    source: str  # with reservations

    def fits(self, network: NetworkParams, variant: str, dataset: DatasetParams) -> bool:
        """Return whether the metrics are of this network, variant and dataset."""
        option, _, value = self.options.partition("=")
        return (
            (self.architecture, self.variant) == (network.architecture, variant)
            and f"{dataset.reader}:{dataset.split}" in self.sets.split()
            and str(dataset.options.get(option, value)) == value
        )


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
    lines: tuple[PublishedLine, ...]
    remarks: tuple[str, ...]  # why the two cannot be compared as they are


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
    """Find the published results of every evaluation: one entry per score and protocol.

    There is none for networks that nothing was published of, such as those of the demo. `networks`
    and `datasets` are the entries of params.yaml.
    """
    found = []
    for one in results.ordered:
        network, dataset = networks[one.network], datasets[one.dataset]
        groups: dict[tuple[str, str], list[PublishedRow]] = {}
        for row in published:
            if row.fits(network, one.variant, dataset):
                groups.setdefault((row.score, row.protocol), []).append(row)
        for (score, protocol), rows in groups.items():
            is_known = any(text != "–" for text in _ours(one, score, protocol) if text)
            ours = protocol if is_known or not score else "exact"
            lines = [PublishedLine("here", _ours(one, score, ours), ours, ""), *map(_line, rows)]
            remarks = _remarks(one, network, rows[0].frames)
            found.append(BesidePublished(one, score, ours, tuple(lines), remarks))
    return found


def _ours(one: Evaluation, score: str, protocol: str) -> tuple[str, ...]:
    """Return our metrics as texts: of the known classes only mIoU, of a score all but that."""
    place = ("protocols", protocol, score) if score else ()
    values = {m.key: one.value(*place, m.key) for m in _METRICS if (m.key == "miou") != bool(score)}
    texts = {key: "–" if v is None else f"{100 * v:.2f}" for key, v in values.items()}
    return tuple(texts.get(metric.key, "") for metric in _METRICS)


def _line(row: PublishedRow) -> PublishedLine:
    protocol = row.protocol or ("not stated" if row.score else "")
    metrics = (row.auroc, row.fpr95, row.auprc, row.miou)
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


def all_remarks(beside: Sequence[BesidePublished]) -> list[str]:
    """Return each remark once, as a sentence."""
    return [f"Not comparable: {r}." for r in dict.fromkeys(r for b in beside for r in b.remarks)]


def numbered_sources(beside: Sequence[BesidePublished]) -> dict[str, int]:
    """Return the sources in the order of the lines, with their numbers from 1."""
    sources = dict.fromkeys(line.source for one in beside for line in one.lines if line.source)
    return {source: number for number, source in enumerate(sources, start=1)}


def published_markdown(beside: Sequence[BesidePublished]) -> str:
    """Return the comparison as Markdown, sources in full; empty if nothing was published."""
    if not beside:
        return ""
    rows = [[*names, line.of, line.protocol, *line.metrics, line.source] for names, line in _lines(beside)]
    remarks = "".join(f"- {text}\n" for text in all_remarks(beside))
    table = markdown_table([*_HEADER, "source"], rows)
    return f"\n## Published results\n\n{LEAD}\n\n{remarks}\n{table}\n"


def published_text(beside: Sequence[BesidePublished]) -> str:
    """Return the comparison for a terminal, sources below; empty if nothing was published."""
    if not beside:
        return ""
    sources = numbered_sources(beside)
    rows, last = [], [""] * 4
    for names, line in _lines(beside):
        # names are not repeated below themselves as long as those before them are the same
        shown = [n if names[: i + 1] != last[: i + 1] else "" for i, n in enumerate(names)]
        of = f"{line.of} {sources.get(line.source, '')}".rstrip()
        rows.append([*shown, of, line.protocol, *line.metrics])
        last = names
    remarks = "".join(f"- {text}\n" for text in all_remarks(beside))
    notes = "".join(f"{number} {source}\n" for source, number in sources.items())
    table = text_table(_HEADER, rows, left=6)
    return f"\nPublished results [%]\n{textwrap.fill(LEAD, 100)}\n{remarks}\n{table}\n\n{notes}"


_HEADER = ["evaluation set", "network", "variant", "score", "of", "protocol"]
_HEADER += [metric.name for metric in _METRICS]


def _lines(beside: Sequence[BesidePublished]) -> list[tuple[list[str], PublishedLine]]:
    """Return dataset, network, variant and score of each line, and the line."""
    found = []
    for b in beside:
        one = b.evaluation
        names = [one.dataset, one.network, one.variant, b.score or "–"]
        found += [(names, line) for line in b.lines]
    return found
