import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from children import kill_eight_times, start
from meta_ood import config
from meta_ood.data import frames as data
from meta_ood.data import prediction_files
from meta_ood.data.context import Machine, no_log
from meta_ood.data.files import ROOT
from meta_ood.data.frames import Frame
from meta_ood.data.labels import IGNORE, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.pipeline import segments
from meta_ood.segments import SegmentTable, measure_segments, table_file

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
FRAMES = 80


def write_frames(folder: Path) -> None:
    folder.mkdir(parents=True)
    frames = []
    for index in range(FRAMES):
        rng = np.random.default_rng(index)
        target = rng.choice(np.array([0, 1, OOD, IGNORE], np.uint8), (8, 12)).repeat(4, 0)
        prediction = Prediction(f"{index:03d}", rng.standard_normal((7, 8, 12), np.float32), (32, 12), True, target)
        prediction_files.write_prediction(
            folder / f"{index:03d}.h5", prediction, class_names=list("abcdefg"), network="net", weights_sha256="cafe"
        )
        place = folder.parent / "prepared"
        frames.append(Frame(f"{index:03d}", place / "i.png", "", place / "t.png", ""))
    data.write_frames(folder.parent / "prepared", frames, folder.parent)


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames") / "predictions"
    write_frames(folder)
    return folder


def arguments(predictions: Path, out: Path, workers: int = 2) -> dict[str, object]:
    return {
        "network": "net",
        "variant": "baseline",
        "dataset": "set",
        "prepared": predictions.parent / "prepared",
        "predictions": predictions,
        "segments": out,
        "log": no_log,
        "machine": Machine("cpu", workers),
    }


def test_the_table_holds_every_frame_in_order(
    predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logged: dict[str, float] = {}
    segments.run(
        PARAMS, **arguments(predictions, Path("data/table.h5")) | {"log": lambda values, step: logged.update(values)}
    )
    table = table_file.read_table(Path("data/table.h5"))
    alone = [
        measure_segments(frame, PARAMS.segments.score, PARAMS.segments.threshold)
        for frame in prediction_files.open_predictions(predictions)
    ]
    expected = SegmentTable.concatenate(alone)
    assert table.image_ids == tuple(f"{index:03d}" for index in range(FRAMES))
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(table, name), value, err_msg=name)
    assert logged == {
        "segments/images": FRAMES,
        "segments/segments": len(table.image),
        "segments/false": (table.iou == 0).sum(),
        "segments/components": len(table.component_size),
        "segments/missed": missed(table),
    }
    assert [path.name for path in Path("data").iterdir()] == ["table.h5"]
    assert not list(ROOT.iterdir())


def missed(table: SegmentTable) -> int:
    return len(set(range(len(table.component_size))) - set(table.overlaps[:, 1].tolist()))


def test_workers_do_not_change_a_byte(predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    contents = set()
    for workers in (1, 3):
        segments.run(PARAMS, **arguments(predictions, Path(f"{workers}.h5"), workers))
        contents.add(Path(f"{workers}.h5").read_bytes())
    assert len(contents) == 1


def test_ray_does_not_change_a_byte(predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    given = arguments(predictions, Path("here.h5"))
    segments.run(PARAMS, **given)
    segments.run(PARAMS, **given | {"segments": Path("there.h5"), "machine": Machine("cpu", 2, "ray")})
    assert Path("here.h5").read_bytes() == Path("there.h5").read_bytes()


def test_finished_batches_are_kept_and_changed_inputs_are_not_taken_for_them(
    predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    measured = []

    def count_and_fail(prediction: Prediction, *rest: object, **options: object) -> SegmentTable:
        measured.append(prediction.image_id)
        if prediction.image_id == stop_at:
            raise KeyboardInterrupt
        return measure_segments(prediction, *rest, **options)

    monkeypatch.setattr(segments, "measure_segments", count_and_fail)
    stop_at = "070"
    with pytest.raises(KeyboardInterrupt):
        segments.run(PARAMS, **arguments(predictions, Path("a.h5"), 1))
    assert not Path("a.h5").exists()
    measured.clear()
    stop_at = ""
    segments.run(PARAMS, **arguments(predictions, Path("a.h5"), 1))
    assert measured == [f"{index:03d}" for index in range(64, 80)]
    measured.clear()
    other = PARAMS.model_copy(update={"segments": PARAMS.segments.model_copy(update={"threshold": 0.5})})
    segments.run(other, **arguments(predictions, Path("b.h5"), 1))
    assert len(measured) == FRAMES


def test_eight_kills_leave_no_trace(predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    segments.run(PARAMS, **arguments(predictions, Path("undisturbed.h5")))
    expected = Path("undisturbed.h5").read_bytes()
    out = Path("data/table.h5")

    def check() -> None:
        assert out.read_bytes() == expected
        assert [path.name for path in Path("data").iterdir()] == ["table.h5"]
        assert not list(ROOT.iterdir())
        out.unlink()

    kill_eight_times(
        lambda: start(segments.run, PARAMS, **arguments(predictions, out, 1)),
        lambda: len(list(ROOT.glob("*/*.h5"))),
        math.ceil(FRAMES / segments.BATCH),
        check,
    )


def test_predictions_that_are_not_all_there_are_refused(
    predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    complete = arguments(predictions, Path("a.h5"))
    with pytest.raises(FileNotFoundError, match="run `infer` first"):
        segments.run(PARAMS, **complete | {"predictions": Path("nowhere")})
    shutil.copytree(predictions, "some")
    Path("some/007.h5").unlink()
    with pytest.raises(ValueError, match=r"some: 1 of 80 frames are missing, 0 .* \(007, \.\.\."):
        segments.run(PARAMS, **complete | {"predictions": Path("some")})
    shutil.copy(predictions / "007.h5", "some/other.h5")
    with pytest.raises(ValueError, match="1 of 80 frames are missing, 1 are unknown"):
        segments.run(PARAMS, **complete | {"predictions": Path("some")})
    assert not Path("a.h5").exists()
