"""What tracks do for alarms on drawn drives: false alarms a minute and time to detection at equal shares of objects.

    PYTHONPATH=src python benchmarks/tracks.py data/detectors/deeplabv3plus_mini/ood_trained [--drives 12] [--frames 60]

Rules are chosen on the drives of one seed and measured on those of another. An object is found if a segment of an
alarm touches it; an alarm that touches none when it is raised is false. Objects below 60 pixels in all frames
are left out.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from meta_ood.data.files import read_csv
from meta_ood.demo.drives import FRAMES_PER_SECOND, LIST, write_drives
from meta_ood.detector.detector import Detector
from meta_ood.detector.scan.tracks import TEMPORAL_FEATURES, Frame, Observed, Rule, Tracker

SMALLEST = 60  # [px] of 128 x 256: an object that is never larger is not expected to be found
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
NEEDED = ((1, 1), (2, 3), (3, 4), (3, 5), (4, 6), (5, 7), (6, 9), (8, 12))  # of how many frames
LINKS = tuple(itertools.product((1, 3, 6), (0.05, 0.1, 0.3)))  # gap, overlap


@dataclass(frozen=True)
class Seen:
    """A frame: its segments, the objects that each touches, and the pixels of each object."""

    frame: Frame
    segments: list[Observed]
    touched: list[set[int]]
    objects: dict[int, int]
    features: npt.NDArray[np.float64]


Drive = list[Seen]
Alarms = Callable[[Drive, float], Iterator[tuple[int, set[int], bool]]]  # see alarms_of_frames


@dataclass(frozen=True)
class Outcome:
    """What a way to raise alarms gives at one threshold."""

    found: float  # share of the objects
    false: float  # alarms a minute
    delay: float  # [s] median from the first pixel of a found object to its alarm


def look(detector: Detector, root: Path) -> list[Drive]:
    """Apply a detector to the frames of drives."""
    drives: dict[str, Drive] = {}
    for row in read_csv(root / LIST, ["source", "id", "sequence", "time"]):
        drive = drives.setdefault(row["sequence"], [])
        labels = row["source"].replace("leftImg8bit", "gtCoarse", 1)
        instances = np.asarray(Image.open(root / labels.replace("_leftImg8bit", "_gtCoarse_instanceIds")))
        objects = np.where(instances >= 1000, instances % 1000, 0).astype(int)
        found = detector(root / row["source"])
        observed = [Observed(k, s.box, s.size, s.severity, s.kept) for k, s in enumerate(found.segments)]
        touched = [set(objects[found.labels == k + 1].tolist()) - {0} for k in range(len(observed))]
        counts = {k: n for k, n in enumerate(np.bincount(objects.ravel()).tolist()) if k and n}
        frame = Frame(len(drive), float(row["time"]), objects.shape[0])
        drive.append(Seen(frame, observed, touched, counts, found.table.features))
    return list(drives.values())


def alarms_of_frames(drive: Drive, threshold: float) -> Iterator[tuple[int, set[int], bool]]:
    """Yield frame, objects touched and whether it is a new alarm: each segment of each frame is one."""
    for seen in drive:
        for segment, touched in zip(seen.segments, seen.touched, strict=True):
            if segment.severity >= threshold:
                yield seen.frame.row, touched, True


def alarms_of_tracks(rule: Rule) -> Alarms:
    """Return the same for tracks: new is the one segment at which a track becomes an alarm."""

    def alarms(drive: Drive, threshold: float) -> Iterator[tuple[int, set[int], bool]]:
        tracker = Tracker(replace(rule, severity=threshold))
        for seen in drive:
            found, _ = tracker.add(seen.frame, seen.segments)
            for (track, _), touched in zip(found, seen.touched, strict=True):
                if track.alarm is not None:
                    yield seen.frame.row, touched, track.alarm is seen.frame

    return alarms


def outcome(drives: list[Drive], alarms: Alarms, at: float) -> Outcome:
    """Measure a way to raise alarms at a threshold."""
    total = false = 0
    delays: list[float] = []
    for drive in drives:
        largest: dict[int, int] = {}
        born: dict[int, int] = {}
        for seen in drive:
            for number, pixels in seen.objects.items():
                largest[number] = max(largest.get(number, 0), pixels)
                born.setdefault(number, seen.frame.row)
        wanted = {number for number, pixels in largest.items() if pixels >= SMALLEST}
        first: dict[int, int] = {}
        for index, touched, is_new in alarms(drive, at):
            false += is_new and not touched
            for number in touched & wanted:
                first.setdefault(number, index)
        total += len(wanted)
        delays += [(index - born[number]) / FRAMES_PER_SECOND for number, index in first.items()]
    minutes = sum(map(len, drives)) / FRAMES_PER_SECOND / 60
    return Outcome(len(delays) / total, false / minutes, float(np.median(delays)) if delays else np.nan)


def curve(drives: list[Drive], alarms: Alarms) -> list[Outcome]:
    """Return the outcomes at 20 thresholds, from those that few segments reach to those that most do."""
    severity = [segment.severity for drive in drives for seen in drive for segment in seen.segments]
    shares = np.geomspace(0.0002, 0.3, 20)
    return [outcome(drives, alarms, float(np.quantile(severity, 1 - share))) for share in shares]


def at_share(outcomes: list[Outcome], share: float) -> Outcome:
    """Return the one with the fewest false alarms of those that find at least that share."""
    enough = [one for one in outcomes if one.found >= share]
    return min(enough, key=lambda one: one.false, default=Outcome(np.nan, np.nan, np.nan))


def choose(drives: list[Drive]) -> Rule:
    """Print rules on the drives that choose; return that with the fewest false alarms, as a mean of logarithms."""

    def loss(rule: Rule) -> float:
        outcomes = curve(drives, alarms_of_tracks(rule))
        false = [at_share(outcomes, share).false for share in SHARES]
        told = " ".join(f"{value:.1f}" for value in false)
        print(f"gap {rule.gap}, overlap {rule.overlap}, {rule.needed} of {rule.window}: {told}", flush=True)
        value = float(np.mean(np.log(np.maximum(false, 0.3))))  # less than one in the drives that choose
        return np.inf if np.isnan(value) else value

    # first how many segments in how many frames, then how they are linked
    best = min((Rule(needed=needed, window=window) for needed, window in NEEDED), key=loss)
    return min((replace(best, gap=gap, overlap=overlap) for gap, overlap in LINKS), key=loss)


def compare(drives: list[Drive], rules: dict[str, Rule]) -> None:
    """Print false alarms a minute and delays at equal shares of objects."""
    ways = {"single frames": alarms_of_frames, **{name: alarms_of_tracks(rule) for name, rule in rules.items()}}
    kept = [segment.severity for drive in drives for seen in drive for segment in seen.segments if segment.kept]
    for name, alarms in ways.items():
        print(f"{name:>32} at the detector's threshold, {min(kept):.3g}: {outcome(drives, alarms, min(kept))}")
    single = curve(drives, alarms_of_frames)
    for name, alarms in ways.items():
        outcomes = curve(drives, alarms)
        for share in SHARES:
            one, base = at_share(outcomes, share), at_share(single, share)
            print(
                f"{name:>32} {share:.0%}: found {one.found:.0%}, false {one.false:.1f} a minute "
                f"(1/{base.false / one.false if one.false else np.inf:.1f}), after {one.delay:.1f} s"
            )


def classify(drives: list[Drive], rule: Rule) -> None:
    """Print the AUROC of a logistic regression with and without temporal features, out of fold by drive."""
    own, temporal, label, group, start = [], [], [], [], []
    for number, drive in enumerate(drives):
        tracker = Tracker(rule)
        for seen in drive:
            found, _ = tracker.add(seen.frame, seen.segments)
            own.append(seen.features)
            temporal += [track.temporal(overlap) for track, overlap in found]
            label += [bool(touched) for touched in seen.touched]
            group += [number] * len(found)
            start += [seen.frame.row] * len(found)
    features, y, groups = np.concatenate(own), np.array(label), np.array(group)
    past = np.array(temporal)
    # mean and highest severity come from a classifier that was fitted elsewhere: also without them
    cases = {"75 features": features, "and age, flicker, growth, overlap": np.hstack([features, past[:, :4]])}
    cases |= {"and all six": np.hstack([features, past])}
    chances = {}
    for name, x in cases.items():
        chance = np.zeros(len(y))
        for fitted, held in GroupKFold(n_splits=min(6, len(drives))).split(x, y, groups):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x[fitted], y[fitted])
            chance[held] = model.decision_function(x[held])
        chances[name] = chance
    # intervals by resampling whole drives
    rng, base = np.random.default_rng(0), chances["75 features"]
    rows = [np.flatnonzero(groups == number) for number in range(len(drives))]
    draws = [np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))]) for _ in range(500)]
    for name, chance in chances.items():
        value, gain = roc_auc_score(y, chance), roc_auc_score(y, chance) - roc_auc_score(y, base)
        many = np.array([(roc_auc_score(y[d], chance[d]), roc_auc_score(y[d], base[d])) for d in draws])
        low, high = np.quantile(many[:, 0], (0.025, 0.975))
        less, more = np.quantile(many[:, 0] - many[:, 1], (0.025, 0.975))
        print(f"{name:>36}: AUROC {value:.4f} ({low:.4f} to {high:.4f}), gain {gain:+.4f} ({less:+.4f} to {more:+.4f})")
    print(f"{len(y)} segments, {y.sum()} touch an object; temporal features: {', '.join(TEMPORAL_FEATURES)}")


def speed(drives: list[Drive]) -> None:
    """Print frames a second of tracker and temporal features."""
    started, frames = time.process_time(), 0
    for drive in drives * 3:
        tracker = Tracker(Rule())
        for seen in drive:
            found, _ = tracker.add(seen.frame, seen.segments)
            _ = [track.temporal(overlap) for track, overlap in found]
            frames += 1
    segments = np.mean([len(seen.segments) for drive in drives for seen in drive])
    print(f"{frames / (time.process_time() - started):.0f} frames a CPU second, {segments:.0f} segments a frame")


def main() -> None:
    """Draw, look, choose, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="+", type=Path)
    parser.add_argument("--drives", type=int, default=12)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs=2, default=(101, 202), help="that chooses, that measures")
    parser.add_argument("--choose", action="store_true", help="all rules, else the default alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder, str(seed)) for seed in given.seeds]
        for root, seed in zip(roots, given.seeds, strict=True):
            all(write_drives(root, given.drives, given.frames, seed=seed, height=128, width=256))
        for path in given.detectors:
            print(f"--- {path}", flush=True)
            detector = Detector.load(path, "cpu")
            choosing, measuring = (look(detector, root) for root in roots)
            rules = {"tracks, first segment": Rule(needed=1, window=1), "tracks, default": Rule()}
            if given.choose:
                rules["tracks, chosen"] = chosen = choose(choosing)
                print(f"chosen: {chosen}")
            compare(measuring, rules)
            classify(measuring, Rule())
            speed(measuring)


if __name__ == "__main__":
    main()
