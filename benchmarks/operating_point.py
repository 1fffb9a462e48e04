"""Does the promise of a budget hold? Thresholds chosen on some scenes of drawn worlds, false alarms counted on others.

    python benchmarks/operating_point.py --weights data/networks/deeplabv3plus_mini/ood_trained.safetensors

Each world is drawn with a seed of its own: 240 drives, each through a street of its own and with two frames; in every
second drive the second frame has objects. Another world fits the meta classifier. Ten times, the world's drives are
split into those that choose the threshold (CHOOSING) and the others, on which alarms and found objects are counted.
"Out of fold", those that choose fit the classifier as well. Then the same thresholds meet frames that break the
assumption. Segment tables lie in --tables, one a world; what is there is not drawn again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from meta_ood.config import InferParams
from meta_ood.data.context import progress
from meta_ood.data.images import write_image
from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.data.overlays import segments_map
from meta_ood.data.predictions import Prediction
from meta_ood.demo import street, textures
from meta_ood.demo.canvas import Camera
from meta_ood.demo.obstacles import HAZARDS
from meta_ood.demo.things import dice
from meta_ood.demo.world import sample_world
from meta_ood.demo.write import light, photo, stand
from meta_ood.inference import average_logits
from meta_ood.meta_classification import fit, promise
from meta_ood.meta_classification.folds import predict_folds
from meta_ood.metrics import Flags, Floats, risk
from meta_ood.models import checkpoint
from meta_ood.scores import SCORES, PixelMaps, pixel_maps
from meta_ood.segments import SegmentTable, label_map, measure_segments, predicted_ood, table_file

SIZE = (128, 256)  # [px] as the demo's networks were trained
WORLDS, SPLITS = 20, 10
FIRST_WORLD = 2000  # seeds from here on; nothing was chosen on them
SCENES = 240  # per world
CHOOSING = (160, 100, 60)  # of them choose the threshold; the others are held out
CONFIDENCE, BUDGETS = 0.9, (0.1, 0.3)  # false alarms per frame
MONITORED = 50  # frames after which the monitor is asked, one a scene
SHIFTED_WORLDS = 3
MONITORED_SPLITS = 2  # of each world: the monitor is slow to test in bulk
NUMBERS = (50, 100, 200, 400)  # of calibration scenes
REPEATS = 50  # draws of calibration scenes from all worlds together
PAVED, STONES = "paved", 4.0  # texture of all surfaces, and its amplitude; the demo's is 1
VOID = (1, 2, 4, 6, 9, 10)  # label ids that Cityscapes does not evaluate
SCORE, SEGMENTS_FROM = "entropy", 0.7  # score and threshold of the segments, as published

Pixels = np.ndarray


def paved() -> Floats:
    """Return a noise table ``(256, 256)`` of paving stones: each of its own brightness, with dark joints between."""
    place = np.arange(256)
    stones = np.random.default_rng(1).uniform(-1, 1, (32, 16))[place[:, None] // 8, place // 16]
    is_joint = (place[:, None] % 8 < 2) | (place % 16 < 2)
    return (STONES * np.where(is_joint, -1, stones)).astype(np.float32)


@contextmanager
def other_materials(table: Floats) -> Iterator[None]:
    """Draw the same streets with another table of noise, of which all surfaces are made."""
    plain = textures.noise_table
    textures.noise_table = lambda: table
    yield
    textures.noise_table = plain


def blurred(pixels: Pixels) -> Pixels:
    """Out of focus."""
    return gaussian_filter(pixels, (1.5, 1.5, 0))


def night(pixels: Pixels) -> Pixels:
    """Two fifths of the light, and the noise of a sensor at its limit."""
    noise = np.random.default_rng(2).normal(0, 6, pixels.shape)
    return np.clip(0.4 * pixels + noise, 0, 255).astype(np.uint8)


def recoloured(pixels: Pixels) -> Pixels:
    """Exchange the colours: the same shapes in another style."""
    return pixels[..., (2, 0, 1)]


SHIFTS: dict[str, Callable[[Pixels], Pixels]] = {
    "none": np.asarray,
    "blur": blurred,
    "night": night,
    "other colours": recoloured,
    PAVED: np.asarray,  # drawn so
}


def drawn(seed: int, scene: int) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Yield name, image and target of the two frames of a drive; the second one of even drives has objects."""
    rng = np.random.default_rng([seed, scene])
    world, start, day = sample_world(rng, scene), street.aim(rng, *SIZE), light(rng)

    def frame(camera: Camera, objects: int) -> tuple[Pixels, Pixels]:
        canvas = street.render(world, camera, *SIZE)
        for z in sorted(rng.uniform(6, 16, objects), reverse=True):  # far ones first
            label, x = (
                int(rng.choice(list(HAZARDS))),
                rng.uniform(-0.7 * world.sides[0].road, 0.8 * world.sides[1].road),
            )
            size, rolled = float(rng.uniform(0.8, 1.4)), dice(rng)
            stand(canvas, camera, draw=HAZARDS[label], x=x, z=z, rolled=rolled, label=100 + label, size=size)
        street.add_car_body(canvas)
        target = np.where(np.isin(canvas.ids, VOID), IGNORE, np.where(canvas.ids >= 100, OOD, IN)).astype(np.uint8)
        return photo(rng, canvas, world, *day), target

    yield "ordinary", *frame(start, 0)
    second = Camera(start.focal, start.vanishing, start.x, start.height, 2.5)  # 2.5 m further
    yield ("ordinary 2", *frame(second, 0)) if scene % 2 else ("objects", *frame(second, int(rng.integers(1, 4))))


def predicted(
    network: torch.nn.Module, pixels: Pixels, target: Pixels, name: str, scene: str
) -> tuple[Prediction, PixelMaps]:
    """Return the prediction of an image and its pixel maps."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    logits = average_logits(network, image, InferParams())[0].numpy()
    prediction = Prediction(name, logits, SIZE, network.align_corners, target, scene)
    return prediction, pixel_maps(prediction)


def measured(network: torch.nn.Module, seed: int, scenes: int, shift: str = "none") -> SegmentTable:
    """Draw a world and measure its segments; where nobody calibrates, one ordinary frame a scene."""
    tables = []
    for scene in range(scenes):
        for name, pixels, target in itertools.islice(drawn(seed, scene), 2 if seed < FIRST_WORLD + WORLDS else 1):
            prediction, maps = predicted(network, SHIFTS[shift](pixels), target, f"{scene}_{name}", f"{scene:03d}")
            tables.append(measure_segments(prediction, SCORE, SEGMENTS_FROM, maps=maps))
    return SegmentTable.concatenate(tables)


def stored(folder: Path, network: torch.nn.Module, seed: int, scenes: int, shift: str = "none") -> SegmentTable:
    """Return what `measured` returns, from the folder if it is there."""
    path = folder / f"{seed}-{shift.replace(' ', '-')}.h5"
    if not path.is_file():
        with other_materials(paved()) if shift == PAVED else nullcontext():
            table_file.write_table(path, measured(network, seed, scenes, shift), {})
    return table_file.read_table(path)


Judge = Callable[[SegmentTable], Floats]  # severity of each segment, (S,)


def of_score(table: SegmentTable) -> Floats:
    """Return the mean score of each segment, for comparison."""
    return table.segment_score


def of_excess(table: SegmentTable) -> Floats:
    """Return the severity without a meta classifier."""
    return table.excess


def fitted(table: SegmentTable, chosen: Flags) -> Judge:
    """Return the severity -ln P(false) by a classifier of the segments on the chosen images ``(N,)``."""
    of = chosen[table.image]
    names = ("image", "features", "iou", "segment_box", "segment_score")
    part = replace(table, overlaps=np.zeros((0, 3), np.int64), **{name: getattr(table, name)[of] for name in names})
    return fit(part).severity


def out_of_fold(table: SegmentTable, chosen: Flags) -> Floats:
    """Return `fitted`'s severities, but on the chosen images those by fits without a fifth of the scenes."""
    of = chosen[table.image]
    fold = np.unique(table.scenes, return_inverse=True)[1][table.image[of]] % 5
    values = fitted(table, chosen)(table)
    found = predict_folds(table.features[of], table.is_false[of], fold, "logistic_regression")
    values[of] = np.logaddexp(0, -found.log_odds)
    return values


class Outcome(NamedTuple):
    """One split: the point, and what holds on the held-out scenes."""

    point: risk.OperatingPoint
    rate: float
    recall: float
    oracle: float  # recall at the lowest threshold whose held-out rate keeps to the budget
    judge: Judge
    calibrate: Flags  # (N,) images that chose the point


def judged(table: SegmentTable, values: Floats, judge: Judge, calibrate: Flags, test: Flags, budget: float) -> Outcome:
    """Choose the threshold on ordinary frames of `calibrate` ``(N,)`` and count on `test`; `values` are severities."""
    per_frame, names = risk.false_severities(table, values), np.array(table.scenes)

    def frames(part: Flags) -> tuple[list[Floats], list[str]]:
        own = np.flatnonzero(part & ordinary(table))
        return [per_frame[i] for i in own], names[own].tolist()

    point = risk.choose_threshold(*frames(calibrate), budget, CONFIDENCE)
    held_out, units = frames(test)
    tops = risk.highest(held_out)
    curve = risk.froc(held_out, units, risk.object_severities(table, values)[test[table.component_image]])
    # the curve's thresholds are severities: the lowest one that keeps to the budget finds most
    oracle = float(curve["recall"][curve["alarm_rate"] <= budget].max(initial=0))
    recall = float((risk.object_severities(table, values)[test[table.component_image]] >= point.threshold).mean())
    rate = float(risk.losses(tops, units, point.threshold).mean())
    return Outcome(point, rate, recall, oracle, judge, calibrate & ordinary(table))


def ordinary(table: SegmentTable) -> Flags:
    """Return ``(N,)`` which frames were drawn without objects."""
    return np.array([not name.endswith("objects") for name in table.image_ids])


def within_worlds(worlds: list[SegmentTable], choosing: int) -> dict[tuple[str, float], list[list[Outcome]]]:
    """Return for each severity and budget the outcomes of each world's splits; so many scenes choose."""
    outcomes: dict[tuple[str, float], list[list[Outcome]]] = {}
    for number, table in enumerate(worlds):
        other = worlds[number - 1]
        judge = fitted(other, np.ones(len(other.image_ids), bool))
        scenes = np.unique(table.scenes, return_inverse=True)[1]
        for split in range(SPLITS):
            # whole scenes on one side
            place = np.random.default_rng([FIRST_WORLD + number, split]).permutation(scenes.max() + 1)[scenes]
            calibrate = place < choosing
            for kind, values, judging in (
                ("score", of_score(table), of_score),
                ("(score - threshold) √size", of_excess(table), of_excess),
                ("meta", judge(table), judge),
                ("meta, out of fold", out_of_fold(table, calibrate), fitted(table, calibrate)),
            ):
                for budget in BUDGETS:
                    groups = outcomes.setdefault((kind, budget), [[] for _ in worlds])
                    groups[number].append(judged(table, values, judging, calibrate, ~calibrate, budget))
    return outcomes


def promised(worlds: list[SegmentTable], choosing: int) -> dict[tuple[str, float], list[list[Outcome]]]:
    """Print whether the promise holds where so many scenes of each world choose; return the outcomes."""
    outcomes = within_worlds(worlds, choosing)
    print(f"\n{choosing} scenes of each world choose, {SCENES - choosing} are held out\n")
    print("| severity | budget | rate held out | splits above the budget | recall | at the oracle | ratio |")
    print("|---|---|---|---|---|---|---|")
    for (kind, budget), groups in sorted(outcomes.items()):
        rate, _ = mean_and_error([[o.rate for o in group] for group in groups])
        above, error = mean_and_error([[float(o.rate > budget) for o in group] for group in groups])
        recall, _ = mean_and_error([[o.recall for o in group] for group in groups])
        oracle, _ = mean_and_error([[o.oracle for o in group] for group in groups])
        figures = f"{rate:.3f} | {above:.3f} ± {error:.3f} | {recall:.3f} | {oracle:.3f} | {recall / oracle:.2f}"
        print(f"| {kind} | {budget} | {figures} |", flush=True)
    return outcomes


def under_shifts(
    worlds: list[SegmentTable],
    shifted: dict[str, list[SegmentTable]],
    outcomes: dict[tuple[str, float], list[list[Outcome]]],
) -> dict[tuple[str, str, float], list[float]]:
    """Print what the monitor reports after so many frames; return the rates by shift, severity and budget."""
    print(f"\n| frames | severity | budget | rate | promise unlikely after {MONITORED} | drift found | either |")
    print("|---|---|---|---|---|---|---|")
    rates: dict[tuple[str, str, float], list[float]] = {}
    for (shift, found), kind, budget in itertools.product(
        shifted.items(), ("(score - threshold) √size", "meta"), BUDGETS
    ):
        own, unlikely, drift = [], [], []
        for table, group in zip(worlds, outcomes[kind, budget], strict=True):
            for outcome, other in itertools.product(group[:MONITORED_SPLITS], found):
                severity = outcome.judge(other)
                tops = risk.highest(risk.false_severities(other, severity))
                alarms = int((tops >= outcome.point.threshold).sum())
                own.append(alarms / MONITORED)
                unlikely.append(risk.promise_p_value(alarms, MONITORED, budget) < promise.UNLIKELY)
                known = promise.table_statistics(table, outcome.judge(table))[outcome.calibrate]
                reference = risk.quantile_sample(known, promise.QUANTILES)
                p_values = risk.drift_p_values(promise.table_statistics(other, severity), reference)
                drift.append(bool((p_values < promise.UNLIKELY).any()))
        rates[shift, kind, budget] = own
        either = [a or b for a, b in zip(unlikely, drift, strict=True)]
        shares = " | ".join(f"{statistics.mean(values):.2f}" for values in (own, unlikely, drift, either))
        print(f"| {shift} | {kind} | {budget} | {shares} |", flush=True)
    return rates


class Pool(NamedTuple):
    """All worlds as one; the scenes of the first two fit the classifier."""

    table: SegmentTable
    scenes: np.ndarray  # (N,) number of each image's scene
    train: Flags  # (N,)
    kinds: dict[str, Floats]  # severities of all segments

    def calibration(self, number: int, repeat: int) -> Flags:
        """Return ``(N,)`` the images of so many other scenes."""
        rest = np.unique(self.scenes[~self.train])
        return np.isin(self.scenes, np.random.default_rng([number, repeat]).permutation(rest)[:number])


def pool(worlds: list[SegmentTable]) -> Pool:
    """Put the worlds together."""
    named = [
        replace(table, scenes=tuple(f"{world:02d} {scene}" for scene in table.scenes))
        for world, table in enumerate(worlds)
    ]
    table = SegmentTable.concatenate(named)
    _, scenes = np.unique(table.scenes, return_inverse=True)
    train = scenes < 2 * SCENES
    kinds = {"score": of_score(table), "(score - threshold) √size": table.excess, "meta": fitted(table, train)(table)}
    return Pool(table, scenes, train, kinds)


def by_number_of_scenes(everything: Pool) -> None:
    """Print how rate and recall depend on the number of calibration scenes."""
    print("\n| severity | budget | scenes | rate held out | thresholds above the budget | recall / oracle |")
    print("|---|---|---|---|---|---|")
    for kind, budget, number in itertools.product(("(score - threshold) √size", "meta"), BUDGETS, NUMBERS):
        values, found = everything.kinds[kind], []
        for repeat in range(REPEATS):
            calibrate = everything.calibration(number, repeat)
            test = ~everything.train & ~calibrate
            found.append(judged(everything.table, values, of_score, calibrate, test, budget))
        above = statistics.mean(float(o.rate > budget) for o in found)
        rate, ratio = statistics.mean(o.rate for o in found), statistics.mean(o.recall / o.oracle for o in found)
        print(f"| {kind} | {budget} | {number} | {rate:.3f} | {above:.2f} | {ratio:.2f} |", flush=True)


def draw_curves(everything: Pool, path: Path) -> None:
    """Draw recall against the share of frames with a false alarm, and the points that 200 scenes choose."""
    axes = Figure(figsize=(6, 3.6), layout="constrained").subplots()
    calibrate = everything.calibration(200, 0)
    test = ~everything.train & ~calibrate
    own = np.flatnonzero(test & ordinary(everything.table))
    for (kind, values), colour in zip(everything.kinds.items(), ("#7486a8", "#1f9e77", "#e06c00"), strict=True):
        per_frame = risk.false_severities(everything.table, values)
        objects = risk.object_severities(everything.table, values)[test[everything.table.component_image]]
        names = np.array(everything.table.scenes)[own].tolist()
        curve = risk.froc([per_frame[i] for i in own], names, objects)
        # few points make small files
        step = np.unique(
            np.searchsorted(curve["alarm_rate"], np.linspace(0, 0.6, 200)).clip(max=len(curve["recall"]) - 1)
        )
        axes.plot(curve["alarm_rate"][step], curve["recall"][step], color=colour, label=kind)
        for budget in BUDGETS:
            point = judged(everything.table, values, of_score, calibrate, test, budget)
            axes.plot(point.rate, point.recall, "o", color=colour)
    for budget in BUDGETS:
        axes.axvline(budget, color="#3f4654", linestyle=":", linewidth=1)
        axes.text(budget, 0.02, f" budget {budget}", color="#3f4654", fontsize=8)
    axes.set(xlim=(0, 0.6), ylim=(0, 1), xlabel="frames with a false alarm", ylabel="objects found")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    save(axes, path)


def draw_rates(rates: dict[tuple[str, float], list[float]], path: Path) -> None:
    """Draw the rates of all thresholds, on scenes of the same world and on those that break the assumption."""
    panels = Figure(figsize=(6, 3), layout="constrained").subplots(1, len(BUDGETS), sharey=True)
    for axes, budget in zip(panels, BUDGETS, strict=True):
        for place, ((name, _), values) in enumerate(item for item in rates.items() if item[0][1] == budget):
            spread = np.random.default_rng(place).uniform(-0.3, 0.3, len(values))
            colour = "#e06c00" if place else "#1f9e77"
            axes.plot(place + spread, values, ".", color=colour, markersize=2, alpha=0.5, rasterized=True)
            axes.text(place, 1.02, name.replace(" ", "\n"), ha="center", fontsize=7)
        axes.axhline(budget, color="#3f4654", linestyle=":", linewidth=1)
        axes.set(ylim=(0, 1), xticks=[], xlabel=f"budget {budget}")
    panels[0].set_ylabel("frames with a false alarm")
    save(panels[0], path)


def save(axes: Axes, path: Path) -> None:
    """Write an SVG file, the same bytes each time."""
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        axes.figure.savefig(path, metadata={"Date": None}, dpi=150)


def draw_frames(network: torch.nn.Module, shifted: dict[str, list[SegmentTable]], outcome: Outcome, path: Path) -> None:
    """Draw one frame per shift and its segments: orange those that raise an alarm, blue the silent ones."""
    # the first frame that is silent as it is and raises an alarm under most shifts
    first = {shift: risk.highest(risk.false_severities(t, outcome.judge(t))) for shift, (t, *_) in shifted.items()}
    alarms = {shift: (tops >= outcome.point.threshold).astype(int) for shift, tops in first.items()}
    scene = int(np.argmax(sum(alarms.values()) - 2 * len(SHIFTS) * alarms["none"]))
    rows = []
    for shift, change in SHIFTS.items():
        with other_materials(paved()) if shift == PAVED else nullcontext():
            _, pixels, target = next(drawn(FIRST_WORLD + WORLDS, scene))
        image = change(pixels)
        prediction, maps = predicted(network, image, target, "", "")
        labels = label_map(predicted_ood(SCORES[SCORE](maps), SEGMENTS_FROM, target))
        table = measure_segments(prediction, SCORE, SEGMENTS_FROM, maps=maps)
        rows.append(
            np.concatenate([image, segments_map(image, labels, outcome.judge(table) < outcome.point.threshold)], axis=1)
        )
    write_image(path, np.concatenate(rows), quality=85)


def mean_and_error(groups: list[list[float]]) -> tuple[float, float]:
    """Return the mean and its standard error over worlds: splits of one world are not independent."""
    means = [statistics.mean(group) for group in groups]
    return statistics.mean(means), statistics.stdev(means) / len(means) ** 0.5


def main() -> None:
    """Draw what is missing and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--tables", type=Path, default=Path("outputs/operating_point"))
    parser.add_argument("--pictures", type=Path, help="folder for the pictures of docs/operating-point.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, _ = checkpoint.load(options.weights)
    network.eval()
    options.tables.mkdir(parents=True, exist_ok=True)
    # 1. the tables
    draw = partial(stored, options.tables, network)
    seeds = range(FIRST_WORLD, FIRST_WORLD + WORLDS)
    worlds = [draw(seed, SCENES) for seed in progress(seeds, "worlds", WORLDS)]
    after = range(seeds.stop, seeds.stop + SHIFTED_WORLDS)
    shifted = {
        shift: [draw(seed, MONITORED, shift) for seed in after] for shift in progress(SHIFTS, "shifts", len(SHIFTS))
    }
    # 2. the promise on scenes of the same world; many that choose find more, many held out say surely what holds
    most, *_ = [promised(worlds, choosing) for choosing in CHOOSING]
    everything = pool(worlds)
    by_number_of_scenes(everything)
    # 3. frames that break the assumption
    rates = under_shifts(worlds, shifted, most)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        draw_curves(everything, options.pictures / "operating-point-curves.svg")
        shown = {("same world", b): [o.rate for group in most["meta", b] for o in group] for b in BUDGETS}
        shown |= {(shift, b): found for (shift, kind, b), found in rates.items() if kind == "meta" and shift != "none"}
        draw_rates(shown, options.pictures / "operating-point-rates.svg")
        draw_frames(network, shifted, most["meta", BUDGETS[0]][0][0], options.pictures / "operating-point-frames.jpg")


if __name__ == "__main__":
    main()
