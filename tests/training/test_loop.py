import csv
import resource
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import training_run
from children import start
from meta_ood.config import OptimisationParams
from meta_ood.data import frames
from meta_ood.data.context import Machine, no_log
from meta_ood.training.checkpoints import load_checkpoint
from meta_ood.training.loader import SegmentationDataset, mix_proxies
from meta_ood.training.loop import DivergedError, fit
from meta_ood.training.transforms import Augmentation
from meta_ood.training.validation import Validation, validate, validation_metrics
from training_run import CLASSES, Tiny, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "frames"
    training_run.write_frames(path, 28, 8)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder):
    return train(folder)


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    first, second = left.state_dict(), right.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


def test_it_learns(undisturbed):
    network, metrics = undisturbed
    assert metrics["steps"] == 4 * 7
    assert metrics["miou"] > 0.6
    assert metrics["proxy_auroc"] > 0.8
    assert not network.training


def test_same_seed_same_weights_and_other_seed_others(folder, undisturbed):
    again, metrics = train(folder, workers=3)
    assert same(again, undisturbed[0])
    assert metrics == undisturbed[1]
    assert not same(train(folder, seed=1)[0], undisturbed[0])


def test_killed_four_times_gives_the_same_weights(folder, undisturbed, tmp_path):
    for steps in (2, 5, 4, 9):  # before the first checkpoint, and between others
        worker = start(training_run.killed, folder, tmp_path, steps)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    network, metrics = train(folder, resume=tmp_path)
    assert same(network, undisturbed[0])
    assert metrics == undisturbed[1]


def test_killed_with_several_sets_and_a_teacher_gives_the_same_weights(folder, tmp_path):
    logged: list[tuple[int, dict[str, float]]] = []
    kept, again = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    whole, expected = train(folder, taught=True, curves=kept, log=lambda values, step: logged.append((step, values)))
    # the curves tell the sets apart: drive starts at no divergence from itself, streets at the cross entropy
    losses = [values for _, values in logged if "train/loss" in values]
    assert all({"train/loss_in/streets", "train/loss_in/drive", "train/loss_in"} <= set(values) for values in losses)
    assert all(0 < values["train/loss_in/drive"] < values["train/loss_in/streets"] for values in losses)
    for steps in (5, 9):
        worker = start(training_run.killed, folder, tmp_path, steps, signal.SIGKILL, True)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    network, metrics = train(folder, resume=tmp_path, taught=True, curves=again)
    assert same(network, whole)
    assert metrics == expected
    # the CSV has what was logged but for the speed, which no other machine has; with and without kills
    rows = [[str(step), name, f"{value:.6g}"] for step, values in logged for name, value in values.items()]
    assert list(csv.reader(kept.read_text().splitlines()))[1:] == [
        row for row in rows if row[1] != "train/images_per_second"
    ]
    assert again.read_bytes() == kept.read_bytes()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_polite_signal_is_resumed_at_its_very_step(folder, undisturbed, tmp_path, number, error):
    before = signal.getsignal(number)
    with pytest.raises(error):
        train(folder, resume=tmp_path, die_at=11, with_signal=number)
    assert signal.getsignal(number) is before
    seen: list[int] = []
    network, _ = train(folder, resume=tmp_path, log=lambda values, step: seen.append(step))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["state"]["step"] > 11
    assert same(network, undisturbed[0])
    assert seen[0] == 14  # steps up to 11 were not taken again


@pytest.mark.parametrize(
    "options",
    [
        {"ema": 0.8, "keep": "best", "optimizer": "adamw", "weight_decay": 0.01},
        {"accumulate": 2, "gradient_clip": 0.1, "optimizer": "sgd", "schedule": "cosine"},
    ],
)
def test_options_survive_a_signal(folder, tmp_path, options):
    whole, expected = train(folder, **options)
    with pytest.raises(SystemExit):
        train(folder, resume=tmp_path, die_at=9, with_signal=signal.SIGTERM, **options)
    network, metrics = train(folder, resume=tmp_path, **options)
    assert same(network, whole)
    assert metrics == expected


def test_accumulation_is_a_larger_batch(folder):
    plain = {"normalise": False, "drop": 0.0}
    large, expected = train(folder, network=plain, batch_size=8, epochs=2)
    small, metrics = train(folder, network=plain, batch_size=4, accumulate=2, epochs=2)
    for key, value in large.state_dict().items():
        torch.testing.assert_close(small.state_dict()[key], value, rtol=1e-3, atol=1e-4)
    assert metrics == pytest.approx(expected, rel=1e-3)


def run_two(function, *arguments, code: int = 0) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [start(function, rank, port, *arguments) for rank in (0, 1)]
    for worker in workers:
        worker.join(60)
    codes = [worker.exitcode for worker in workers]
    for worker in workers:
        worker.kill()
    assert codes == [code, code]


def test_readers_wait_for_each_other(tmp_path):
    run_two(training_run.reader, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0 of 2", "1 of 2"}


def test_a_signal_to_one_process_saves_the_state_of_all(folder, tmp_path):
    run_two(training_run.stopped_of_two, folder, tmp_path, code=128 + signal.SIGTERM)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["state"]["step"] == 6  # told at its start


def test_only_the_first_process_saves_weights(tmp_path):
    drawn = training_run.write_frames(tmp_path / "frames", 8)
    frames.write_frames(tmp_path / "frames", drawn, tmp_path)
    run_two(training_run.stage_of_two, tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"w.safetensors", "m.json", "m.csv"}


def test_processes_end_when_their_launcher_is_killed(tmp_path):
    launcher = start(training_run.launcher, tmp_path)
    while not (tmp_path / "child").exists():
        time.sleep(0.01)
    launcher.kill()
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_a_full_disk_is_named_and_leaves_nothing(folder, tmp_path):
    whole = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, whole[1]))
    try:
        with pytest.raises(OSError, match=r"state\.pt"):
            train(folder, resume=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    assert not list(tmp_path.iterdir())


def test_the_terms_of_the_loss_are_logged_apart(folder):
    curves: list[dict[str, float]] = []
    train(folder, log=lambda values, step: curves.append(dict(values)))
    terms = [c for c in curves if "train/loss" in c]
    assert len(terms) == 3
    for values in terms:
        assert values["train/loss_in"] > 0 < values["train/loss_ood"]
        total = values["train/loss_in"] + values["train/loss_ood"]
        assert values["train/loss"] == pytest.approx(total)


def test_a_state_of_another_version_is_not_continued(folder, tmp_path):
    torch.save({"network": {}}, tmp_path / "state.pt")
    assert load_checkpoint(tmp_path) is None
    (tmp_path / "state.pt").write_bytes(b"PK half a file")
    with pytest.raises(ValueError, match=r"state\.pt: damaged; delete it"):
        load_checkpoint(tmp_path)


def test_two_processes_are_one(folder, tmp_path):
    curve: list[float] = []
    network, metrics = train(
        folder,
        network={"normalise": False, "drop": 0.0},
        log=lambda values, step: curve.append(values.get("train/loss", -1.0)),
        accumulate=2,
    )
    run_two(training_run.one_of_two, folder, tmp_path / "first.pt")
    found = torch.load(tmp_path / "first.pt", weights_only=True)
    np.testing.assert_allclose(found["curve"], curve, rtol=1e-4)
    assert found["metrics"] == pytest.approx(metrics, rel=1e-3)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(found["weights"][key], value, rtol=1e-3, atol=1e-4)


def test_the_best_weights_are_kept(folder):
    looks: list[tuple[int, float]] = []

    def log(values, step):
        if "validation/miou" in values:
            both = values["validation/miou"], values["validation/proxy_auroc"]
            looks.append((step, sum(both) / 2))

    _, metrics = train(folder, keep="best", learning_rate=0.2, validate_every=1, log=log)
    step, best = max(looks, key=lambda look: look[1])
    assert metrics["selection_metric"] == pytest.approx(best, abs=1e-6)
    assert metrics["step"] == step


def test_it_ends_early_when_nothing_gets_better(folder):
    options = {"validate_every": 1, "learning_rate": 1e-12, "patience": 2, "epochs": 6}
    network = {"normalise": False}
    _, metrics = train(folder, network=network, **options)
    assert metrics["steps"] == 3 * 7
    assert train(folder, network=network, **options | {"patience": 0})[1]["steps"] == 6 * 7


def test_frozen_statistics_stay(folder):
    fresh = Tiny().layers[1]
    frozen = train(folder, batch_norm="frozen", epochs=1)[0].layers[1]
    assert torch.equal(frozen.running_mean, fresh.running_mean)
    assert not torch.equal(frozen.weight, fresh.weight)
    free = train(folder, epochs=1)[0].layers[1]
    assert not torch.equal(free.running_mean, fresh.running_mean)


def test_the_optimizer_may_be_forgotten(folder):
    def one(reset: bool) -> torch.nn.Module:
        frames = training_run.frames_of(folder, 28)
        torch.manual_seed(0)
        network = Tiny()
        fit(
            network,
            SegmentationDataset(frames, Augmentation(16)),
            lambda epoch: mix_proxies(20, 0, 0, seed=0, epoch=epoch),
            lambda logits, target, counts, done: logits.square().mean(),
            OptimisationParams(epochs=2, batch_size=4, crop=16, learning_rate=0.01),
            num_classes=CLASSES,
            seed=0,
            machine=Machine("cpu", 1),
            log=no_log,
            reset_optimizer=reset,
        )
        return network

    assert not same(one(True), one(False))


def test_a_loss_that_is_no_number_stops(folder, tmp_path):
    torch.manual_seed(0)
    network = Tiny()

    def objective(logits, target, counts, done):
        return logits.mean() * (float("nan") if round(done * 14) == 3 else 1.0)

    with pytest.raises(DivergedError, match=r"nan at step 4; images: (\d+, ){3}\d+; last good"):
        fit(
            network,
            SegmentationDataset(training_run.frames_of(folder, 28), Augmentation(16)),
            lambda epoch: mix_proxies(28, 0, 0, seed=0, epoch=epoch),
            objective,
            OptimisationParams(epochs=2, batch_size=4, crop=16, learning_rate=0.01, checkpoint_every=2),
            num_classes=CLASSES,
            seed=0,
            machine=Machine("cpu", 1),
            log=no_log,
            resume=tmp_path,
        )
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert torch.load(tmp_path / "state.pt", weights_only=True)["state"]["step"] == 2


def test_too_few_frames_are_named(folder):
    with pytest.raises(ValueError, match="an epoch has 28 frames, fewer than one step takes: 32"):
        train(folder, batch_size=16, accumulate=2)


def test_bfloat16_learns_too(folder):
    assert train(folder, precision="bfloat16")[1]["miou"] > 0.6


def test_miou_is_that_of_evaluation():
    confusion = torch.tensor([[3, 1, 0], [0, 4, 1], [0, 0, 0]])
    expected = (3 / 4 + 4 / 6) / 2  # the third class is predicted only: it is none of the set
    assert validation_metrics(confusion, None) == {"miou": pytest.approx(expected, abs=1e-6)}
    assert validation_metrics(torch.zeros(3, 3, dtype=torch.int64), None) == {"miou": 0.0}


def test_auroc_of_proxies_is_that_of_all_pairs():
    generator = np.random.default_rng(0)
    ood, known = generator.integers(0, 40, (2, 30))
    pairs = np.sign(ood[:, None] - known) / 2 + 0.5
    counts = torch.tensor(np.stack([np.bincount(ood, minlength=40), np.bincount(known, minlength=40)]))
    found = validation_metrics(torch.eye(2, dtype=torch.int64), counts)
    assert found["proxy_auroc"] == pytest.approx(pairs.mean(), abs=1e-6)
    counts[0] = 0
    assert "proxy_auroc" not in validation_metrics(torch.eye(2, dtype=torch.int64), counts)


def test_validation_is_additive(folder):
    torch.manual_seed(0)
    network = Tiny().train()
    dataset = Validation(SegmentationDataset(training_run.frames_of(folder, 28))).dataset
    device = torch.device("cpu")
    whole = validate(network, dataset, range(20, 28), CLASSES, device=device)
    parts = [
        validate(network, dataset, part, CLASSES, device=device, batch_size=3)
        for part in (range(20, 25), range(25, 28))
    ]
    assert network.training
    assert torch.equal(whole[0], parts[0][0] + parts[1][0])
    assert int(whole[0].sum()) == int(whole[1][1].sum())
    assert int(whole[1][0].sum()) == 8 * 100  # the OoD squares
