"""The page and its tables: everything that was evaluated, in one file, the same bytes again."""

import base64
import collections
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from evaluation_folder import DATASETS, NETWORKS, VARIANTS, write_cell, write_evaluation
from experiments import EXPERIMENTS_CSV
from meta_ood import config
from meta_ood.cli import main
from meta_ood.data.context import Machine, no_log
from meta_ood.pipeline import report
from meta_ood.report.compare import read_experiments
from meta_ood.report.page import pareto_page, report_page, results_tables
from meta_ood.report.results import Evaluation, Results, network_metrics, read_evaluations, read_results

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")


ONE = {"networks": NETWORKS[:1], "evaluation_sets": DATASETS[:1]}
"""One network on one dataset: a quick report."""


def write_report(evaluation, folder, params=PARAMS, **more):
    paths = {"evaluation": evaluation, "report": folder, "summary": folder.with_suffix(".json")}
    # these evaluations have no masks, so no segments are read
    paths |= {name: evaluation.parent / name for name in ("prepared", "segments", "meta")}
    report.run(params, **paths, log=no_log, machine=Machine(), **more)
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    write_evaluation(root)
    return root


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(evaluation, folder)
    return folder


def results_of(values, network="mini", dataset="fs", curves=None):
    """Results of one network from ``variant -> metrics``."""
    found = [Evaluation(network, v, dataset, m, (curves or {}).get(v, {})) for v, m in values.items()]
    return Results((network,), VARIANTS, (dataset,), {one.key: one for one in found})


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
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def text_of(page):
    return re.sub(r"\s+", " ", " ".join(Page(page).words)).replace("\xa0", " ")


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
    assert not {"link", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    # a browser runs the one script whose hash the policy names, and asks no host for anything
    policies = [a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies == [f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/", "#"))
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target[0] == "#"
        assert target[1:] in parsed.ids


def test_links_lead_to_a_section(page):
    _, parsed = page
    links = [a["href"] for tag, a in parsed.tags if tag == "a"]
    assert len(links) > 10
    assert {link[1:] for link in links} <= set(parsed.ids)


def test_every_picture_and_plot_has_a_description(page):
    _, parsed = page
    pictures = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(pictures) >= len(NETWORKS) * len(DATASETS)
    assert all(attributes["alt"] for attributes in pictures)
    plots = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    assert plots
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)


def test_page_names_every_evaluation(page):
    words = " ".join(page[1].words)
    for name in (*NETWORKS, *VARIANTS, *DATASETS, "AUROC", "FPR95", "AUPRC", "mIoU", "FP", "FN"):
        assert name in words


def test_hidden_texts_scroll_with_their_table(page):
    """Else they widen the page, which then pans sideways on a phone."""
    assert re.search(r"\.wide \{[^}]*position: relative", page[0])
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", page[0])


def test_same_inputs_give_the_same_bytes(evaluation, tmp_path):
    params = PARAMS.model_copy(update=ONE)
    for name in ("first", "second"):
        write_report(evaluation, tmp_path / name, params)
    names = {path.relative_to(tmp_path / "first").as_posix() for path in (tmp_path / "first").rglob("*.*")}
    curves = {f"curves/{name}.csv" for name in ("roc", "pr", "trade_off", "froc")}
    assert names == {"index.html", "known_alarms.csv", "results.csv", "results.md", "results.txt"} | curves
    for name in names:
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_dvc_plots_what_the_report_writes(written):
    root = Path(__file__).parents[2]
    definitions = yaml.safe_load((root / "dvc.yaml").read_text())["plots"]
    assert len(definitions) == 4
    for (plot,) in (one.values() for one in definitions):
        assert (root / f".dvc/plots/{plot['template']}.json").is_file()
        ((path, column),) = plot["y"].items()
        text = (written / Path(path).relative_to("data/report")).read_text()
        rows = list(csv.DictReader(io.StringIO(text)))
        if rows:  # the made-up evaluations have no curve of a budget, and another column of operating points
            assert {"network", "variant", "dataset", plot["x"], column} <= set(rows[0])
            assert {(row["network"], row["variant"]) for row in rows} == {(n, v) for n in NETWORKS for v in VARIANTS}
            assert max(collections.Counter((r["network"], r["variant"], r["dataset"]) for r in rows).values()) <= 200


def test_missing_evaluations_are_refused_and_named(tmp_path):
    folder = tmp_path / "evaluate"
    key = (NETWORKS[0], "baseline", DATASETS[0])
    write_cell(folder.joinpath(*key), *key)
    with pytest.raises(FileNotFoundError, match=f"lacks 11 of 12 .*{NETWORKS[0]}/ood_trained/{DATASETS[0]}: run dvc"):
        write_report(folder, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_three_metrics_of_each_network_for_dvc(evaluation, written):
    """Few enough for a line of `dvc exp show`; of the first set that has each, after OoD training."""
    found = json.loads(written.with_suffix(".json").read_text())
    cells = read_evaluations(evaluation)
    for network in NETWORKS:
        of_objects, of_classes = (cells[network, "ood_trained", name] for name in ("lost_and_found", "cityscapes_val"))
        expected = {key: of_objects.value(key) for key in ("auprc", "fpr95")} | {"miou": of_classes.value("miou")}
        assert found.pop(network) == expected
    assert not found
    assert network_metrics(results_of({"baseline": {"auprc": None}})) == {}


def test_csv_holds_fractions_of_every_evaluation(evaluation, written):
    rows = list(csv.DictReader(io.StringIO((written / "results.csv").read_text())))
    assert len(rows) == len(NETWORKS) * len(VARIANTS) * len(DATASETS)
    results = read_results(evaluation, NETWORKS, VARIANTS, DATASETS)
    for row in rows:
        one = results.evaluations[row["network"], row["variant"], row["dataset"]]
        for key in ("auroc", "fpr95", "miou", "true_segments_removed"):
            expected = one.metrics.get(key)
            assert (row[key] == "") == (expected is None)
            if expected is not None:
                assert float(row[key]) == pytest.approx(expected, rel=1e-9)


def test_text_and_markdown_have_one_line_per_evaluation(written):
    lines = (written / "results.txt").read_text().splitlines()
    assert all(len(line) <= 120 for line in lines)
    body = lines[3 : 3 + 12]
    assert len({len(line) for line in body}) == 1
    assert [line.split()[0] for line in body[::2]] == list(NETWORKS) * len(DATASETS)
    markdown = (written / "results.md").read_text().splitlines()
    rows = [line for line in markdown if line.startswith("|")]
    assert len(rows) == 2 + 12
    assert len({line.count("|") for line in rows}) == 1


@pytest.mark.parametrize("name", ["index.html", "results.md", "results.txt"])
def test_report_says_that_segments_are_judged_out_of_fold(written, name):
    text = re.sub(r"\s+", " ", (written / name).read_text(encoding="utf-8"))
    assert "classified out of fold" in text
    assert "fitted on all segments of its set, so it decides differently about some of them" in text


def test_report_counts_the_decisions_that_differ(written):
    values = {"segments": 100, "differing_decisions": 7}
    found = results_of({"baseline": values, "ood_trained": values | {"differing_decisions": 5}})
    tables = results_tables(found)
    for text in (report_page("t", found, {}), tables["results.md"], tables["results.txt"]):
        assert "decides differently about 12 of 200 segments" in re.sub(r"\s+", " ", text)
    # cells that an earlier version evaluated count neither among the segments
    old = results_of({"baseline": values, "ood_trained": {"segments": 50}})
    assert old.differing_decisions == "7 of 100 segments"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", "{", r"metrics\.json: not a JSON file"),
        ("metrics.json", "[]", r"metrics\.json: expected an object, got list"),
        ("curves/roc.csv", "a,b\n1,2\n3\n", r"roc\.csv: not a table of numbers"),
        ("curves/roc.csv", "a,b\n1,x\n", r"roc\.csv: not a table of numbers"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text, message):
    folder = tmp_path / "n" / "baseline" / "d"
    (folder / "curves").mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path, ["n"], ["baseline"], ["d"])


def test_columns_of_version_0_1_are_read(tmp_path):
    folder = tmp_path / "n" / "baseline" / "d"
    (folder / "curves").mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / "curves/meta_calibration.csv").write_text("said,seen,segments\n0.1,0.2,3\n")
    one = read_results(tmp_path, ["n"], ["baseline"], ["d"]).ordered[0]
    assert {k: v.tolist() for k, v in one.curves["meta_calibration"].items()} == {
        "predicted": [0.1],
        "observed": [0.2],
        "segments": [3],
    }


def test_names_are_escaped():
    results = results_of({"baseline": {"auroc": 0.5}}, network="<b>", dataset="<s>")
    text = report_page("<i>", results, {"<u>": "&"})
    assert not {"<b>", "<i>", "<u>", "<s>"} & set(re.findall(r"<\w+>", text))


def test_page_marks_changes_for_better_and_worse():
    results = results_of(
        {
            "baseline": {"auroc": 0.9, "fpr95": 0.1, "auprc": 0.5},
            "ood_trained": {"auroc": 0.95, "fpr95": 0.2, "auprc": 0.50001},
        }
    )
    text = text_of(report_page("t", results, {}))
    assert "✓ +5.0 better 95.0" in text
    assert "✗ +10.0 worse 20.0" in text
    assert "= ±0.0 unchanged 50.0" in text


def test_page_with_the_baseline_alone():
    text = text_of(report_page("t", results_of({"baseline": {"auroc": 0.9, "miou": 0.7}}), {}))
    assert "mini / ood_trained / fs" in text
    assert "90.0" in text
    assert "better 90.0" not in text


def test_best_score_is_bold():
    scores = {"entropy": {"auroc": 0.9, "fpr95": 0.1}, "energy": {"auroc": 0.8, "fpr95": 0.05}}
    page = report_page("t", results_of({"ood_trained": {"scores": scores}}), {})
    assert re.findall(r"<b>([\d.]*)</b>", page) == ["90.0", "5.0"]


def test_segment_f1_before_and_after_meta_classification():
    counts = {"true_positives": 9, "false_positives": 8, "false_negatives": 1}
    stages = {
        variant: {"components": 5, "segment": {"before": counts | {"f1": f1}, "after_meta": counts | {"f1": f1 + 0.2}}}
        for variant, f1 in (("baseline", 0.5), ("ood_trained", 0.6))
    }
    text = text_of(report_page("t", results_of(stages), {}))
    assert "all segments 9 → unchanged 9 8 → unchanged 8 1 → unchanged 1 50.0 → better 60.0" in text
    assert "1 → unchanged 1 70.0 → better 80.0" in text
    nothing = {name: {**metrics, "components": 0} for name, metrics in stages.items()}
    assert "all segments 9" not in text_of(report_page("t", results_of(nothing), {}))


def test_intervals_are_shown():
    metrics = {"auroc": 0.9, "intervals": {"auroc": [0.85, 0.93], "auprc": [None, None]}}
    assert "85.0 to 93.0" in report_page("t", results_of({"baseline": metrics}), {})


def test_segments_are_compared_after_meta_classification():
    key = "segment_false_positives"
    results = results_of(
        {"baseline": {key: 30, f"{key}_after_meta": 10}, "ood_trained": {key: 40, f"{key}_after_meta": 7}}
    )
    assert "✓ −3 better 40 → 7" in text_of(report_page("t", results, {}))


@pytest.mark.parametrize(("shift", "is_chance"), [(0.0, True), (0.5, False)])
def test_changes_that_could_be_chance_are_marked(shift, is_chance):
    noise = np.random.default_rng(1).normal(0, 0.1, 100)
    metrics = {"baseline": {"auroc": 0.4}, "ood_trained": {"auroc": 0.41 + shift}}
    curves = {"baseline": {"bootstrap": {"auroc": noise}}, "ood_trained": {"bootstrap": {"auroc": shift + noise[::-1]}}}
    page = text_of(report_page("t", results_of(metrics, curves=curves), {}))
    assert ("better, could be chance" in page) == is_chance
    assert "Changes and their intervals" in page


def test_large_pictures_are_made_smaller(tmp_path):
    folder = tmp_path / NETWORKS[0] / "baseline" / DATASETS[0]
    write_cell(folder, NETWORKS[0], "baseline", DATASETS[0], size=(400, 800))
    results = read_results(tmp_path, NETWORKS[:1], VARIANTS[:1], DATASETS[:1])
    sources = re.findall(r'src="data:(image/\w+);base64,([^"]*)"', report_page("t", results, {}))
    assert len(sources) == 4  # image, target, score, segments
    for media, data in sources:
        assert media == "image/jpeg"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (640, 320)


def test_objects_are_counted_by_size_and_label(page):
    text, _ = page
    words = text_of(text)
    assert "1 to 99" in words
    assert "4 → 5 of 12" in words
    assert "1\u202f000" not in words  # no object of that size
    assert re.search(r"Kid \(on a bobby car\) 6 → 6 of 10", words)


def test_classes_are_named(page):
    assert '<th scope="row">sidewalk</th>' in page[0]


EXPERIMENTS = (
    "Experiment,rev,data/evaluate/mini/ood_trained/fs/summary.json:auprc,"
    "data/evaluate/mini/ood_trained/fs/summary.json:miou,seed\na,1,0.4,0.7,0\nb,2,0.6,0.7,1\n"
)


def test_experiments_add_a_section_over_seeds(evaluation, tmp_path):
    params = PARAMS.model_copy(update=ONE)
    plain = write_report(evaluation, tmp_path, params)
    seeds = write_report(evaluation, tmp_path, params, experiments=EXPERIMENTS)
    link = '<a href="#seeds">Over seeds</a>'
    assert link in seeds
    first, last = seeds.index('<h2 id="seeds">'), seeds.index('<h2 id="pictures">')
    assert (seeds[:first].replace(link, "") + seeds[last:]).split() == plain.split()
    assert "50.0 ± 14.1 40.0 to 60.0" in text_of(seeds)
    page = Page(seeds)
    assert len(set(page.ids)) == len(page.ids)
    assert not page.open


def test_experiments_are_not_written_to_the_folder_of_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sweep.csv").write_text("a\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["report", "--experiments", "sweep.csv"])
    assert result.exit_code == 2
    assert "--out" in result.output


def test_pareto_page_is_well_formed_and_marks_the_front():
    page = pareto_page("<title>", read_experiments(EXPERIMENTS_CSV))
    parsed = Page(page)
    assert not parsed.open
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "http:" not in page
    assert "https:" not in page
    words = text_of(page)
    assert "ood_weight 0.9 Pareto-optimal 55.0 50.0 to 60.0 2" in words
    assert "ood_weight 0.1 Pareto-optimal 31.0 – 1" in words
    assert "ood_weight 0.5 30.0 – 1" in words


def test_the_promise_stands_above_its_rates(tmp_path):
    write_evaluation(tmp_path / "evaluate")
    calibration = {"frames": 24, "unit": "frame", "units": 24, "alarms": 7, "rate": 0.29, "bound": 0.479}
    promise = {
        "threshold": 0.634,
        "severity": "-ln P(false)",
        "text": "at most 50 % of the frames",
        "budget": 0.5,
        "confidence": 0.9,
        "rate": 0.75,
        "calibrate_on": ["cityscapes_val"],
        "frames": 40,
        "alarms": 30,
    }
    p_values = {"cityscapes_val": 0.9, "lost_and_found": None, "fishyscapes_static": 0.001}
    for path in (tmp_path / "evaluate").rglob("metrics.json"):
        name = path.parent.name
        own = {"calibration": calibration, "is_calibration": name == "cityscapes_val", "p_value": p_values[name]}
        values = json.loads(path.read_text())
        values |= {"train_on": ["lost_and_found"], "promise": promise | own, "alarm_rate": 0.25, "object_recall": 0.8}
        path.write_text(json.dumps(values))
        curve = path.parent / "curves" / "froc.csv"
        curve.write_text("threshold,recall,alarm_rate,false_segments\n0.9,0.2,0.1,0.1\n0.5,0.9,0.8,2\n")
    write_report(tmp_path / "evaluate", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    section = page[page.index('id="promise"') : page.index('id="pictures"')]
    assert "at most 50 % of the frames" in section
    # four rows each: the set that chose, one with objects, and one that refutes the promise, which the top says too
    assert "severity (-ln P(false))" in section
    assert section.count("<td>chose the threshold<") == 4
    assert section.count("<td>above the budget; frames with objects<") == 4
    assert section.count("✗ broken</span> p = 0.001<") == 4
    top = page[: page.index('id="results"')].replace("\xa0", " ")
    assert top.count("on fishyscapes_static: 75.0 % of its frames have a false alarm (p = 0.001).") == 4
    assert section.count("<td>47.9</td>") == 4  # the bound stands where the threshold was chosen
    assert section.count("<td>0.634</td>") == 12
    assert "80.0 % of the objects at 0.29 false alarms" in page
    text = (tmp_path / "report" / "results.txt").read_text()
    assert "One meta classifier, fitted on lost_and_found, judges" in text
    assert "cityscapes_val chose the threshold" in text


def test_sets_without_labels_are_named():
    ordinary = {"components": 0, "ignored": 0, "positives": 0, "frames": 3}

    def page_of(**values):
        return text_of(report_page("title", results_of({"baseline": ordinary | values}, dataset="drive"), {}))

    assert "drive: frames without labels" in page_of()
    # void pixels, or classes, are labels
    assert "without labels" not in page_of(ignored=7)
    assert "without labels" not in page_of(class_iou=[0.5] * 19)
