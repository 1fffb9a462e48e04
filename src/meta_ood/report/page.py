"""The report and the comparison of experiments as self-contained HTML pages.

A page has no script, refers to no other file and no other host, and the same inputs give the same
bytes. The texts of the pages stand in ``templates/``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from meta_ood import __version__
from meta_ood.config import Params
from meta_ood.data.labels import CITYSCAPES
from meta_ood.evaluation.uncertainty import FEW
from meta_ood.metrics.catalogue import METRICS
from meta_ood.report import breakdowns, pictures, plots
from meta_ood.report.compare import Difference, Setting, TradeOff, all_keys, difference, trade_offs
from meta_ood.report.headline import summarise
from meta_ood.report.published import LEAD, BesidePublished, all_remarks, numbered_sources
from meta_ood.report.results import Results
from meta_ood.report.tables import PRINTED

_TEMPLATES = Environment(
    loader=PackageLoader("meta_ood.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {
    "METRICS": METRICS,
    "SIGNS": {"better": "✓", "worse": "✗", "unchanged": "="},
    "COLOURS": plots.COLOURS,
    "OTHER_COLOUR": plots.OTHER,
    "all_keys": all_keys,
    "difference": difference,
    "size_text": breakdowns.size_text,
    "thousands": breakdowns.thousands,
    "tone": lambda metric, first, last: Difference(metric, first, last).tone,
}

# arrows and units stay on one line with their numbers
_TEMPLATES.filters["unbroken"] = lambda text: re.sub(" (?=[→%])|(?<=→) ", "\xa0", text)


def report_page(
    title: str,
    results: Results,
    provenance: Mapping[str, str],
    published: Sequence[BesidePublished] = (),
    settings: Sequence[Setting] = (),
) -> str:
    """Return the page of the stage `report`.

    `provenance` stands in the footer; nothing in it may differ between two runs on the same inputs.
    `settings` are evaluations with other seeds or parameters, for the section over seeds.
    """
    # 1. what belongs together: variants of a network in pairs, one evaluation for what a dataset is
    pairs = results.pairs
    of_dataset = {one.dataset: one for one in reversed(results.ordered)}
    datasets = [of_dataset[name] for name in results.datasets if name in of_dataset]
    # 2. changes with their intervals; errors of segments after meta classification only
    keys = [m.key for m in PRINTED if f"{m.key}_after_meta" not in METRICS]
    changes = [(pair[1], [difference(key, pair) for key in keys]) for pair in pairs]
    # 3. the tables, plots and pictures, in the order of the page
    with_classes = [pair for pair in pairs if all(one.metrics.get("class_iou") for one in pair)]
    return _render(
        "report.html.j2",
        title=title,
        results=results,
        pairs=pairs,
        headline=summarise(results),
        provenance=provenance,
        changes=[(one, row) for one, row in changes if any(d and d.has_interval for d in row)],
        published=published,
        published_lead=LEAD,
        remarks=all_remarks(published),
        sources=numbered_sources(published),
        settings=settings,
        trade_offs=_with_plots(settings),
        few_scenes=[f"{one.dataset} ({n:.0f})" for one in datasets if (n := one.value("scenes")) and n < FEW],
        scenes=pictures.scenes(results),
        legend=pictures.LEGEND,
        curves=[
            (group[0], found)
            for i, group in enumerate(results.groups)
            if (found := plots.curve_plots(group, f"curves-{i}"))
        ],
        cost=plots.cost_plots(results, "cost"),
        breakdowns=breakdowns.breakdowns(results),
        sizes=breakdowns.object_groups(pairs, "size"),
        labels=sorted(breakdowns.object_groups(pairs, "label_id")),
        with_labels=[pair for pair in pairs if pair[1].section("detection", "label_id")],
        with_classes=with_classes,
        class_names=CITYSCAPES.names,
        datasets=datasets,
    )


def pareto_page(title: str, settings: Sequence[Setting]) -> str:
    """Return a page with a Pareto plot and a table for each network and OoD dataset."""
    return _render(
        "pareto.html.j2",
        title=title,
        count=sum(any(key[1] != "baseline" for key in s.values) for s in settings),
        trade_offs=_with_plots(settings),
    )


def _with_plots(settings: Sequence[Setting]) -> list[tuple[TradeOff, plots.Plot]]:
    found = trade_offs(settings)
    return [(one, plots.pareto_plot(one, f"pareto-{i}")) for i, one in enumerate(found)]


def _render(template: str, **values: Any) -> str:
    return _TEMPLATES.get_template(template).render(values)


def provenance(params: Params, results: Results) -> dict[str, str]:
    """Return what the page's values depend on; nothing of time or machine."""
    metrics = {"/".join(key): one.metrics for key, one in results.evaluations.items()}
    return {
        "versions": ", ".join(f"{name} {version(name)}" for name in ("numpy", "matplotlib")),
        "meta-ood": __version__,
        "seed": str(params.seed),
        "OoD segments": f"{params.segments.score} at least {params.segments.threshold:g}",
        "results": _digest(metrics),
        "networks, variants, sets, segments": _digest(
            [params.networks, params.variants, params.evaluation_sets, params.segments.model_dump()]
        ),
    }


def _digest(value: object) -> str:
    return f"sha256 {hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]}"
