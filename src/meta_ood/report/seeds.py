"""The report's section over seeds: mean, spread and n of each setting, and gain against cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from meta_ood.report.experiments import Cell, Experiment
from meta_ood.report.markup import head_cells, wide
from meta_ood.report.sweep import pareto_blocks
from meta_ood.report.tables import COLUMNS, Column

_COLUMNS = tuple(
    column for key in ("auroc", "auprc", "fpr95", "miou") for column in COLUMNS if column.key == key
)


def seeds_section(experiments: Sequence[Experiment]) -> str:
    """Return a table of mean, spread and n, and the Pareto plots; empty without experiments."""
    cells = sorted({c for e in experiments for c in e.cells}, key=lambda c: (c[2], *c[:2]))
    body = [row for cell in cells for row in _rows(experiments, cell)]
    if not body:
        return ""
    titles = [("evaluation set", "network"), ("variant", "setting")]
    titles += [(column.title[0], "% mean ± sd") for column in _COLUMNS]
    titles += [("runs", "n")]
    table = (
        f"<table><thead><tr>{head_cells(titles, 2)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    plots = "".join(pareto_blocks(experiments, level=3))
    return (
        '<h2 id="seeds">Over seeds</h2><p class="soft">Runs that differ in nothing but the seed, '
        "put together: mean ± standard deviation (n − 1), small print: lowest to highest. One run "
        "alone says little; its spread is not known.</p>"
        f"{wide(table, 'Over seeds')}"
        '<p class="soft">In the plots a point is the mean of one setting. Up is better detection, '
        "right is better segmentation of the known classes; nothing beats in both what lies on the "
        f"dashed front.</p>{plots}"
    )


def _rows(experiments: Sequence[Experiment], cell: Cell) -> list[str]:
    """Return one row for each setting of the cell."""
    network, variant, dataset = cell
    own = [e for e in experiments if any(e.spread(*cell, c.key) for c in _COLUMNS)]
    rows = []
    for index, experiment in enumerate(own):
        first = (
            f'<th scope="rowgroup" class="text" rowspan="{len(own)}">{escape(dataset)}'
            f'<span class="unit">{escape(network)}</span></th>'
        )
        found = [experiment.spread(*cell, column.key) for column in _COLUMNS]
        count = max(s.n for s in found if s is not None)
        rows.append(
            f"<tr{' class=first' if index == 0 else ''}>{first if index == 0 else ''}"
            f'<th scope="row"><span class="variant {escape(variant)}"></span>{escape(variant)}'
            f'<span class="unit">{escape(experiment.name)}</span></th>'
            f"{''.join(_cell(experiment, cell, column) for column in _COLUMNS)}"
            f"<td>{count}</td></tr>"
        )
    return rows


def _cell(experiment: Experiment, cell: Cell, column: Column) -> str:
    found = experiment.spread(*cell, column.key)
    if found is None:
        return "<td>–</td>"
    text = column.text(found.mean)
    if found.n == 1:
        return f"<td>{text}</td>"
    ends = f"{column.text(found.low)} to {column.text(found.high)}"
    return (
        f'<td>{text}&nbsp;<span class="soft">± {column.text(found.deviation)}</span>'
        f'<span class="range">{ends}</span></td>'
    )
