"""The scripts of examples/ run, offline, and show what their pages say."""

import runpy
import socket

import pytest

from demo_world import REPOSITORY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give the folder in which the examples run, one after another as their numbers say."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def run(folder, monkeypatch):
    """Run an example without a network; give what its names stand for at the end."""

    def refuse(*_):
        raise OSError("an example asks for the network")

    def start(name):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("META_OOD_TRACKING", "on")  # restored afterwards
        monkeypatch.setattr(socket.socket, "connect", refuse)
        return runpy.run_path(str(REPOSITORY / "examples" / f"{name}.py"), run_name="__main__")

    return start


def test_reasons_are_printed_of_a_kept_and_a_removed_segment(run, capsys):
    names = run("1_detect_and_explain")
    lines = capsys.readouterr().out.splitlines()
    for decision, segments in (("kept", names["kept"]), ("removed", names["removed"])):
        line = next(number for number, text in enumerate(lines) if text.startswith(f"{decision}:"))
        largest = max(segments, key=lambda segment: segment.size)
        reasons = [float(text.split()[0]) for text in lines[line + 2 : line + 5]]
        assert reasons == pytest.approx([reason["log_odds"] for reason in largest.reasons], abs=0.005)


def test_pixels_and_components_prefer_different_methods(run, capsys):
    run("2_evaluate_score_maps")
    lines = capsys.readouterr().out.splitlines()
    auprc = [float(line.split()[2]) for line in lines if line.startswith("exact")]
    mean_f1 = [float(line.split()[-2]) for line in lines if line.startswith("components")]
    assert auprc[0] < auprc[1]
    assert mean_f1[0] > mean_f1[1]


def test_training_on_own_data_finds_the_objects_and_experiments_are_compared(run, folder, capsys):
    run("3_train_on_own_data")
    rows = [
        line.split() for line in capsys.readouterr().out.splitlines() if "baseline" in line or "ood_trained" in line
    ]
    before, after = (
        float(row[row.index(variant) + 1]) for row, variant in zip(rows, ("baseline", "ood_trained"), strict=True)
    )
    assert after > before + 10  # AUROC, per cent
    names = run("4_compare_experiments")
    assert [len(setting.values) for setting in names["settings"]] == [1, 1]
    assert all(setting.spread(next(iter(setting.values)), "auroc").n == 2 for setting in names["settings"])
    assert (folder / "outputs/examples/own_data/pareto.html").stat().st_size > 1000
