"""Comparisons: paired intervals within a run, spread over runs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from experiments import EXPERIMENTS_CSV
from meta_ood import config
from meta_ood.cli import main
from meta_ood.report import compare
from meta_ood.report.compare import Repetition, group_by_setting, read_experiments
from meta_ood.report.results import Evaluation, read_evaluations

ROOT = Path(__file__).parents[2]


def write(root: Path, network: str, variant: str, dataset: str, auroc: float | None) -> None:
    folder = root / network / variant / dataset
    (folder / "curves").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"auroc": auroc, "segment_false_positives": 3}))
    noise = np.random.default_rng(0).normal(0, 0.05, 200)  # common to all: the same scenes
    own = np.random.default_rng(len(variant)).normal(0, 0.002, 200)
    with (folder / "curves/bootstrap.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["auroc"])
        writer.writerows([[value] for value in (auroc or np.nan) + noise + own])


def test_pairs_have_narrow_intervals(tmp_path: Path) -> None:
    write(tmp_path, "net", "baseline", "laf", 0.8)
    write(tmp_path, "net", "ood_trained", "laf", 0.9)
    found = read_evaluations(tmp_path)
    pair = tuple(found["net", v, "laf"] for v in ("baseline", "ood_trained"))
    d = compare.difference("auroc", pair)
    assert d.change == pytest.approx(0.1)
    assert 0.09 < d.low < 0.1 < d.high < 0.11  # each alone spreads over 0.2
    assert not compare.difference("segment_false_positives", pair).has_interval
    assert compare.difference("auprc", pair) is None
    text = compare.pairs_text(found)
    assert "laf: net baseline -> net ood_trained" in text
    assert "auroc" in text


def with_replicates(**columns: list[float]) -> Evaluation:
    metrics = {"auroc": 0.5, "segment_false_positives": 5}
    curves = {"bootstrap": {key: np.array(values) for key, values in columns.items()}}
    return Evaluation("mini", "any", "fs", metrics, curves)


def test_interval_against_quantiles() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 1, 400), rng.normal(0.3, 0.05, 400)
    pair = with_replicates(auroc=shared), with_replicates(auroc=shared + own)
    d = compare.difference("auroc", pair)
    ordered = np.sort(own)
    assert ordered[9] <= d.low <= ordered[10]
    assert ordered[389] <= d.high <= ordered[390]
    # over two pairs, fractions are averaged and counts summed, replicate by replicate
    twice = compare.difference("auroc", pair, pair)
    assert (twice.before, twice.low) == pytest.approx((d.before, d.low))
    pair = tuple(with_replicates(segment_false_positives=x) for x in (shared, shared + own))
    d = compare.difference("segment_false_positives", pair, pair)
    assert (d.before, d.after) == (10, 10)
    assert 2 * ordered[9] <= d.low <= 2 * ordered[10]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"auroc": [0.1]}),
        ({"auroc": [0.1, 0.2]}, {"auroc": [0.1]}),
        ({"auroc": [np.nan] * 3 + [0.1]}, {"auroc": [0.1] * 4}),
    ],
)
def test_interval_when_replicates_do_not_pair(before, after, caplog) -> None:
    d = compare.difference("auroc", (with_replicates(**before), with_replicates(**after)))
    assert not d.has_interval
    assert not d.could_be_chance
    if len(before.get("auroc", [])) == 2:
        assert "2 replicates" in caplog.text


def test_spread_over_runs(tmp_path: Path) -> None:
    for seed, value in enumerate((0.7, 0.8, None, 0.9)):
        write(tmp_path / f"seed{seed}", "net", "baseline", "laf", value)
    roots = [str(tmp_path / f"seed{seed}") for seed in range(4)]
    result = CliRunner().invoke(main, ["compare", *roots])
    assert result.exit_code == 0, result.output
    row = next(line.split() for line in result.output.splitlines() if "auroc" in line)
    assert row == ["auroc", "0.8000", "0.1000", "0.7000", "0.9000", "3"]


def test_nothing_to_compare(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["compare", str(tmp_path)])
    assert result.exit_code == 2
    assert "no <network>/<variant>/<dataset>/metrics.json" in result.output
    write(tmp_path, "net", "baseline", "laf", 0.8)
    (tmp_path / "net/baseline/laf/metrics.json").write_text("{")
    with pytest.raises(ValueError, match="not a JSON file"):
        read_evaluations(tmp_path)


def test_protocols_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "net" / "baseline" / "laf"
    folder.mkdir(parents=True)
    figures = {"auroc": 0.9, "auprc": 0.25, "fpr95": None}
    values = {"auroc": 0.9, "score": "entropy", "protocols": {"exact": {"entropy": figures}}}
    (folder / "metrics.json").write_text(json.dumps(values))
    result = CliRunner().invoke(main, ["compare", "--protocols", str(tmp_path)])
    assert result.output.splitlines() == [
        "| dataset | network | variant | exact |",
        "| --- | --- | --- | --- |",
        "| laf | net | baseline | 90.00 / 25.00 / – |",
    ]
    (folder / "metrics.json").write_text(json.dumps({"auroc": None}))
    with pytest.raises(FileNotFoundError, match="no evaluation with OoD pixels"):
        compare.protocols_text(tmp_path)


def test_thresholds_of_one_set_are_params_for_others(tmp_path: Path) -> None:
    for variant, threshold in (("baseline", 0.25), ("ood_trained", 0.5)):
        write(tmp_path, "dualgcn_mini", variant, "lost_and_found", 0.8)
        of_score = {"threshold": threshold, "threshold_is_oracle": True}
        path = tmp_path / "dualgcn_mini" / variant / "lost_and_found/metrics.json"
        path.write_text(json.dumps({"component": {"of_score": of_score}}))
    found = ["thresholds", "lost_and_found", "--evaluations", str(tmp_path)]
    result = CliRunner().invoke(main, found)
    assert result.exit_code == 0, result.output
    chosen = yaml.safe_load(result.output)["evaluate"]["component_thresholds"]
    setting = f"evaluate.component_thresholds={json.dumps(chosen)}"
    params = config.load(ROOT / "params.yaml", [setting]).evaluate
    assert params.threshold_of("dualgcn_mini", "baseline") == 0.25
    assert params.threshold_of("dualgcn_mini", "ood_trained") == 0.5
    assert params.threshold_of("deeplabv3plus_mini", "baseline") is None
    with pytest.raises(config.ConfigError, match="component_thresholds: 'other' is not defined"):
        config.load(ROOT / "params.yaml", ["evaluate.component_thresholds={other: {baseline: 1}}"])
    for wrong in ({"threshold_is_oracle": 0}, {"threshold": None}):  # given; an infinite score
        path.write_text(json.dumps({"component": {"of_score": of_score | wrong}}))
        assert "no finite threshold was chosen" in CliRunner().invoke(main, found).output
    result = CliRunner().invoke(main, ["thresholds", "lost_and_fund", "--evaluations", str(tmp_path)])
    assert result.exit_code == 2
    assert "known: lost_and_found; did you mean lost_and_found?" in result.output


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_pareto_front_against_loop(points):
    for i, is_optimal in enumerate(compare.pareto_front(np.array(points, float))):
        beaten = any((a, b) != points[i] and a >= points[i][0] and b >= points[i][1] for a, b in points)
        assert is_optimal == (not beaten)


def test_experiments_are_grouped_over_seeds():
    baseline, *settings = read_experiments(EXPERIMENTS_CSV)
    assert baseline.name == "one setting"  # of two seeds, whatever the OoD training after it
    assert baseline.values["mini", "baseline", "fs"] == {"auprc": [0.3, 0.3]}
    assert [s.name for s in settings] == ["ood_weight 0.1", "ood_weight 0.5", "ood_weight 0.9"]
    key = ("mini", "ood_trained", "fs")
    assert [s.values[key]["auprc"] for s in settings] == [[0.31], [0.3], [0.6, 0.5]]
    assert settings[2].mean(key, "auprc") == pytest.approx(0.55)
    assert settings[0].mean(("mini", "ood_trained", "val"), "auprc") is None


def test_trade_offs_mark_the_pareto_front():
    (found,) = compare.trade_offs(read_experiments(EXPERIMENTS_CSV))
    assert (found.network, found.dataset) == ("mini", "fs")
    assert [(p.setting.name, p.is_optimal) for p in found.points] == [
        ("ood_weight 0.9", True),
        ("ood_weight 0.1", True),
        ("ood_weight 0.5", False),
    ]
    assert found.points[0].auprc.mean == pytest.approx(0.55)
    assert found.points[0].miou == pytest.approx(0.72)
    assert found.baselines == [(0.8, 0.3)]


def test_experiments_that_have_not_run_or_are_of_version_0_1():
    queued = "d,4,branch_base,2026-01-01T00:00:00,,,,,,,,,,0,0.7,4,,,\n"
    assert read_experiments(EXPERIMENTS_CSV + queued) == read_experiments(EXPERIMENTS_CSV)
    old = EXPERIMENTS_CSV.replace("summary.json:", "metrics.json:")
    assert read_experiments(old) == read_experiments(EXPERIMENTS_CSV)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", ""])
def test_experiments_when_the_file_is_something_else(text):
    with pytest.raises(ValueError, match="dvc exp show --csv"):
        read_experiments(text)


def test_pareto_command(tmp_path):
    source, out = tmp_path / "sweep.csv", tmp_path / "new" / "page.html"
    source.write_text(EXPERIMENTS_CSV)
    result = CliRunner().invoke(main, ["pareto", str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]
    source.write_text("a\n1\n")
    result = CliRunner().invoke(main, ["pareto", str(source), "--out", str(out)])
    assert result.exit_code == 2
    assert "dvc exp show" in result.output


def test_compare_reads_experiments():
    """Mean, spread and n stand under the setting that they belong to."""
    result = CliRunner().invoke(main, ["compare", "--experiments", "-"], input=EXPERIMENTS_CSV)
    assert result.exit_code == 0, result.output
    block = result.output.split("mini · ood_trained · fs · ood_weight 0.9\n")[1].split("\n\n")[0]
    rows = {line.split()[0]: line.split()[1:] for line in block.splitlines()[2:]}
    assert rows == {"auprc": ["0.5500", "0.0707", "0.5000", "0.6000", "2"]}
    assert "fs · ood_weight 0.1\n" in result.output


@pytest.mark.parametrize("more", [["--seeds"], ["."], ["--protocols"]])
def test_compare_takes_one_kind_of_runs(tmp_path, more):
    file = tmp_path / "sweep.csv"
    file.write_text(EXPERIMENTS_CSV)
    result = CliRunner().invoke(main, ["compare", "--experiments", str(file), *more])
    assert result.exit_code == 2


def test_parameters_that_differ_only_between_evaluations_name_nothing():
    a, b = ("mini", "baseline", "fs"), ("mini", "ood_trained", "fs")
    repetitions = [
        Repetition(a, {"seed": "0"}, {"auprc": 0.1}),
        Repetition(b, {"seed": "0", "train.ood_weight": "0.5", "x": "1"}, {"auprc": 0.2}),
        Repetition(b, {"seed": "1", "train.ood_weight": "0.5", "x": "1"}, {"auprc": 0.4}),
        Repetition(b, {"seed": "1", "train.ood_weight": "0.5", "x": "1"}, {"auprc": 0.9}),  # again
        Repetition(b, {"seed": "1", "train.ood_weight": "0.9", "x": "1"}, {"auprc": float("nan")}),
        Repetition(b, {"seed": "2", "train.ood_weight": "0.9", "x": "1"}, {"auprc": None}),
    ]
    found = {s.name: s.values for s in group_by_setting(repetitions)}
    assert found == {
        "one setting": {a: {"auprc": [0.1]}},
        "ood_weight 0.5": {b: {"auprc": [0.2, 0.4]}},
        "ood_weight 0.9": {b: {}},
    }
