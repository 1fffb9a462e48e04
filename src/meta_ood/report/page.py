"""The report and the comparison of experiments as self-contained HTML pages, and the tables beside them.

A page refers to no other file and no other host, and the same inputs give the same bytes. All texts stand in
``templates/``. Its one script, ``report.js``, is the only one that the page's policy lets a browser run; without it
tables, plots and pictures are complete.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from meta_ood import __version__, report
from meta_ood.config import Params
from meta_ood.data import labels, overlays, text_table
from meta_ood.data.files import csv_text
from meta_ood.evaluation.uncertainty import FEW
from meta_ood.metrics.catalogue import METRICS
from meta_ood.report import breakdowns, compare, frames, pictures, plots
from meta_ood.report.compare import Setting
from meta_ood.report.experiments import Experiment, compare_experiments
from meta_ood.report.headline import summarise
from meta_ood.report.known_alarms import RECALL, known_alarms, known_alarms_csv
from meta_ood.report.published import BesidePublished
from meta_ood.report.results import Results

# metrics of the results table, in its order; the CSV file also has those of the second line
_PRINTED = ["auroc", "fpr95", "auprc"]
_PRINTED += [f"segment_false_{kind}{suffix}" for kind in ("positives", "negatives") for suffix in ("", "_after_meta")]
_PRINTED += ["miou"]
_ONLY_IN_CSV = ["true_segments_removed"]
_ONLY_IN_CSV += [f"{kind}_f1{suffix}" for kind in ("segment", "component") for suffix in ("", "_after_meta")]


def report_page(
    title: str,
    results: Results,
    provenance: Mapping[str, str],
    beside: Sequence[BesidePublished] = (),
    settings: Sequence[Setting] = (),
    cells: Sequence[frames.Cell] = (),
    gallery: frames.Gallery | None = None,
) -> str:
    """Return the page of the stage `report`.

    `provenance` stands in the footer; nothing in it may differ between two runs on the same inputs.
    `settings` are evaluations with other seeds or parameters, for the section over seeds.
    `cells` and the `gallery` of them are for the slider and the frames.
    """
    # 1. what belongs together: variants of a network in pairs, the first evaluation for what a dataset is
    pairs = results.pairs
    datasets = list({one.dataset: one for one in reversed(results.ordered)}.values())[::-1]
    # 2. changes with their intervals; errors of segments after meta classification only
    keys = [key for key in _PRINTED if f"{key}_after_meta" not in METRICS]
    changes = [(pair[1], [compare.difference(key, pair) for key in keys]) for pair in pairs]
    alarms = known_alarms(results)
    # 3. the tables, plots and pictures, in the order of the page
    return _render_page(
        "report.html.j2",
        gallery=gallery,
        cells=cells,
        title=title,
        results=results,
        pairs=pairs,
        headline=summarise(results),
        provenance=provenance,
        changes=[(one, row) for one, row in changes if any(d and d.has_interval for d in row)],
        published=beside,
        settings=settings,
        trade_offs=_with_plots(settings),
        few_scenes=[f"{one.dataset} ({n:.0f})" for one in datasets if (n := one.value("scenes")) and n < FEW],
        scenes=pictures.scenes(results),
        curves=[(group[0], plots.curve_plots(group, f"curves-{i}")) for i, group in enumerate(results.groups)],
        cost=plots.cost_plots(results, "cost"),
        alarms=alarms,
        alarm_plots=plots.alarm_plots(alarms, "alarms"),
        alarm_recall=RECALL,
        breakdowns=breakdowns.breakdowns(results),
        sizes=breakdowns.object_groups(pairs, "size"),
        label_names=sorted(breakdowns.object_groups(pairs, "label_id")),
        with_labels=[pair for pair in pairs if pair[1].section("detection", "label_id")],
        with_classes=[pair for pair in pairs if all(one.metrics.get("class_iou") for one in pair)],
        datasets=datasets,
        unlabelled=[one.dataset for one in datasets if not one.has_labels],
    )


def pareto_page(title: str, settings: Sequence[Setting]) -> str:
    """Return a page with a Pareto plot and a table for each network and OoD dataset."""
    count = sum(any(key[1] != "baseline" for key in setting.values) for setting in settings)
    return _render_page("pareto.html.j2", title=title, count=count, trade_offs=_with_plots(settings))


def compare_page(title: str, first: Experiment, last: Experiment) -> str:
    """Return a page with the evaluations of two experiments side by side.

    ValueError if they have none in common.
    """
    # before meta classification only where there is no value after it
    keys = [key for key in _PRINTED if f"{key}_after_meta" not in METRICS]
    compared = compare_experiments(first, last, keys)
    a, b = first.parameters, last.parameters
    return _render_page(
        "compare.html.j2",
        title=title,
        first=first,
        last=last,
        metrics=[METRICS[key] for key in keys],
        compared=compared,
        unpaired=[one for one in compared if not one.is_paired],
        only=[
            (one.name, key)
            for one, other in ((first, last), (last, first))
            for key in one.evaluations
            if key not in other.evaluations
        ],
        parameters=[
            (key, a.get(key, "–"), b.get(key, "–"))
            for key in sorted(a.keys() | b.keys())
            if a and b and a.get(key) != b.get(key)
        ],
    )


def _with_plots(settings: Sequence[Setting]) -> list[tuple[compare.TradeOff, plots.Plot]]:
    return [(one, plots.pareto_plot(one, f"pareto-{i}")) for i, one in enumerate(compare.trade_offs(settings))]


def provenance(params: Params, results: Results) -> dict[str, str]:
    """Return what the page's values depend on; nothing of time or machine."""
    metrics = {"/".join(key): one.metrics for key, one in results.evaluations.items()}
    inputs = [params.networks, params.variants, params.evaluation_sets, params.segments.model_dump()]
    return {
        "versions": ", ".join(f"{name} {version(name)}" for name in ("numpy", "matplotlib")),
        "meta-ood": __version__,
        "seed": str(params.seed),
        "OoD segments": f"{params.segments.score} at least {params.segments.threshold:g}",
        "results": _digest(metrics),
        "networks, variants, sets, segments": _digest(inputs),
    }


def _digest(value: object) -> str:
    return f"sha256 {hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]}"


def results_tables(results: Results, beside: Sequence[BesidePublished] = ()) -> dict[str, str]:
    """Return the results, one row per network, variant and dataset, by the name of the file.

    ``results.csv`` has fractions in [0, 1], empty where undefined. ``results.md`` and ``results.txt``, for a terminal
    and at most 120 characters wide in the demo, print them in percent, and published results below.
    ``known_alarms.csv`` is that of :func:`meta_ood.report.known_alarms.known_alarms_csv`.
    """
    names = ["network", "dataset", "variant"]
    headings = [METRICS[key].heading for key in _PRINTED]
    cells = [(one, [one.network, one.dataset, one.variant]) for one in results.ordered]
    keys = _PRINTED + _ONLY_IN_CSV
    exact = [[*n, *("" if (v := one.value(k)) is None else f"{v:.10g}" for k in keys)] for one, n in cells]
    values = {
        "rows": [[*n, *(METRICS[key].text(one.value(key)) for key in _PRINTED)] for one, n in cells],
        "markdown_header": names + [f"{a} {'[%]' if b == '%' else b}" for a, b in headings],
        "text_header": [*names, *map("\n".join, headings)],
        "published": beside,
        "results": results,
    }
    printed = {name: _render(f"{name}.j2", **values) for name in ("results.md", "results.txt")}
    alarms = known_alarms_csv(known_alarms(results))
    return {"results.csv": csv_text(names + keys, exact), "known_alarms.csv": alarms} | printed


def curve_tables(results: Results) -> dict[str, str]:
    """Return the curves that dvc.yaml plots as CSV, by the name of the file: those of all evaluations in each."""
    tables = {}
    for stem in ("roc", "pr", "trade_off", "froc"):
        found = [
            (one, curve) for one in results.ordered if len(next(iter((curve := one.curves.get(stem, {})).values()), []))
        ]
        names = list(found[0][1]) if found else []
        rows = [
            [one.network, one.variant, one.dataset, *(f"{value:.6g}" for value in row)]
            for one, curve in found
            for row in plots.thinned(np.column_stack([curve[name] for name in names])).tolist()
        ]
        tables[f"{stem}.csv"] = csv_text(["network", "variant", "dataset", *names], rows)
    return tables


def _without_repeats(rows: Sequence[Sequence[str]], names: int) -> Iterator[list[str]]:
    """Leave out names, in the first columns, that repeat those of the row above, as long as all before them do."""
    last: Sequence[str] = ()
    for row in rows:
        yield ["" if i < names and row[: i + 1] == last[: i + 1] else text for i, text in enumerate(row)]
        last = row


def _render(template: str, **values: Any) -> str:
    return _TEMPLATES.get_template(template).render(values)


def _render_page(template: str, gallery: frames.Gallery | None = None, **values: Any) -> str:
    """Render a page with its script, what that reads, and the policy that lets no other run."""
    found = [plot for plot in _plots(list(values.values())) if plot.values]
    charts = {plot.name: plot.values for plot in found}
    data = json.dumps({"charts": charts, "gallery": gallery.values if gallery else None}, separators=(",", ":"))
    script, _, _ = _LOADER.get_source(_TEMPLATES, "report.js")
    values |= {
        "script": Markup(script),
        "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        "data": base64.b64encode(zlib.compress(data.encode(), 9)).decode(),
        # base64 has no character that would end the element
        "thumbnails": Markup(json.dumps(gallery.thumbnails if gallery else [], separators=(",", ":"))),
    }
    return _render(template, **values)


def _plots(values: object) -> Iterator[plots.Plot]:
    """Yield the plots in nested lists and tuples."""
    if isinstance(values, plots.Plot):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _plots(value)


_LOADER = PackageLoader("meta_ood.report")
_TEMPLATES = Environment(
    loader=_LOADER,
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# modules whose functions and constants the templates use
_TEMPLATES.globals |= {
    "METRICS": METRICS,
    "labels": labels,
    "overlays": overlays,
    "report": report,
    "text_table": text_table,
}
_TEMPLATES.filters["without_repeats"] = _without_repeats
# arrows and units stay on one line with their numbers
_TEMPLATES.filters["unbroken"] = lambda text: re.sub(" (?=[→%])|(?<=→) ", "\xa0", text)
