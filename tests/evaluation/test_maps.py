"""Somebody else's score maps: every file format, every mistake, and our command."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import average_precision_score

from meta_ood.cli import main
from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.evaluation.maps import evaluate_maps, pair_files, read_target
from meta_ood.metrics import component


def write_maps(folder: Path, kind: str = ".npy", count: int = 3) -> list[tuple[np.ndarray, ...]]:
    r = np.random.default_rng(0)
    maps = []
    for name in ("scores", "targets"):
        (folder / name).mkdir()
    for index in range(count):
        target = np.zeros((40, 60), np.uint8)
        target[10 : 20 + index, 5:25], target[:3] = 1, 255
        score = (r.random(target.shape) * 100 + (target == 1) * 60).astype(np.uint8)
        path = folder / "scores" / f"img{index}{kind}"
        if kind == ".npy":
            np.save(path, score)
        elif kind == ".npz":
            np.savez(path, value=score)
        elif kind == ".h5":
            with h5py.File(path, "w") as file:
                file["deep/score"] = score
        elif kind == ".tif":
            Image.fromarray(score.astype(np.float32)).save(path)
        else:
            Image.fromarray(score).save(path)
        Image.fromarray(target).save(folder / "targets" / f"img{index}_labels.png")
        maps.append((score, target))
    return maps


@pytest.mark.parametrize("kind", [".npy", ".npz", ".h5", ".tif", ".png"])
def test_every_format_gives_the_same(tmp_path: Path, kind: str) -> None:
    maps = write_maps(tmp_path, kind)
    pairs = pair_files(tmp_path / "scores", tmp_path / "targets", target_end="_labels")
    found = evaluate_maps(pairs, ("exact", "smiyc"), track="all", workers=2)
    valid = [(t < 255) for _, t in maps]
    y = np.concatenate([t[v] == 1 for (_, t), v in zip(maps, valid, strict=True)])
    s = np.concatenate([s[v] for (s, _), v in zip(maps, valid, strict=True)])
    assert found["protocols"]["exact"]["auprc"] == pytest.approx(average_precision_score(y, s))
    assert set(found["protocols"]) == {"exact", "smiyc"}
    assert found["component"]["threshold_is_oracle"]
    best = max(2 * y[s >= t].sum() / (y.sum() + (s >= t).sum()) for t in np.unique(s))
    assert found["component_best_pixel_f1"]["pixel_f1"] == pytest.approx(best)
    assert found["component"]["rule"] == "smiyc"
    for key, strict in (("component", True), ("component_best_pixel_f1", False)):
        overlaps = []
        for score, target in maps:
            ours = np.select([target == 1, target == 255], [OOD, IGNORE], IN).astype(np.uint8)
            cut = component.Cut("", found[key]["threshold"], strict)
            overlaps.append(component.of_mask(cut.mask(score.astype(np.float32), ours), ours))
        expected = component.component_metrics(component.Overlaps.concatenate(overlaps))
        assert found[key]["siou"] == pytest.approx(expected.siou)
        assert found[key]["f1"] == pytest.approx(expected.f1)


def test_command(tmp_path: Path) -> None:
    write_maps(tmp_path)
    arguments = ["evaluate-maps", "--scores", str(tmp_path / "scores")]
    arguments += ["--targets", str(tmp_path / "targets"), "--target-end", "_labels"]
    out = tmp_path / "result.json"
    more = ["--protocol", "all", "--track", "obstacle", "--threshold", "110", "--out", str(out)]
    result = CliRunner().invoke(main, ["-q", *arguments, *more])
    assert result.exit_code == 0, result.output
    assert "per_image_mean" in result.output
    assert "oracle" not in result.output
    values = json.loads(out.read_text())
    assert values["component"]["threshold"] == 110
    result = CliRunner().invoke(main, ["-q", *arguments, "--track", "obstacle"])
    assert "an oracle" in result.output
    result = CliRunner().invoke(main, ["-q", *arguments, "--protocol", "nonsense"])
    assert result.exit_code == 2
    assert "unknown protocol" in result.output


def test_pairs_say_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_maps(tmp_path)
    scores, targets = tmp_path / "scores", tmp_path / "targets"
    with pytest.raises(ValueError, match=r"no score map for img0_labels, .*its maps are img0, .*--target-end"):
        pair_files(scores, targets)
    (targets / "img1_labels.png").unlink()
    pairs = pair_files(scores, targets, target_end="_labels")
    assert [name for name, _, _ in pairs] == ["img0", "img2"]
    assert "img1" in caplog.text
    with pytest.raises(FileNotFoundError, match="no file"):
        pair_files(scores, targets, score_end="_nothing")
    np.savez(scores / "img0.npz", value=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="have the same name"):
        pair_files(scores, targets, target_end="_labels")


def test_target_values_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "t.png"
    Image.fromarray(np.uint8([[0, 1, 2, 255]])).save(path)
    with pytest.raises(ValueError, match=r"value 2 is not in the encoding binary: 0, 1, 255"):
        read_target(path, "binary")
    assert read_target(path, "meta-ood").tolist() == [[0, 1, 2, 255]]
    with pytest.raises(ValueError, match="known: binary, meta-ood"):
        read_target(path, "nonsense")


def test_a_threshold_chosen_on_another_set(tmp_path: Path) -> None:
    """Chosen on the first set it is that set's oracle; on the second it is none."""
    run = ["-q", "evaluate-maps", "--target-end", "_labels", "--track", "all"]
    for name, count in (("first", 2), ("second", 3)):
        (tmp_path / name).mkdir()
        write_maps(tmp_path / name, count=count)
    where = {
        name: ["--scores", f"{tmp_path / name}/scores", "--targets", f"{tmp_path / name}/targets"]
        for name in ("first", "second")
    }
    chosen, out = tmp_path / "first.json", tmp_path / "second.json"
    result = CliRunner().invoke(main, [*run, *where["first"], "--out", str(chosen)])
    assert result.exit_code == 0, result.output
    given = [*run, *where["second"], "--threshold-from", str(chosen)]
    result = CliRunner().invoke(main, [*given, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "oracle" not in result.output
    first, second = (json.loads(path.read_text())["component"] for path in (chosen, out))
    assert second["threshold"] == first["threshold"]
    assert (first["threshold_is_oracle"], second["threshold_is_oracle"]) == (True, False)
    other = tmp_path / "other.json"
    other.write_text("[]")
    for arguments, message in (
        ([*given, "--threshold", "3"], "exclude each other"),
        ([*run, *where["first"], "--threshold-from", str(out)], "given, not chosen"),
        ([*run[:-2], *where["first"], "--threshold", "3"], "give --track"),
        ([*run, *where["first"], "--threshold-from", __file__], "not a JSON file"),
        ([*run, *where["first"], "--threshold-from", str(other)], "expected what evaluate-maps"),
        ([*run, *where["first"], "--threshold", "nan"], "expected a finite number"),
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert message in result.output


def test_a_terminal_that_is_not_utf8_loses_nothing(tmp_path: Path) -> None:
    """Targets without OoD give a dash, which Latin-1 lacks."""
    write_maps(tmp_path, count=1)
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / "targets" / "img0_labels.png")
    arguments = ["--scores", f"{tmp_path}/scores", "--targets", f"{tmp_path}/targets", "--target-end", "_labels"]
    out = tmp_path / "out.json"
    result = CliRunner(charset="latin-1").invoke(main, ["-q", "evaluate-maps", *arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "?" in result.output
    assert json.loads(out.read_text())["protocols"]["exact"]["auroc"] is None


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_scores_have_a_table_too(tmp_path: Path, value: float) -> None:
    """The best threshold of ours is infinite, which JSON does not know; smiyc has none."""
    write_maps(tmp_path, count=1)
    np.save(tmp_path / "scores" / "img0.npy", np.full((40, 60), value, np.float32))
    out = tmp_path / "result.json"
    arguments = [
        "--scores",
        str(tmp_path / "scores"),
        "--targets",
        str(tmp_path / "targets"),
        "--target-end",
        "_labels",
    ]
    result = CliRunner().invoke(
        main, ["evaluate-maps", *arguments, "--protocol", "all", "--track", "all", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "at the threshold an infinite score, the best pixel F1" in result.output
    found = json.loads(out.read_text())
    assert "component" not in found
    assert found["component_best_pixel_f1"]["threshold"] is None
    assert found["component_best_pixel_f1"]["segments"] == 1  # everything that is not void
