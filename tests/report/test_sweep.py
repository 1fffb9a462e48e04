"""Sweeps: reading what DVC prints, the front against a loop, means over seeds."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from meta_ood.cli import main
from meta_ood.report.experiments import Run, gather, read_experiments
from meta_ood.report.seeds import seeds_section
from meta_ood.report.sweep import pareto_front, sweep_page

HEAD = (
    "Experiment,rev,typ,Created,parent,"
    "data/evaluate/mini/baseline/fs/metrics.json:auprc,"
    "data/evaluate/mini/baseline/val/metrics.json:miou,"
    "data/evaluate/mini/ood_trained/fs/metrics.json:auprc,"
    "data/evaluate/mini/ood_trained/fs/metrics.json:scores.energy.auprc,"
    "data/evaluate/mini/ood_trained/val/metrics.json:auprc,"
    "data/evaluate/mini/ood_trained/val/metrics.json:miou,"
    "data/networks/mini/baseline.json:miou,separation,seed,train.ood_weight,pretrain.epochs,"
    "data/networks/mini/ood_trained.safetensors,data/evaluate,src/meta_ood/losses.py\n"
)
ROWS = (
    ",workspace,baseline,,,0.3,0.80,0.31,0.1,,0.79,0.9,0.80,0,0.1,4,0a0,0b0.dir,0c\n"
    ",main,baseline,2026-01-01T00:00:00,,0.3,0.80,0.60,0.1,,0.70,0.9,0.81,0,0.9,4,1a1,1b1.dir,1c\n"
    "a,1,branch_commit,2026-01-01T00:00:00,,0.3,0.80,0.31,0.1,,0.79,0.9,0.82,0,0.1,4,2a2,2b2.dir,2c\n"
    "b,2,branch_commit,2026-01-01T00:00:00,,0.3,0.80,0.50,0.1,,0.74,0.9,0.83,1,0.9,4,3a3,3b3.dir,3c\n"
    "c,3,branch_base,2026-01-01T00:00:00,,0.3,0.80,0.30,0.1,,0.60,0.9,0.84,0,0.5,4,4a4,4b4.dir,4c\n"
)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_pareto_front_against_loop(points):
    x, y = np.array(points, float).T
    for i, is_front in enumerate(pareto_front(x, y)):
        beaten = any(
            (a, b) != points[i] and a >= points[i][0] and b >= points[i][1] for a, b in points
        )
        assert is_front == (not beaten)


def test_experiments_are_grouped_over_seeds():
    baseline, *experiments = read_experiments(HEAD + ROWS)
    assert baseline.name == "one setting"  # of two seeds, whatever the OoD training after it
    assert baseline.values[("mini", "baseline", "fs", "auprc")] == (0.3, 0.3)
    assert [e.name for e in experiments] == ["ood_weight 0.1", "ood_weight 0.5", "ood_weight 0.9"]
    key = ("mini", "ood_trained", "fs", "auprc")
    assert [e.values[key] for e in experiments] == [(0.31,), (0.3,), (0.6, 0.5)]
    assert experiments[2].mean(*key) == pytest.approx(0.55)
    assert experiments[0].mean("mini", "ood_trained", "val", "auprc") is None


def test_what_has_not_run_yet_is_no_experiment():
    queued = "d,4,branch_base,2026-01-01T00:00:00,,,,,,,,,,0,0.7,4,,,\n"
    assert read_experiments(HEAD + ROWS + queued) == read_experiments(HEAD + ROWS)


def test_page_names_the_front():
    page = sweep_page("title", read_experiments(HEAD + ROWS))
    rows = re.findall(r'<th scope="row">([^<]*)</th><td>(<span[^>]*>✓ front</span>)?([^<]*)', page)
    assert [(name, bool(mark), value) for name, mark, value in rows] == [
        ("ood_weight 0.9", True, "55.0"),
        ("ood_weight 0.1", True, "31.0"),
        ("ood_weight 0.5", False, "30.0"),
    ]
    assert "50.0 to 60.0" in page
    assert "http" not in page


def test_experiments_when_the_file_is_something_else():
    with pytest.raises(ValueError, match="dvc exp show --csv"):
        read_experiments("a,b\n1,2\n")
    with pytest.raises(ValueError, match="dvc exp show --csv"):
        read_experiments("")


def test_command_writes_the_page(tmp_path):
    source, out = tmp_path / "sweep.csv", tmp_path / "new" / "page.html"
    source.write_text(HEAD + ROWS)
    result = CliRunner().invoke(main, ["pareto", str(source), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]


def test_command_when_the_file_is_wrong(tmp_path):
    source = tmp_path / "x.csv"
    source.write_text("a\n1\n")
    result = CliRunner().invoke(main, ["pareto", str(source), "--out", str(tmp_path / "o.html")])
    assert result.exit_code == 2
    assert "dvc exp show" in result.output


def test_compare_reads_experiments():
    """Mean, spread and n stand under the setting that they belong to."""
    result = CliRunner().invoke(main, ["compare", "--experiments", "-"], input=HEAD + ROWS)
    assert result.exit_code == 0, result.output
    block = result.output.split("mini · ood_trained · fs · ood_weight 0.9\n")[1].split("\n\n")[0]
    rows = {line.split()[0]: line.split()[1:] for line in block.splitlines()[1:]}
    assert rows == {"auprc": ["0.5500", "0.0707", "0.5000", "0.6000", "2"]}
    assert "fs · ood_weight 0.1\n" in result.output


@pytest.mark.parametrize("more", [["--seeds"], ["."], ["--protocols"]])
def test_compare_takes_one_kind_of_runs(tmp_path, more):
    file = tmp_path / "sweep.csv"
    file.write_text(HEAD + ROWS)
    result = CliRunner().invoke(main, ["compare", "--experiments", str(file), *more])
    assert result.exit_code == 2


def test_settings_that_only_differ_between_cells_name_nothing():
    a, b = ("mini", "baseline", "fs"), ("mini", "ood_trained", "fs")
    runs = [
        Run({"seed": "0"}, a, {"auprc": 0.1}),
        Run({"seed": "0", "train.ood_weight": "0.5", "x": "1"}, b, {"auprc": 0.2}),
        Run({"seed": "1", "train.ood_weight": "0.5", "x": "1"}, b, {"auprc": 0.4}),
        Run({"seed": "1", "train.ood_weight": "0.5", "x": "1"}, b, {"auprc": 0.9}),  # done again
        Run({"seed": "1", "train.ood_weight": "0.9", "x": "1"}, b, {"auprc": float("nan")}),
    ]
    found = {e.name: dict(e.values) for e in gather(runs)}
    assert found == {
        "one setting": {(*a, "auprc"): (0.1,)},
        "ood_weight 0.5": {(*b, "auprc"): (0.2, 0.4)},
        "ood_weight 0.9": {},
    }


def test_section_over_seeds():
    section = seeds_section(read_experiments(HEAD + ROWS))
    assert '<h2 id="seeds">Over seeds</h2>' in section
    rows = section.partition("<tbody>")[2].partition("</tbody>")[0].split("</tr>")[:-1]
    settings = [re.findall(r'class="unit">([^<]*)</span></th>', row)[-1] for row in rows]
    counts = [int(re.findall(r"<td>(\d+)</td>$", row)[0]) for row in rows]
    over_two = [s for s, count in zip(settings, counts, strict=True) if count == 2]
    assert over_two == ["one setting", "ood_weight 0.9", "one setting", "ood_weight 0.9"]
    (cells,) = [row for row in rows if "55.0" in row]
    assert '55.0&nbsp;<span class="soft">± 7.1</span><span class="range">50.0 to 60.0' in cells
    assert "<h3>fs <span class='soft'>mini</span></h3>" in section  # the plot
    assert seeds_section([]) == ""
