"""The report as one self-contained HTML page: no script, no other file, no outside host."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from meta_ood import figures
from meta_ood.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.reporting.charts import charts
from meta_ood.reporting.results import Cell, Results
from meta_ood.reporting.style import CSS
from meta_ood.reporting.tables import COLUMNS, Column
from meta_ood.reporting.verdict import NOISE, Verdict, verdict

PICTURE_WIDTH = 640
"""Pictures are at most this wide [px] in the page."""

GLOSSARY = (
    ("score", "What a pixel gets: higher means more out-of-distribution (OoD), unknown."),
    ("AUROC", "How well the score ranks OoD pixels above known ones; 50 % is guessing."),
    ("FPR95", "Share of known pixels called OoD when 95 % of the OoD pixels are found."),
    ("AUPRC", "Mean precision over all thresholds; guessing gives the share of OoD pixels."),
    ("FP segments", "Predicted OoD segments that touch no OoD object: false alarms."),
    ("FN segments", "OoD objects that no predicted segment touches: missed."),
    ("meta classification", "Throws out predicted segments that look like false alarms."),
    ("mIoU", "Quality of the segmentation into the known classes, mean over classes."),
    ("baseline", "The network as it was trained for the known classes."),
    ("ood_trained", "The same network, trained on to be maximally unsure on OoD proxies."),
)


def html_page(title: str, results: Results, provenance: Mapping[str, str]) -> str:
    """Return the whole page.

    Parameters
    ----------
    title
        The page's title.
    results
        What :func:`meta_ood.reporting.read_results` returns; pictures are read from their files.
    provenance
        Name -> value for the footer; nothing that differs between two runs on the same inputs.
    """
    said = verdict(results)
    parts = [
        _head(title, results, said),
        "<main>",
        _missing(results),
        _results(results),
        _pictures(results),
        _curves(results),
        _scores(results),
        _nested_table(results, "components", "Components", "Objects found as wholes."),
        _nested_table(results, "protocols", "Protocols", "The same scores, other rules."),
        _glossary(),
        "</main>",
        _footer(provenance),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _head(title: str, results: Results, said: Verdict) -> str:
    tiles = "".join(
        f'<li class="tile"><span class="name">{escape(t.name)}</span>'
        f'<span class="figures"><span class="before">{escape(t.before)} →</span> '
        f'{escape(t.after)}</span><span class="change {t.tone}">{_sign(t.tone)} '
        f"{escape(t.note)}</span></li>"
        for t in said.tiles
    )
    worse = "".join(f"<li>{escape(text)}</li>" for text in said.worse)
    return (
        f'<header><p class="kicker">{escape(title)}</p><h1>{escape(said.headline)}</h1>'
        f"<p>{escape(' '.join(said.sentences))}</p>"
        + (f'<ul class="tiles">{tiles}</ul>' if tiles else "")
        + (f'<div class="worse"><p>What got worse</p><ul>{worse}</ul></div>' if worse else "")
        + f'<p class="note">{_inventory(results)}</p>'
        '<nav aria-label="Sections"><a href="#results">Results</a>'
        '<a href="#pictures">Pictures</a><a href="#curves">Curves</a>'
        '<a href="#words">What the words mean</a></nav></header>'
    )


def _inventory(results: Results) -> str:
    lists = (
        ("Networks", results.networks),
        ("Variants", results.variants),
        ("Evaluation sets", results.datasets),
    )
    return " · ".join(f"{name}: {escape(', '.join(names))}" for name, names in lists)


def _sign(tone: str) -> str:
    sign, word = {"good": ("✓", "better"), "bad": ("✗", "worse"), "same": ("=", "unchanged")}[tone]
    return f'<span aria-hidden="true">{sign}</span><span class="aside">{word}: </span>'


def _missing(results: Results) -> str:
    if not results.missing:
        return ""
    items = "".join(f"<li>{escape(' / '.join(key))}</li>" for key in results.missing)
    text = "Not evaluated yet (network / variant / evaluation set)"
    return f'<div class="missing"><p>{text}</p><ul>{items}</ul></div>'


def _results(results: Results) -> str:
    head = "".join(
        f'<th scope="col">{a}<span class="unit">{b}</span></th>'
        for a, b in (column.title for column in COLUMNS)
    )
    rows = []
    for dataset in results.datasets:
        for network in results.networks:
            group = [c for c in results.ordered if (c.network, c.dataset) == (network, dataset)]
            for index, cell in enumerate(group):
                names = (
                    f'<th scope="rowgroup" class="text" rowspan="{len(group)}">{escape(dataset)}'
                    f'<span class="unit soft"><br>{escape(network)}</span></th>'
                    if index == 0
                    else ""
                )
                before = results.cells.get((network, "baseline", dataset))
                values = "".join(
                    _value(column, cell, before if before is not cell else None)
                    for column in COLUMNS
                )
                rows.append(
                    f"<tr{' class=first' if index == 0 else ''}>{names}"
                    f'<th scope="row"><span class="variant {escape(cell.variant)}"></span>'
                    f"{escape(cell.variant)}</th>{values}</tr>"
                )
    table = (
        '<table><thead><tr><th scope="col" class="text">evaluation set'
        '<span class="unit">network</span></th><th scope="col" class="text">variant</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return (
        '<h2 id="results">Results</h2><p class="soft">One row per network, variant and evaluation '
        "set. FP and FN count segments before and after meta classification. Marks compare a row "
        "with its baseline: <span class='chip good'>▲ better</span> "
        "<span class='chip bad'>▼ worse</span> A dash: not defined on this set.</p>"
        + _wide(table, "Results")
    )


def _wide(table: str, name: str) -> str:
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(name)}">{table}</div>'


def _value(column: Column, cell: Cell, before: Cell | None) -> str:
    value = cell.value(column.key)
    text = column.text(value)
    if before is not None:
        text += _chip(column, before.value(column.key), value)
    ends = cell.interval(column.key)
    if ends is not None:
        text += f'<span class="range">{column.text(ends[0])} to {column.text(ends[1])}</span>'
    return f"<td>{text}</td>"


def _chip(column: Column, before: float | None, after: float | None) -> str:
    gain = column.gain(before, after)
    if gain is None or before is None or after is None:
        return ""
    step = NOISE if column.kind == "percent" else 0.5
    tone = "same" if abs(gain) < step else "good" if gain > 0 else "bad"
    change = 100 * (after - before) if column.kind == "percent" else after - before
    text = f"{change:+.1f}" if column.kind == "percent" else f"{change:+.0f}"
    sign = {"good": "▲", "bad": "▼", "same": "="}[tone]
    word = {"good": "better", "bad": "worse", "same": "unchanged"}[tone]
    return (
        f'<span class="chip {tone}"><span aria-hidden="true">{sign}</span> '
        f'{text.replace("-", "−")}<span class="aside"> {word}</span></span>'
    )


def _pictures(results: Results) -> str:
    blocks = []
    for dataset in results.datasets:
        scenes = _scenes(results, dataset)
        if scenes:
            blocks.append(f"<h3>{escape(dataset)}</h3>{scenes}")
    if not blocks:
        return ""
    swatches = (
        (figures.SPECIAL_COLOURS[OOD], "OoD object"),
        (figures.SPECIAL_COLOURS[IN], "known"),
        (figures.SPECIAL_COLOURS[NEUTRAL], "neutral: not counted"),
        (figures.SPECIAL_COLOURS[IGNORE], "void"),
        (figures.KEPT, "segment kept"),
        (figures.REJECTED, "segment rejected (hatched)"),
        (figures.TRUTH, "outline of the true object"),
    )
    legend = "".join(
        f'<li><span class="swatch" style="background:rgb{colour}"></span>{name}</li>'
        for colour, name in swatches
    )
    return (
        '<h2 id="pictures">Pictures</h2><p class="soft">What the camera saw, what is true, and '
        "what the networks made of it before and after OoD training.</p>"
        f'<ul class="legend">{legend}<li>score: known<span class="ramp"></span>unknown</li></ul>'
        + "".join(blocks)
    )


def _scenes(results: Results, dataset: str) -> str:
    cells = [cell for cell in results.ordered if cell.dataset == dataset]
    is_ood = any(cell.value("auroc") is not None for cell in cells)
    kind, what = ("score", "score") if is_ood else ("classes", "classes")
    text = []
    for image_id in sorted({image_id for cell in cells for image_id in cell.pictures}):
        shown = [cell for cell in cells if image_id in cell.pictures]
        common = [
            _figure(path, f"{name} of {image_id}", name)
            for part, name in (("image", "image"), ("target", "target"))
            if (path := _first(shown, image_id, part)) is not None
        ]
        rows = [f'<div class="strip">{"".join(common)}</div>'] if common else []
        for network in results.networks:
            strip = [
                _figure(
                    cell.pictures[image_id][kind],
                    f"{what} of {network}, {cell.variant}, on {image_id}",
                    f"{network}: {what}, {cell.variant}",
                )
                for cell in shown
                if cell.network == network and kind in cell.pictures[image_id]
            ]
            last = [c for c in shown if c.network == network and "segments" in c.pictures[image_id]]
            if is_ood and last:
                strip.append(
                    _figure(
                        last[-1].pictures[image_id]["segments"],
                        f"segments of {network}, {last[-1].variant}, on {image_id}",
                        f"{network}: segments kept and rejected, {last[-1].variant}",
                    )
                )
            if strip:
                rows.append(f'<div class="strip">{"".join(strip)}</div>')
        if rows:
            text.append(
                f'<section class="scene"><h4>{escape(image_id)}</h4>{"".join(rows)}</section>'
            )
    return "".join(text)


def _first(cells: Sequence[Cell], image_id: str, kind: str) -> Path | None:
    found = (cell.pictures[image_id].get(kind) for cell in cells)
    return next((path for path in found if path is not None), None)


def _figure(path: Path, alt: str, caption: str) -> str:
    data, media = figures.thumbnail(path, PICTURE_WIDTH)
    source = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><img src="{source}" alt="{escape(alt)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _curves(results: Results) -> str:
    blocks: list[str] = []
    for dataset in results.datasets:
        for network in results.networks:
            group = [c for c in results.ordered if (c.network, c.dataset) == (network, dataset)]
            plots = charts(group, f"c{len(blocks)}")
            if plots:
                inner = "".join(
                    f"<figure><figcaption>{escape(p.title)}</figcaption>{p.svg}</figure>"
                    for p in plots
                )
                blocks.append(
                    f"<h3>{escape(dataset)}, {escape(network)}</h3>"
                    f'<div class="charts">{inner}</div>'
                )
    if not blocks:
        return ""
    return (
        '<h2 id="curves">Curves</h2><p class="soft">Baseline dashed blue-grey, OoD-trained solid '
        "orange. Dots: the operating point of meta classification.</p>" + "".join(blocks)
    )


def _scores(results: Results) -> str:
    return _nested_table(
        results, "scores", "All scores", "Other scores from the same stored logits."
    )


def _nested_table(results: Results, section: str, title: str, text: str) -> str:
    """Return the figures of ``metrics[section][name][key]``, one row per cell and name."""
    found = [
        (cell, name, values)
        for cell in results.ordered
        for name, values in cell.section(section).items()
        if isinstance(values, Mapping)
    ]
    keys: list[str] = []
    for cell, name, values in found:
        keys += [k for k in values if k not in keys and cell.value(section, name, k) is not None]
    if not keys:
        return ""
    head = "".join(f'<th scope="col">{escape(key)}</th>' for key in keys)
    rows, last = [], ("", "", "")
    for cell, name, _ in found:
        key = (cell.dataset, cell.network, cell.variant)
        values_ = "".join(f"<td>{_plain(cell.value(section, name, k))}</td>" for k in keys)
        names = "".join(
            f'<td class="text">{escape(text) if key != last else ""}</td>' for text in key
        )
        first = " class=first" if key != last else ""
        rows.append(f'<tr{first}>{names}<th scope="row">{escape(name)}</th>{values_}</tr>')
        last = key
    table = (
        '<table><thead><tr><th class="text">evaluation set</th><th class="text">network</th>'
        f'<th class="text">variant</th><th class="text">{escape(section.removesuffix("s"))}</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return f"<h2>{escape(title)}</h2><p class='soft'>{escape(text)}</p>{_wide(table, title)}"


def _plain(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value == int(value) and abs(value) > 1 else f"{100 * value:.1f}"


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
        "(arXiv 2012.06575). Same inputs, same page.</p></footer>"
    )
