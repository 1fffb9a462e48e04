"""Comparisons: paired intervals within a run, spread over runs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from meta_ood import config
from meta_ood.cli import main
from meta_ood.report import compare

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
    found = compare.read_evaluations(tmp_path)
    before, after = (found["net", v, "laf"] for v in ("baseline", "ood_trained"))
    d = compare.paired_differences(before, after)
    assert [one.metric for one in d] == ["auroc", "segment_false_positives"]
    assert d[0].change == pytest.approx(0.1)
    assert 0.09 < d[0].low < 0.1 < d[0].high < 0.11  # each alone spreads over 0.2
    assert np.isnan(d[1].low)
    text = compare.comparison_text(found)
    assert "laf: net baseline -> net ood_trained" in text
    assert "auroc" in text


def test_what_cannot_be_paired(tmp_path: Path) -> None:
    write(tmp_path, "net", "baseline", "laf", 0.8)
    write(tmp_path, "net", "baseline", "fs", 0.8)
    found = compare.read_evaluations(tmp_path)
    a, b = found["net", "baseline", "laf"], found["net", "baseline", "fs"]
    with pytest.raises(ValueError, match="cannot be compared in pairs"):
        compare.paired_differences(a, b)
    shorter = type(a)(a.key, a.figures, {"auroc": a.replicates["auroc"][:5]})
    with pytest.raises(ValueError, match="200 replicates"):
        compare.paired_differences(a, shorter)


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
    with pytest.raises(ValueError, match="not JSON"):
        compare.read_evaluations(tmp_path)


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
    path.write_text(json.dumps({"component": {"of_score": of_score | {"threshold_is_oracle": 0}}}))
    assert "no threshold was chosen" in CliRunner().invoke(main, found).output
    result = CliRunner().invoke(main, ["thresholds", "fs", "--evaluations", str(tmp_path)])
    assert result.exit_code == 2
