"""The report: what is read back, what is said, and that the page stands alone."""

import base64
import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from evaluation_folder import DATASETS, NETWORKS, VARIANTS, write_cell, write_evaluation
from meta_ood import config
from meta_ood import report as reporting
from meta_ood.cli import main
from meta_ood.data.context import Machine, no_log
from meta_ood.pipeline import report
from meta_ood.report import Cell, Results, verdict
from meta_ood.report.differences import paired_interval

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    write_evaluation(root)
    return root


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report.run(PARAMS, evaluation=evaluation, report=folder, log=no_log, machine=Machine())
    return folder


def results_of(values, network="mini", dataset="fs"):
    """Results of one network from ``variant -> metrics``."""
    cells = {(network, v, dataset): Cell(network, v, dataset, m) for v, m in values.items()}
    return Results((network,), VARIANTS, (dataset,), cells)


class Page(HTMLParser):
    """Collect what the tests ask about: tags, ids, attributes and balance."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.open, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def page(written):
    text = (written / "index.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_page_is_well_formed(page):
    _, parsed = page
    assert not parsed.open
    assert len(parsed.ids) == len(set(parsed.ids))


def test_page_stands_alone(page):
    text, parsed = page
    assert "http:" not in text
    assert "https:" not in text
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/", "#"))
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target[0] == "#"
        assert target[1:] in parsed.ids


def test_links_lead_somewhere(page):
    _, parsed = page
    for _, attributes in parsed.tags:
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in parsed.ids


def test_every_picture_has_words(page):
    _, parsed = page
    pictures = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(pictures) >= len(NETWORKS) * len(DATASETS)
    assert all(attributes["alt"] for attributes in pictures)
    charts = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert charts
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)


def test_page_names_every_cell(page):
    _, parsed = page
    words = " ".join(parsed.words)
    for name in (*NETWORKS, *VARIANTS, *DATASETS, "AUROC", "FPR95", "AUPRC", "mIoU", "FP", "FN"):
        assert name in words


def test_report_when_inputs_are_the_same(evaluation, tmp_path):
    params = PARAMS.model_copy(update={"networks": NETWORKS[:1]})
    for name, workers in (("first", 1), ("second", 7)):
        report.run(
            params,
            evaluation=evaluation,
            report=tmp_path / name,
            log=no_log,
            machine=Machine(workers=workers),
        )
    names = {path.name for path in (tmp_path / "first").iterdir()}
    assert names == {"index.html", "results.csv", "results.md", "results.txt"}
    for name in names:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_report_when_cells_are_missing(tmp_path, caplog):
    folder = tmp_path / "evaluate"
    write_cell(
        folder / NETWORKS[0] / "baseline" / DATASETS[0], NETWORKS[0], "baseline", DATASETS[0]
    )
    report.run(PARAMS, evaluation=folder, report=tmp_path / "r", log=no_log, machine=Machine())
    text = (tmp_path / "r/index.html").read_text(encoding="utf-8")
    assert f"{NETWORKS[0]} / ood_trained / {DATASETS[0]}" in text
    assert f"{NETWORKS[0]} / baseline / {DATASETS[0]}" not in text
    assert len(caplog.records) == 11


def test_report_when_nothing_is_there(tmp_path):
    report.run(PARAMS, evaluation=tmp_path / "no", report=tmp_path, log=no_log, machine=Machine())
    assert "There are no results yet." in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_csv_holds_fractions_of_every_cell(evaluation, written):
    rows = list(csv.DictReader(io.StringIO((written / "results.csv").read_text())))
    assert len(rows) == len(NETWORKS) * len(VARIANTS) * len(DATASETS)
    results = reporting.read_results(evaluation, NETWORKS, VARIANTS, DATASETS)
    for row in rows:
        cell = results.cells[row["network"], row["variant"], row["dataset"]]
        for key in ("auroc", "fpr95", "miou", "true_segments_removed"):
            expected = cell.metrics.get(key)
            assert (row[key] == "") == (expected is None)
            if expected is not None:
                assert float(row[key]) == pytest.approx(expected, rel=1e-9)


def test_text_table_lines_are_aligned(written):
    lines = (written / "results.txt").read_text().splitlines()
    body = lines[3 : 3 + 12]
    assert all(len(line) <= 120 for line in lines)
    assert len({len(line) for line in body}) == 1
    assert [line.split()[0] for line in body[::2]] == list(NETWORKS) * len(DATASETS)


def test_markdown_table_has_one_row_per_cell(written):
    lines = (written / "results.md").read_text().splitlines()
    assert len(lines) == 2 + 12
    assert len({line.count("|") for line in lines}) == 1


def test_metrics_file_when_it_is_no_json(tmp_path):
    folder = tmp_path / "n" / "baseline" / "d"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json: not JSON"):
        reporting.read_results(tmp_path, ["n"], ["baseline"], ["d"])


def test_curve_file_when_a_row_is_short(tmp_path):
    folder = tmp_path / "n" / "baseline" / "d"
    (folder / "curves").mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / "curves/roc.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ValueError, match=r"roc\.csv: a row has fewer than 2 columns"):
        reporting.read_results(tmp_path, ["n"], ["baseline"], ["d"])


GOOD = {"baseline": {"auprc": 0.4, "fpr95": 0.3}, "ood_trained": {"auprc": 0.6, "fpr95": 0.1}}


@pytest.mark.parametrize(
    ("after", "start"),
    [
        ({"auprc": 0.6, "fpr95": 0.1}, "OoD training helped: AUPRC 40.0 → 60.0 %"),
        ({"auprc": 0.3, "fpr95": 0.4}, "OoD training hurt: AUPRC 40.0 → 30.0 %"),
        ({"auprc": 0.6, "fpr95": 0.4}, "OoD training gave a mixed picture"),
        ({"auprc": 0.4, "fpr95": 0.3}, "OoD training changed next to nothing"),
        ({"auprc": 0.6, "fpr95": 0.3}, "OoD training helped"),
        ({}, "No pair of baseline"),
    ],
)
def test_verdict_says_what_happened(after, start):
    said = verdict(results_of({"baseline": GOOD["baseline"], "ood_trained": after}))
    assert said.headline.startswith(start)


def test_verdict_names_what_got_worse():
    before = {"auroc": 0.9, "auprc": 0.5, "fpr95": 0.1, "miou": 0.8}
    after = {"auroc": 0.95, "auprc": 0.4, "fpr95": 0.2, "miou": 0.8}
    said = verdict(results_of({"baseline": before, "ood_trained": after}))
    assert said.worse == ("mini on fs: AUPRC 50.0 → 40.0 %, FPR95 10.0 → 20.0 %",)
    assert "did not change" in " ".join(said.sentences)


def test_verdict_counts_segments_over_sets():
    metrics = {
        "segment_false_positives": 10,
        "segment_false_positives_after_meta": 4,
        "segment_false_negatives": 3,
        "segment_false_negatives_after_meta": 5,
        "true_segments_removed": 2,
    }
    cells = {("mini", v, d): Cell("mini", v, d, metrics) for v in VARIANTS for d in ("laf", "fs")}
    said = verdict(Results(("mini",), VARIANTS, ("laf", "fs"), cells))
    assert (
        "Meta classification removed 12 of 20 false segments (60 %) and 4 true ones; "
        "missed objects went from 6 to 10."
    ) in said.sentences
    assert [(tile.before, tile.after) for tile in said.tiles] == [("20", "8")]


def test_verdict_counts_directions():
    def cells(variant, values):
        return {
            ("mini", variant, str(i)): Cell("mini", variant, str(i), {"auroc": v, "fpr95": v})
            for i, v in enumerate(values)
        }

    before, after = cells("baseline", [0.5, 0.5, 0.5]), cells("ood_trained", [0.6, 0.4, 0.5])
    said = verdict(Results(("mini",), VARIANTS, ("0", "1", "2"), before | after))
    assert said.sentences[0] == "AUROC rose in 1 of 3 comparisons, fell in 1, stayed in 1."
    assert said.sentences[1] == "FPR95 fell in 1 of 3 comparisons, rose in 1, stayed in 1."
    said = verdict(Results(("mini",), VARIANTS, ("0", "1"), before | after))
    assert said.sentences[0] == "AUROC rose in 1 of 2 comparisons, fell in 1."
    said = verdict(Results(("mini",), VARIANTS, ("1",), before | after))
    assert said.sentences[:2] == ("AUROC fell.", "FPR95 fell.")


def test_verdict_keeps_sets_without_objects_apart():
    def metrics(before, after, components):
        return {
            "components": components,
            "segment_false_positives": before,
            "segment_false_positives_after_meta": after,
            "segment_false_negatives": 0,
            "segment_false_negatives_after_meta": 0,
        }

    cells = {("mini", v, "fs"): Cell("mini", v, "fs", metrics(10, 5, 3)) for v in VARIANTS} | {
        ("mini", v, "val"): Cell("mini", v, "val", metrics(n, n, 0))
        for v, n in zip(VARIANTS, (70, 90), strict=True)
    }
    text = " ".join(verdict(Results(("mini",), VARIANTS, ("fs", "val"), cells)).sentences)
    assert "removed 5 of 10 false segments (50 %)" in text
    assert "Where there is nothing to find (val), false segments went from 70 to 90." in text


def test_names_are_escaped():
    cells = {("<b>", "baseline", "d"): Cell("<b>", "baseline", "d", {"auroc": 0.5})}
    text = reporting.html_page("<i>", Results(("<b>",), ("baseline",), ("d",), cells), {"<u>": "&"})
    assert "<b>" not in text
    assert "<i>" not in text
    assert "<u>" not in text


def text_of(page):
    return re.sub(r"\s+", " ", " ".join(Page(page).words)).replace("\xa0", " ")


def test_page_marks_changes_for_better_and_worse():
    results = results_of(
        {
            "baseline": {"auroc": 0.9, "fpr95": 0.1, "auprc": 0.5},
            "ood_trained": {"auroc": 0.95, "fpr95": 0.2, "auprc": 0.50001},
        }
    )
    text = text_of(reporting.html_page("t", results, {}))
    assert "✓ +5.0 better 95.0" in text
    assert "✗ +10.0 worse 20.0" in text
    assert "= ±0.0 unchanged 50.0" in text


def test_page_when_only_the_baseline_is_there():
    text = text_of(
        reporting.html_page("t", results_of({"baseline": {"auroc": 0.9, "miou": 0.7}}), {})
    )
    assert "mini / ood_trained / fs" in text
    assert "90.0" in text
    assert "better 90.0" not in text


def test_best_score_is_bold():
    scores = {
        "entropy": {"auroc": 0.9, "fpr95": 0.1},
        "energy": {"auroc": 0.8, "fpr95": 0.05},
    }
    page = reporting.html_page("t", results_of({"ood_trained": {"scores": scores}}), {})
    assert re.findall(r"<b>([^<]*)</b>", page) == ["90.0", "5.0"]


def test_segment_f1_before_and_after_meta_classification():
    counts = dict(
        zip(("true_positives", "false_positives", "false_negatives"), (9, 8, 1), strict=True)
    )
    stages = {
        variant: {
            "components": 5,
            "segment": {"before": counts | {"f1": f1}, "after_meta": counts | {"f1": f1 + 0.2}},
        }
        for variant, f1 in (("baseline", 0.5), ("ood_trained", 0.6))
    }
    text = text_of(reporting.html_page("t", results_of(stages), {}))
    assert "all segments 9 → unchanged 9 8 → unchanged 8 1 → unchanged 1 50.0 → better 60.0" in text
    assert "1 → unchanged 1 70.0 → better 80.0" in text
    nothing = {name: {**metrics, "components": 0} for name, metrics in stages.items()}
    assert "all segments" not in text_of(reporting.html_page("t", results_of(nothing), {}))


def test_calibration_of_the_meta_classifier_is_drawn(page):
    labels = [attributes.get("aria-label", "") for tag, attributes in page[1].tags if tag == "svg"]
    drawn = [label for label in labels if label.startswith("Calibration of the meta classifier")]
    assert len(drawn) == 2 * len(NETWORKS)
    # ten segments a tenth off, and twenty a tenth off before OoD training only
    assert "baseline: expected calibration error 7.5 %" in drawn[0]
    assert "ood_trained: expected calibration error 2.5 %" in drawn[0]


def test_intervals_are_shown():
    metrics = {"auroc": 0.9, "intervals": {"auroc": [0.85, 0.93], "auprc": [None, None]}}
    page = reporting.html_page("t", results_of({"baseline": metrics}), {})
    assert "85.0 to 93.0" in page


def test_segments_are_compared_after_meta_classification():
    def metrics(before, after):
        return {
            "segment_false_positives": before,
            "segment_false_positives_after_meta": after,
        }

    results = results_of({"baseline": metrics(30, 10), "ood_trained": metrics(40, 7)})
    assert "✓ −3 better 40 → 7" in text_of(reporting.html_page("t", results, {}))


def test_cost_is_plotted_for_networks_with_both_figures(page):
    text, _ = page
    found = re.findall(r'aria-label="Gain against cost on (\w+)\. ([^"]*)"', text)
    assert [dataset for dataset, _ in found] == list(DATASETS[:2])
    for _, words in found:
        assert all(f"{network}: mIoU" in words for network in NETWORKS)


def test_large_pictures_are_made_smaller(tmp_path):
    folder = tmp_path / NETWORKS[0] / "baseline" / DATASETS[0]
    write_cell(folder, NETWORKS[0], "baseline", DATASETS[0], size=(400, 800))
    results = reporting.read_results(tmp_path, NETWORKS[:1], VARIANTS[:1], DATASETS[:1])
    page = reporting.html_page("t", results, {})
    sources = re.findall(r'src="data:(image/\w+);base64,([^"]*)"', page)
    assert len(sources) == 4  # image, target, score, segments
    for media, data in sources:
        assert media == "image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (640, 320)


def with_replicates(**columns):
    curves = {"bootstrap": {key: np.array(values) for key, values in columns.items()}}
    return Cell("mini", "any", "fs", {}, curves)


def test_paired_interval_against_quantiles():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 1, 400), rng.normal(0.3, 0.05, 400)
    before, after = with_replicates(auroc=shared), with_replicates(auroc=shared + own)
    low, high = paired_interval(before, after, "auroc")
    ordered = np.sort(own)
    assert ordered[9] <= low <= ordered[10]
    assert ordered[389] <= high <= ordered[390]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"auroc": [0.1]}),
        ({"auroc": [0.1, 0.2]}, {"auroc": [0.1]}),
        ({"auroc": [np.nan] * 3 + [0.1]}, {"auroc": [0.1] * 4}),
    ],
)
def test_paired_interval_when_there_is_none(before, after):
    assert paired_interval(with_replicates(**before), with_replicates(**after), "auroc") is None


@pytest.mark.parametrize(("shift", "is_chance"), [(0.0, True), (0.5, False)])
def test_changes_that_could_be_chance_are_marked(shift, is_chance):
    noise = np.random.default_rng(1).normal(0, 0.1, 100)
    cells = {
        ("mini", v, "fs"): Cell(
            "mini",
            v,
            "fs",
            {"auroc": 0.4 + s + 0.01 * (v != "baseline")},
            {"bootstrap": {"auroc": values}},
        )
        for v, s, values in (("baseline", 0, noise), ("ood_trained", shift, shift + noise[::-1]))
    }
    page = reporting.html_page("t", Results(("mini",), VARIANTS, ("fs",), cells), {})
    assert ("better, could be chance" in page) == is_chance
    assert "How sure is that" in page


def test_objects_are_counted_by_size(page):
    _, parsed = page
    words = re.sub(r"\s+", " ", " ".join(parsed.words)).replace("\xa0", " ")
    assert "1 to 99" in words
    assert "4 → 5 of 12" in words
    assert "1\u202f000" not in words  # no object of that size


def test_found_objects_stand_under_their_labels(page):
    text, parsed = page
    assert "Objects found by their label" in " ".join(parsed.words)
    row = text[text.index('<th scope="row">Kid (on a bobby car)</th>') :]
    assert "6&nbsp;→" in row[: row.index("</tr>")]
    assert "of 10" in row[: row.index("</tr>")]


def test_classes_are_named(page):
    text, _ = page
    assert '<th scope="row">sidewalk</th>' in text


def test_report_over_seeds(evaluation, tmp_path):
    """Everything else stays as it is; the new section stands in the navigation."""
    text = (
        "Experiment,rev,data/evaluate/mini/ood_trained/fs/metrics.json:auprc,"
        "data/evaluate/mini/ood_trained/fs/metrics.json:miou,seed\na,1,0.4,0.7,0\nb,2,0.6,0.7,1\n"
    )
    pages = []
    for name, more in (("without", {}), ("with", {"experiments": text})):
        report.run(
            PARAMS,
            evaluation=evaluation,
            report=tmp_path / name,
            log=no_log,
            machine=Machine(),
            **more,
        )
        pages.append((tmp_path / name / "index.html").read_text(encoding="utf-8"))
    plain, seeds = pages
    assert '<a href="#seeds">Over seeds</a>' in seeds
    first, last = seeds.index('<h2 id="seeds">'), seeds.index('<h2 id="pictures">')
    without = seeds[:first].replace('<a href="#seeds">Over seeds</a>', "") + seeds[last:]
    assert without.split() == plain.split()
    assert '50.0&nbsp;<span class="soft">± 14.1</span>' in seeds[first:last]
    page = Page(seeds)
    assert len(set(page.ids)) == len(page.ids)
    assert not page.open


def test_experiments_stay_out_of_what_dvc_owns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sweep.csv").write_text("a\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["report", "--experiments", "sweep.csv"])
    assert result.exit_code == 2
    assert "--out" in result.output
