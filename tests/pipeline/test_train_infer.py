"""The stages pretrain, train and infer on a handful of frames, killed and continued."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meta_ood.config import load
from meta_ood.data import frames, prediction_files
from meta_ood.data.context import Machine, no_log
from meta_ood.data.files import file_hash, read_json
from meta_ood.data.labels import IGNORE, IN
from meta_ood.inference.prediction import average_outputs
from meta_ood.inference.statistics import write_statistics
from meta_ood.models import checkpoint
from meta_ood.pipeline import infer, pretrain, train
from meta_ood.training.loader import FrameSet, SegmentationDataset, hold_out
from meta_ood.training.validation import Validation, evaluate_once
from training_run import write_frames

PARAMS = Path(__file__).parents[2] / "params.yaml"
NAME = "dualgcn_mini"
CPU = Machine("cpu", 1)
SMALL = [
    *(f"{s}.{k}" for s in ("pretrain", "train") for k in ("epochs=1", "batch_size=2", "crop=32")),
    "train.proxy_holdout=0.5",
]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, number, proxies in (("streets", 4, 0), ("proxies", 4, 4), ("test", 5, 2)):
        drawn = write_frames(tmp_path / name, number, proxies)
        frames.write_frames(tmp_path / name, drawn, tmp_path)
    return tmp_path


def run_pretrain(folder: Path, out: str, *overrides: str) -> Path:
    weights = Path(f"{out}.safetensors")
    pretrain.run(
        load(PARAMS, [*SMALL, *overrides]),
        network=NAME,
        training=[folder / "streets"],
        validation=[folder / "test"],
        weights=weights,
        metrics=Path(f"{out}.json"),
        curves=Path(f"{out}.csv"),
        log=no_log,
        machine=CPU,
    )
    return weights


def run_train(folder: Path, baseline: Path, out: str, log=no_log, *overrides: str, sets=("streets",)) -> Path:
    weights = Path(f"{out}.safetensors")
    train.run(
        load(PARAMS, [*SMALL, *overrides]),
        network=NAME,
        training=[folder / name for name in sets],
        validation=[folder / "test"],
        proxies=[folder / "proxies"],
        baseline=baseline,
        weights=weights,
        metrics=Path(f"{out}.json"),
        curves=Path(f"{out}.csv"),
        log=log,
        machine=CPU,
    )
    return weights


def run_infer(folder: Path, weights: Path, *overrides: str) -> Path:
    write_statistics(Path("statistics.safetensors"), {})
    infer.run(
        load(PARAMS, list(overrides)),
        network=NAME,
        variant="baseline",
        dataset="lost_and_found",
        prepared=folder / "test",
        weights=weights,
        statistics=Path("statistics.safetensors"),
        predictions=Path("predictions"),
        log=no_log,
        machine=CPU,
    )
    return Path("predictions")


def states() -> list[Path]:
    return list(Path(".meta_ood").glob("resume/*"))


def content(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_training_twice_writes_the_same_bytes(prepared, caplog):
    first, second = run_pretrain(prepared, "a"), run_pretrain(prepared, "b")
    assert "pretrain.crop: 32 is larger than the frames (24 x 32): crops are padded with void" in caplog.messages
    assert content(first) == content(second)
    assert Path("a.json").read_text() == Path("b.json").read_text()
    assert content(first) != content(run_pretrain(prepared, "c", "seed=1"))
    seen: dict[str, float] = {}
    trained = [run_train(prepared, first, out, lambda values, step: seen.update(values)) for out in "de"]
    assert content(trained[0]) == content(trained[1]) != content(first)
    assert {"train/loss", "validation/miou", "validation/proxy_auroc"} <= set(seen)
    assert checkpoint.load(trained[0])[1]["variant"] == "ood_trained"
    assert "train.crop: 32 is larger than the frames (24 x 32): crops are padded with void" in caplog.messages
    assert not states()


RECIPE = (
    "train.proxy_style=on_road",
    "train.crop=[16, 32]",
    "train.photometric=1.0",
    "train.class_balance=0.5",
    "train.proxy_margin=1",
)


def test_the_recipe_of_real_photos_is_repeatable_and_each_part_of_it_counts(prepared):
    baseline = run_pretrain(prepared, "a")
    first, again = (content(run_train(prepared, baseline, out, no_log, *RECIPE)) for out in "bc")
    assert first == again
    others = {content(run_train(prepared, baseline, "d", no_log, *RECIPE[:n], *RECIPE[n + 1 :])) for n in range(5)}
    assert len(others | {first}) == 6
    with pytest.raises(ValueError, match=r"train\.known_objects: .*no thing large enough"):
        run_train(prepared, baseline, "e", no_log, *RECIPE, "train.known_objects=0.5")


def test_a_set_of_weight_0_gives_known_objects_and_nothing_else(prepared):
    photos = write_frames(prepared / "photos", 2)
    for frame in photos:
        target = np.full((24, 32), IGNORE, np.uint8)
        target[5:15, 5:12] = 11
        Image.fromarray(target).save(frame.target)
    frames.write_frames(prepared / "photos", photos, prepared)
    baseline = run_pretrain(prepared, "a")
    sets = ("streets", "photos")
    several = "roles.training=[{dataset: cityscapes_train, weight: 1}, {dataset: coco, weight: 0}]"
    with_things = run_train(prepared, baseline, "b", no_log, *RECIPE, several, "train.known_objects=1", sets=sets)
    without = run_train(prepared, baseline, "c", no_log, *RECIPE)
    assert content(with_things) != content(without)
    unused = run_train(prepared, baseline, "d", no_log, *RECIPE, several, sets=sets)
    assert content(unused) == content(without)


def test_an_ordinary_drive_trains_by_the_baseline_s_predictions(prepared):
    drawn = write_frames(prepared / "drive", 4)
    for frame in drawn:
        Image.fromarray(np.full((24, 32), IN, np.uint8)).save(frame.target)
    frames.write_frames(prepared / "drive", drawn, prepared)
    baseline = run_pretrain(prepared, "baseline")
    several = "roles.training=[{dataset: cityscapes_train, weight: 1}, {dataset: lost_and_found, weight: 3}]"
    stage = {
        "network": NAME,
        "training": [prepared / "streets", prepared / "drive"],
        "validation": [prepared / "test", prepared / "streets"],
        "proxies": [prepared / "proxies"],
        "machine": CPU,
    }
    seen: dict[str, float] = {}
    train.run(
        load(PARAMS, [*SMALL, several, "roles.validation=[cityscapes_val, cityscapes_train]", "train.samples=8"]),
        **stage,
        baseline=baseline,
        weights=Path("a.safetensors"),
        metrics=Path("a.json"),
        curves=Path("a.csv"),
        log=lambda values, step: seen.update(values),
    )
    names = {"train/loss_in/cityscapes_train", "train/loss_in/lost_and_found"}
    names |= {"validation/miou/cityscapes_val", "validation/miou/cityscapes_train", "validation/miou"}
    assert names <= set(seen)
    assert read_json(Path("a.json"))["steps"] == 8  # 8 streets and as many with proxies, two a step
    # from labels alone nothing can be learned there
    with pytest.raises(ValueError, match=r"roles\.training: lost_and_found: no frame has labels"):
        pretrain.run(
            load(PARAMS, [*SMALL, several]),
            **{key: value for key, value in stage.items() if key != "proxies"} | {"validation": [prepared / "test"]},
            weights=Path("b.safetensors"),
            metrics=Path("b.json"),
            curves=Path("b.csv"),
            log=no_log,
        )


def test_interpolated_weights_lie_between_baseline_and_trained(prepared):
    baseline = run_pretrain(prepared, "baseline")
    trained = run_train(prepared, baseline, "trained")
    between = run_train(prepared, baseline, "between", no_log, "train.interpolation=0.25")
    nothing = run_train(prepared, baseline, "nothing", no_log, "train.interpolation=0")
    first, last, found, same = (checkpoint.load(path)[0].state_dict() for path in (baseline, trained, between, nothing))
    for key, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * last[key] + 0.75 * first[key])
            assert torch.equal(same[key], first[key])
    # the stored metrics are those of the stored weights
    validated = validation_of(prepared)
    for name, path in (("between", between), ("nothing", nothing)):
        stored = read_json(Path(f"{name}.json"))
        measured = evaluate_once(checkpoint.load(path)[0], validated, 19, CPU)
        assert {key: stored[key] for key in ("miou", "proxy_auroc")} == measured


def validation_of(folder: Path) -> Validation:
    _, held_out = hold_out(frames.read_frames(folder / "proxies", folder), 0.5, seed=0)
    sets = [FrameSet("test", frames.read_frames(folder / "test", folder)), FrameSet("proxies", held_out)]
    return Validation(SegmentationDataset.of(sets), proxies=True)


def test_a_missing_target_is_named_before_any_training(prepared):
    gone = frames.read_frames(prepared / "streets", prepared)[2].target
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{gone.name}, which .*frames.csv names, is missing: run `prepare`"):
        run_pretrain(prepared, "a")
    assert not states()


def test_a_killed_stage_goes_on_and_other_params_do_not_take_its_state(prepared):
    baseline = run_pretrain(prepared, "baseline")
    expected = content(run_train(prepared, baseline, "whole", no_log, "train.epochs=2"))

    def die(values, step):
        raise KeyboardInterrupt

    options = ("train.epochs=2", "train.checkpoint_every=1")
    whole = content(run_train(prepared, baseline, "other", no_log, *options))
    assert whole == expected
    with pytest.raises(KeyboardInterrupt):
        run_train(prepared, baseline, "killed", die, *options)
    assert len(states()) == 1
    assert not Path("killed.safetensors").exists()
    run_train(prepared, baseline, "lambda", no_log, *options, "train.ood_weight=0.1")
    assert len(states()) == 1
    assert content(run_train(prepared, baseline, "killed", no_log, *options)) == expected
    assert not states()


def test_infer_writes_every_frame_and_goes_on_where_it_was(prepared, monkeypatch):
    weights = run_pretrain(prepared, "baseline")
    folder = run_infer(prepared, weights)
    found = list(prediction_files.open_predictions(folder))
    assert [p.image_id for p in found] == ["0", "1", "2", "3", "4"]
    assert all(p.logits.shape[0] == 19 and p.size == (24, 32) for p in found)
    whole = {path.name: content(path) for path in folder.iterdir()}

    written: list[str] = []
    write = prediction_files.write_prediction

    def once(path, prediction, **options):
        if len(written) == 2:
            raise OSError("disk full")
        written.append(prediction.image_id)
        write(path, prediction, **options)

    monkeypatch.setattr(prediction_files, "write_prediction", once)
    with pytest.raises(OSError, match="disk full"):
        run_infer(prepared, weights)
    assert {path.name: content(path) for path in folder.iterdir()} == whole  # the old ones stay

    def note(path, prediction, **options):
        written.append(prediction.image_id)
        write(path, prediction, **options)

    monkeypatch.setattr(prediction_files, "write_prediction", note)
    run_infer(prepared, weights)
    assert sorted(written) == ["0", "1", "2", "3", "4"]  # none twice
    # What goes through together differs after the stop: equal to rounding, not to the bit.
    for old, new in zip(found, prediction_files.open_predictions(folder), strict=True):
        np.testing.assert_allclose(new.logits, old.logits, atol=1e-3)
        assert (new.target == old.target).all()


def test_infer_batches_frames_of_one_size(prepared, monkeypatch):
    listed = frames.read_frames(prepared / "test", prepared)
    for frame in listed[1::2]:  # sizes alternate in the list
        for path in (frame.image, frame.target):
            with Image.open(path) as picture:
                picture.crop((0, 0, 28, 20)).save(path)
    weights = run_pretrain(prepared, "baseline")
    alone = list(prediction_files.open_predictions(run_infer(prepared, weights)))
    batches: list[tuple[int, ...]] = []

    def seen(network, images, *given):
        batches.append(tuple(images.shape))
        return average_outputs(network, images, *given)

    monkeypatch.setattr("meta_ood.inference.prediction.average_outputs", seen)
    together = list(prediction_files.open_predictions(run_infer(prepared, weights, "infer.batch_size=3")))
    assert batches == [(2, 3, 20, 28), (3, 3, 24, 32)]
    for one, three in zip(alone, together, strict=True):
        assert one.image_id == three.image_id
        assert (one.target == three.target).all()
        # Stored in 16 bits, where rounding may turn the last one.
        np.testing.assert_allclose(three.logits, one.logits, rtol=2**-9, atol=1e-3)


def test_infer_takes_no_files_of_other_weights(prepared):
    first = run_pretrain(prepared, "a")
    before = next(iter(prediction_files.open_predictions(run_infer(prepared, first)))).logits
    other = run_pretrain(prepared, "b", "seed=1")
    folder = prediction_files.open_predictions(run_infer(prepared, other))
    assert not np.allclose(next(iter(folder)).logits, before)
    assert folder.weights_sha256 == file_hash(other)
