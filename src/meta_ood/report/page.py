"""The report as one self-contained HTML page: no script, no other file, no outside host."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from meta_ood.report.charts import charts, cost_charts
from meta_ood.report.differences import differences_section
from meta_ood.report.experiments import Experiment
from meta_ood.report.gallery import pictures_section
from meta_ood.report.groups import classes_section, detection_section, labels_section
from meta_ood.report.markup import WORDS, document, unbroken
from meta_ood.report.results import Results
from meta_ood.report.sections import (
    closed_section,
    components_section,
    data_section,
    protocols_section,
    results_section,
    scores_section,
    segments_section,
)
from meta_ood.report.seeds import seeds_section
from meta_ood.report.verdict import Verdict, verdict

GLOSSARY = (
    ("score", "What every pixel gets: higher means more out-of-distribution (OoD), unknown."),
    ("AUROC", "How well the score ranks OoD pixels above known ones; 50 % is guessing."),
    ("FPR95", "Share of known pixels called OoD when 95 % of the OoD pixels are found."),
    ("AUPRC", "Mean precision over all thresholds; guessing gives the share of OoD pixels."),
    ("FP segments", "Predicted OoD segments without a single OoD pixel: false alarms."),
    ("FN segments", "OoD objects that no predicted segment touches: missed."),
    ("segment F1", "2 true / (2 true + FP + FN): right segments against both kinds of error."),
    ("meta classification", "Rejects predicted segments that look like false alarms."),
    ("mIoU", "Quality of the segmentation into the known classes, mean over classes."),
    ("baseline", "The network as it was trained for the known classes."),
    ("ood_trained", "The same network, trained on to be as unsure as can be on OoD proxies."),
)


def html_page(
    title: str,
    results: Results,
    provenance: Mapping[str, str],
    published: str = "",
    experiments: Sequence[Experiment] = (),
) -> str:
    """Return the whole page.

    Parameters
    ----------
    title
        The page's title.
    results
        What :func:`meta_ood.report.read_results` returns; pictures are read from their files.
    provenance
        Name -> value for the footer; nothing that differs between two runs on the same inputs.
    published
        Section of published figures, which stands behind the results.
    experiments
        Runs with other seeds or settings, for the section over seeds.
    """
    sections = [
        _missing(results),
        results_section(results) if results.cells else "",
        published,
        differences_section(results),
        seeds_section(experiments),
        pictures_section(results),
        _curves(results),
        _cost(results),
        scores_section(results),
        segments_section(results),
        components_section(results),
        detection_section(results),
        labels_section(results),
        closed_section(results),
        classes_section(results),
        protocols_section(results),
        data_section(results),
        _glossary(),
    ]
    body = "\n".join(section for section in sections if section)
    return document(title, _head(title, results, verdict(results), body), body, _footer(provenance))


def _head(title: str, results: Results, said: Verdict, body: str) -> str:
    tiles = "".join(
        f'<li class="tile"><span class="name">{escape(t.name)}</span>'
        f'<span class="figures"><span class="before">{escape(t.before)} →</span> '
        f'{escape(t.after)}</span><span class="change {t.tone}">'
        f'<span aria-hidden="true">{WORDS[t.tone][0]}</span>'
        f'<span class="aside">{WORDS[t.tone][1]}:</span> {unbroken(t.note)}</span></li>'
        for t in said.tiles
    )
    worse = "".join(f"<li>{unbroken(text)}</li>" for text in said.worse)
    links = "".join(
        f'<a href="#{anchor}">{name}</a>'
        for anchor, name in re.findall(r'<h2 id="([^"]*)">([^<]*)</h2>', body)
    )
    return (
        f'<header><p class="kicker">{escape(title)}</p><h1>{unbroken(said.headline)}</h1>'
        f'<p class="lead">{unbroken(" ".join(said.sentences))}</p>'
        + (f'<ul class="tiles">{tiles}</ul>' if tiles else "")
        + (f'<div class="worse"><p>What got worse</p><ul>{worse}</ul></div>' if worse else "")
        + f'<nav aria-label="Sections">{links}</nav></header>'
    )


def _missing(results: Results) -> str:
    if not results.missing:
        return ""
    items = "".join(f"<li>{escape(' / '.join(key))}</li>" for key in results.missing)
    text = "Not evaluated yet (network / variant / evaluation set)"
    return f'<div class="missing"><p>{text}</p><ul>{items}</ul></div>'


def _curves(results: Results) -> str:
    blocks: list[str] = []
    for dataset in results.datasets:
        for network in results.networks:
            group = [c for c in results.ordered if (c.network, c.dataset) == (network, dataset)]
            plots = "".join(
                f"<figure><figcaption>{escape(chart.title)}</figcaption>{chart.svg}</figure>"
                for chart in charts(group, f"c{len(blocks)}")
            )
            if plots:
                name = f"{escape(dataset)} <span class='soft'>{escape(network)}</span>"
                blocks.append(f'<h3>{name}</h3><div class="charts">{plots}</div>')
    if not blocks:
        return ""
    return (
        '<h2 id="curves">Curves</h2><ul class="legend">'
        '<li><span class="variant baseline"></span>baseline</li>'
        '<li><span class="variant ood_trained"></span>ood_trained</li>'
        "<li>● operating point of meta classification</li></ul>" + "".join(blocks)
    )


def _cost(results: Results) -> str:
    plots = "".join(
        f"<figure><figcaption>{escape(chart.title)}</figcaption>{chart.svg}</figure>"
        for chart in cost_charts(results, "cost")
    )
    if not plots:
        return ""
    return (
        '<h2 id="cost">Gain and cost</h2><p class="soft">From the baseline to the OoD-trained '
        "network (dot): up is better detection, left is worse segmentation of the known classes."
        f'</p><div class="charts">{plots}</div>'
    )


def _glossary() -> str:
    items = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in GLOSSARY)
    return f'<h2 id="words">What the words mean</h2><dl>{items}</dl>'


def _footer(provenance: Mapping[str, str]) -> str:
    items = "".join(
        f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>"
        for name, value in provenance.items()
    )
    return (
        f"<footer><dl>{items}</dl><p>Method: Chan, Rottmann, Gottschalk: Entropy Maximization and "
        "Meta Classification for Out-of-Distribution Detection in Semantic Segmentation, ICCV 2021 "
        "(arXiv 2012.06575). The same inputs give the same page.</p></footer>"
    )
