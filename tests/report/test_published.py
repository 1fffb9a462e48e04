"""Published results beside ours: matching, remarks, texts, and a damaged table."""

import dataclasses
import re
from pathlib import Path

import pytest

from meta_ood import config
from meta_ood.report import published
from meta_ood.report.page import report_page, results_tables
from meta_ood.report.published import MARKS
from meta_ood.report.results import Evaluation, Results

ROOT = Path(__file__).parents[2]
ROWS = published.read_published()
PAPER = config.load(ROOT / "configs" / "paper.yaml")


def results_of(params, metrics=None):
    cells = {
        (network, variant, dataset): Evaluation(network, variant, dataset, metrics or {})
        for network in params.networks
        for variant in params.variants
        for dataset in params.evaluation_sets
    }
    return Results(params.networks, params.variants, params.evaluation_sets, cells)


def comparisons(params=PAPER, metrics=None):
    return published.match_published(results_of(params, metrics), params.network, params.datasets, ROWS)


def test_every_cell_of_the_paper_has_a_row_and_none_has_two_of_a_kind():
    found = comparisons()
    cells = {(one.evaluation.network, one.evaluation.variant, one.evaluation.dataset) for one in found}
    assert cells == set(results_of(PAPER).evaluations)
    kinds = [(one.evaluation, one.score, one.protocol, one.lines[1].protocol) for one in found]
    assert len({(id(cell), *rest) for cell, *rest in kinds}) == len(kinds)


@pytest.mark.parametrize("name", ["params.yaml", "configs/streets.yaml"])
def test_nothing_stands_beside_the_miniatures(name):
    assert comparisons(config.load(ROOT / name)) == []
    assert "Published" not in "".join(results_tables(results_of(PAPER)).values())


@pytest.mark.parametrize(
    ("override", "dataset"),
    [
        ("datasets.lost_and_found.options.reading=smiyc", "lost_and_found"),
        ("datasets.lost_and_found.split=testNoKnown", "lost_and_found"),
        ("datasets.cityscapes_val.split=train", "cityscapes_val"),
        ("datasets.cityscapes_val.options={annotation: coarse}", "cityscapes_val"),
        ("network.deeplabv3plus.architecture=deeplabv3plus_mini", None),
    ],
)
def test_other_images_or_networks_have_no_published_figures(override, dataset):
    found = comparisons(config.load(ROOT / "configs" / "paper.yaml", [override]))
    assert found
    if dataset:
        assert dataset not in {one.evaluation.dataset for one in found}
    else:
        assert {one.evaluation.network for one in found} == {"dualgcn"}


METRICS = {
    "frames": 1203,
    "miou": 0.9,
    "protocols": {
        "exact": {"entropy": {"auroc": 0.5}, "max_logit": {"auroc": 0.6, "fpr95": None}},
        "published": {"entropy": {"auroc": 0.4, "auprc": 0.3}, "max_logit": {"auroc": None}},
    },
}


def of(found, *key):
    (one,) = [
        c for c in found
        if (*c.evaluation.key, c.score) == key
    ]  # fmt: skip
    return one


def test_our_figures_are_of_the_published_protocol_where_we_have_it():
    found = comparisons(metrics=METRICS)
    ours = of(found, "deeplabv3plus", "baseline", "lost_and_found", "entropy")
    assert (ours.protocol, ours.lines[0].metrics) == ("published", ("40.00", "–", "30.00", ""))
    ours = of(found, "deeplabv3plus", "baseline", "lost_and_found", "max_logit")
    assert (ours.protocol, ours.lines[0].metrics) == ("exact", ("60.00", "–", "–", ""))
    ours = of(found, "deeplabv3plus", "baseline", "cityscapes_val", "")
    assert (ours.protocol, ours.lines[0].metrics) == ("", ("", "", "", "90.00"))


def test_remarks_name_what_cannot_be_compared():
    found = comparisons(metrics=METRICS)
    assert of(found, "deeplabv3plus", "baseline", "lost_and_found", "entropy").remarks == []
    (remark,) = of(found, "deeplabv3plus", "baseline", "fishyscapes_static", "energy").remarks
    assert remark == "fishyscapes_static has 1203 frames here, 30 where published"
    other = config.load(ROOT / "configs" / "paper.yaml", ["network.dualgcn.options={head_planes: 8}"])
    (remark,) = of(comparisons(other), "dualgcn", "baseline", "lost_and_found", "entropy").remarks
    assert remark == "dualgcn is not the published network: options head_planes"


def test_marks_and_question_marks_are_as_given():
    for row in ROWS:
        figures = {row.auroc, row.fpr95, row.auprc, row.miou}
        numbers = [f for f in figures if re.search(r"\d", f)]
        assert bool(row.mark) == bool(numbers), row
        assert row.source
        assert row.mark in {*MARKS, ""}
        for text in numbers:
            for number in re.findall(r"[\d.]+", text):
                assert 0 <= float(number) <= 100
    text = results_tables(results_of(PAPER), comparisons())["results.txt"]
    assert all(f"[{mark}]" in text for mark in MARKS)
    assert "[?]" in text


def test_means_of_retrainings_are_means_and_newer_results_are_there():
    """The notebook's fitted peaks were FPR95 31, AUPRC 68 and mIoU 86.5."""
    retrained = [row for row in ROWS if "50 retrainings" in row.source]
    assert [(row.fpr95[:3], row.auprc[:8], row.miou[:5]) for row in retrained] == [
        ("~36", "63 to 64", ""),
        ("", "", "~86.3"),
    ]
    newer = {(r.sets, r.score): (r.auprc, r.fpr95) for r in ROWS if "NeurIPS 2024" in r.source}
    assert newer == {
        ("road_anomaly:all", "entropy"): ("48.85", "31.77"),
        ("road_anomaly:all", "other"): ("74.60", "16.08"),
        ("road_anomaly21:test", "other"): ("88.06", "8.21"),
        ("road_obstacle21:test", "other"): ("90.71", "0.26"),
    }


def test_texts_hold_every_published_row():
    found = comparisons(metrics=METRICS)
    count = sum(len(one.lines) for one in found)
    tables = results_tables(results_of(PAPER, METRICS), found)
    markdown = tables["results.md"].partition("## Published results")[2].splitlines()
    body = [line for line in markdown if line.startswith("| ")][2:]
    assert len(body) == count
    assert len({line.count(" | ") for line in body}) == 1
    page = report_page("t", results_of(PAPER, METRICS), {}, found)
    section = page[page.index('id="published"') :].partition("</table>")[0]
    assert section.count("<tr") == 1 + len(found) + count  # header, headings, lines
    assert all(line == line.rstrip() for line in tables["results.txt"].splitlines())


def test_the_names_in_the_table_are_known():
    from meta_ood.datasets import READERS
    from meta_ood.metrics.pixel import PROTOCOLS
    from meta_ood.models import MODELS
    from meta_ood.scores import SCORES

    scores = {*SCORES, "standardised_max_logit", "other", ""}
    for row in ROWS:
        assert row.architecture in MODELS
        assert row.variant in PAPER.variants
        assert row.score in scores
        assert row.protocol in {*PROTOCOLS, ""}
        for place in row.sets.split():
            reader, split = place.split(":")
            layout = READERS[reader].layout()
            assert layout.splits[split] == row.frames


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("auroc", "roc", 1), "expected the header"),
        (lambda text: text.replace(",A,", ",X,", 1), "line 5: .*a mark of A, I, T, U"),
        (lambda text: text.replace(",1203,", ",all,", 1), "line 2: expected a number of frames"),
        (lambda text: text + "a,b\n", "line 37: expected 13 columns"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, change, message):
    path = tmp_path / "published.csv"
    path.write_text(change(Path(published.__file__).with_name("published.csv").read_text()))
    with pytest.raises(ValueError, match=rf"published\.csv.*{message}"):
        published.read_published(path)


def test_rows_are_values():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROWS[0].auroc = "1"
