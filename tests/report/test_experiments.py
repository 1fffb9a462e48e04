"""Two experiments side by side: paired over the same scenes, from folders and from DVC."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from evaluation_folder import DATASETS, NETWORKS, write_cell
from meta_ood.cli import main
from meta_ood.report.experiments import Experiment, compare_experiments, read_experiment
from meta_ood.report.page import compare_page
from meta_ood.report.results import Evaluation

KEY = (NETWORKS[0], "baseline", DATASETS[0])


def experiment(name, value, replicates, **metrics):
    metrics = {"auroc": value, "frames": 3, **metrics}
    return Experiment(name, {KEY: Evaluation(*KEY, metrics, {"bootstrap": {"auroc": replicates}})}, {"seed": "0"})


def test_changes_have_the_interval_of_the_replicates_differences():
    rng = np.random.default_rng(0)
    common, own = rng.normal(0.8, 0.1, 500), rng.normal(0.02, 0.001, 500)
    first, last = experiment("a", 0.8, common), experiment("b", 0.82, common + own)
    ((_, _, (change,), is_paired),) = compare_experiments(first, last, ["auroc"])
    assert is_paired
    assert (change.low, change.high) == pytest.approx(np.quantile(own, [0.025, 0.975]), abs=1e-3)
    # the interval of the sets by themselves would be a hundred times wider
    assert not change.could_be_chance


def test_other_data_have_no_interval():
    first, last = experiment("a", 0.8, np.ones(9)), experiment("b", 0.82, np.ones(9), frames=4)
    ((_, _, (change,), is_paired),) = compare_experiments(first, last, ["auroc"])
    assert not is_paired
    assert not change.has_interval
    assert "Evaluated on other data" in compare_page("t", first, last)


def test_nothing_in_common_is_said():
    last = Experiment("b", {}, {})
    with pytest.raises(ValueError, match="a and b have no evaluation"):
        compare_experiments(experiment("a", 0.8, np.ones(9)), last, ["auroc"])


def test_names_are_escaped():
    page = compare_page("<i>", experiment("<b>", 0.8, np.ones(9)), experiment("<s>", 0.8, np.ones(9)))
    assert not {"<b>", "<i>", "<s>"} & set(re.findall(r"<\w+>", page))


@pytest.fixture
def folders(tmp_path):
    for name, variant in (("a", "baseline"), ("b", "ood_trained")):
        cell = tmp_path / name / "data/evaluate" / "/".join(KEY)
        write_cell(cell, KEY[0], variant, KEY[2])
        (tmp_path / name / "params.yaml").write_text(f"seed: 0\ntrain: {{ood_weight: {len(variant)}}}\n")
    return tmp_path


def test_two_folders_make_a_page(folders, monkeypatch):
    monkeypatch.chdir(folders)
    result = CliRunner().invoke(main, ["report", "--compare", "a", "b/data/evaluate"])
    assert result.exit_code == 0, result.output
    page = Path(result.output.strip()).read_text()
    assert Path(result.output.strip()) == Path("outputs/compare.html")
    assert re.search(r"train\.ood_weight</th><td>8</td><td>11</td>", page)
    before, after = (
        json.loads((folders / n / "data/evaluate" / "/".join(KEY) / "metrics.json").read_text()) for n in "ab"
    )
    assert f"{100 * before['auprc']:.1f}&nbsp;→</span>&nbsp;{100 * after['auprc']:.1f}" in page


def test_an_experiment_is_read_from_the_cache(folders, monkeypatch):
    """A commit whose data are not in the workspace any more."""
    monkeypatch.chdir(folders / "a")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for command in (
        "git init -q",
        "dvc init -q",
        "dvc add -q data/evaluate",
        "git add -A",
        "git -c user.name=a -c user.email=a@b commit -qm one",
        "git tag one",
    ):
        subprocess.run(command.split(), check=True)
    expected = read_experiment(".")
    shutil.rmtree("data/evaluate")
    found = read_experiment("one")
    assert found.parameters == expected.parameters
    assert found.evaluations[KEY].metrics == expected.evaluations[KEY].metrics
    for column, values in expected.evaluations[KEY].curves["bootstrap"].items():
        np.testing.assert_array_equal(found.evaluations[KEY].curves["bootstrap"][column], values)
    with pytest.raises(ValueError, match="'two' is no folder, and DVC cannot read it"):
        read_experiment("two")
