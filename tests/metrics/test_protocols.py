"""Pixel protocols against the published numbers, scikit-learn, and slow statements of each rule."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from meta_ood.data.labels import IGNORE, IN, OOD
from meta_ood.metrics import pixel
from meta_ood.metrics.pixel import ScoreHistogram, pixel_metrics
from meta_ood.metrics.pixel.protocols import published_metrics

REFERENCE = Path(__file__).parents[1] / "reference"
FILES = sorted(REFERENCE.glob("g4_*.npz"))
SMALL = [path for path in FILES if path.stem.endswith("small")]


def test_the_reference_is_there() -> None:
    assert (len(FILES), len(SMALL)) == (10, 5)


def as_map(scores_in: np.ndarray, scores_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    score = np.concatenate([scores_in, scores_out])[None]
    target = np.full(score.shape, IN, np.uint8)
    target[0, scores_in.size :] = OOD
    return score, target


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_exact_is_the_reference(path: Path) -> None:
    with np.load(path) as reference:
        m = pixel_metrics(ScoreHistogram.of(*as_map(reference["scores_in"], reference["scores_out"])))
        expected = reference["exact_auroc_fpr95_auprc"]
    assert (m.auroc, m.fpr95, m.auprc) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_is_the_reference(path: Path) -> None:
    with np.load(path) as reference:
        expected = reference["upstream_auroc_fpr95_auprc"]
        counts = [reference[f"counts_{name}"].astype(float) for name in ("in", "out")]
        found = published_metrics(*counts)
        assert [found[k] for k in ("auroc", "fpr95", "auprc")] == pytest.approx(expected, abs=1e-12)
        if path in SMALL:
            histogram = ScoreHistogram.of(*as_map(reference["scores_in"], reference["scores_out"]))
            m = pixel_metrics(histogram, "published")
            assert (m.auroc, m.fpr95, m.auprc) == pytest.approx(expected, abs=1e-12)


def test_published_loses_scores_that_round_beyond_one(caplog: pytest.LogCaptureFixture) -> None:
    target = np.uint8([[IN, IN, OOD, OOD]])
    score = np.array([[0.1, 0.2, 0.15, 1 + 2e-7]], np.float32)
    m = pixel_metrics(ScoreHistogram.of(score, target), "published")
    assert m.auroc == 0.5
    assert "loses 1 pixels" in caplog.text
    score[0, 2] = 1 + 2e-7
    assert np.isnan(pixel_metrics(ScoreHistogram.of(score, target), "published").auroc)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("place", [0.0, 1e-12, -1e-12])
def test_published_bins_scores_and_edges_in_float64(
    dtype: type, place: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A float32 score k / 100 lies on the other side of the edge for half of all k; 1 + 1e-12 is lost."""
    r = np.random.default_rng(0)
    maps = [((r.integers(0, 101, (40, 50)) / 100 + place).astype(dtype), r.random((40, 50)) < 0.2) for _ in range(3)]
    targets = [np.where(is_ood, OOD, IN).astype(np.uint8) for _, is_ood in maps]
    counts = [
        sum(np.histogram(score[is_ood == label].astype(np.float64), 100, (0, 1))[0] for score, is_ood in maps)
        for label in (False, True)
    ]
    expected = published_metrics(*(np.float64(c) for c in counts))
    # of frames one by one, and of the sum of two histograms
    whole, parts = ScoreHistogram(), [ScoreHistogram(), ScoreHistogram()]
    for index, ((score, _), target) in enumerate(zip(maps, targets, strict=True)):
        whole.add(score, target)
        parts[index % 2].add(score, target)
    assert whole == parts[0] + parts[1]
    m = pixel_metrics(whole, "published")
    assert {name: getattr(m, name) for name in expected} == expected
    lost = 3 * 2000 - int(np.sum(counts))
    assert lost == 0 or f"loses {lost} pixels" in caplog.text


@pytest.mark.parametrize("wrong", [-0.01, 1.01])
def test_published_has_no_figure_for_other_scores(wrong: float, caplog: pytest.LogCaptureFixture) -> None:
    target = np.uint8([[IN, IN, OOD, OOD]])
    m = pixel_metrics(ScoreHistogram.of(np.array([[0.1, 0.2, 0.9, wrong]]), target), "published")
    assert np.isnan([m.auroc, m.auprc, m.fpr95]).all()
    assert "needs scores in [0, 1]: it has no value for this score" in caplog.text


def images(count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    r = np.random.default_rng(2)
    result = []
    for index in range(count):
        target = r.choice(np.uint8([IN, 3, IGNORE]), (30, 40), p=[0.6, 0.3, 0.1])
        if index != 1:
            target[r.random(target.shape) < 0.05 * (1 + index)] = OOD
        score = r.beta(1, 6, target.shape) + (target == OOD) * r.beta(3, 3, target.shape)
        result.append(((score * (index + 1)).astype(np.float32), target))
    return result


def histogram_of(maps: list[tuple[np.ndarray, np.ndarray]]) -> ScoreHistogram:
    histogram = ScoreHistogram()
    for index, (score, target) in enumerate(maps):
        histogram.add(score, target, name=f"image{index}", curve=True)
    return histogram


def smiyc_slowly(maps: list[tuple[np.ndarray, np.ndarray]]) -> tuple[tuple[float, float, float], float]:
    """SegmentMeIfYouCan's curve rule by rule: AUROC, AP and FPR95, and its component threshold."""
    entries = []
    for score, target in maps:
        positive, negative = score[target == OOD], score[(target != OOD) & (target != IGNORE)]
        both = np.concatenate([positive, negative]).astype(np.float64)
        margin = max(0.01 * (both.max() - both.min()), 0.01)
        edges = [both.min() - margin, both.max() + margin]
        for part in (positive, negative):
            if part.size:
                steps = np.linspace(0, 1, min(384, part.size))
                edges.extend(np.quantile(part.astype(np.float64), steps))
        edges = np.unique(edges)
        tp, fp = np.histogram(positive, edges)[0], np.histogram(negative, edges)[0]
        entries += list(zip(edges[:-1].tolist(), tp.tolist(), fp.tolist(), strict=True))
    tp = fp = 0
    points = [(0.0, 0.0, 1.0)]
    best, cut = -1.0, math.nan
    positives, negatives = sum(e[1] for e in entries), sum(e[2] for e in entries)
    for threshold in sorted({e[0] for e in entries}, reverse=True):
        tp += sum(e[1] for e in entries if e[0] == threshold)
        fp += sum(e[2] for e in entries if e[0] == threshold)
        points.append((tp / positives, fp / negatives, tp / (tp + fp) if tp + fp else 1))
        if (f1 := 2 * tp / (2 * tp + fp + (positives - tp))) > best:
            best, cut = f1, threshold
    ap = auroc = 0.0
    for (r0, f0, _), (r1, f1, p1) in itertools.pairwise(points):
        ap += (r1 - r0) * p1
        auroc += (f1 - f0) * (r0 + r1) / 2
    return (auroc, ap, next(f for r, f, _ in points if r >= 0.95)), cut


def test_smiyc_rule_by_rule() -> None:
    maps = images()
    m = pixel_metrics(histogram_of(maps), "smiyc")
    assert (m.auroc, m.auprc, m.fpr95) == pytest.approx(smiyc_slowly(maps)[0], abs=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_smiyc_threshold_is_the_best_f1_of_the_merged_curve(seed: int) -> None:
    r = np.random.default_rng(seed)
    maps = []
    for _ in range(r.integers(1, 5)):
        target = r.choice(np.uint8([IN, OOD, IGNORE]), (15, 20), p=[0.8, 0.1, 0.1])
        score = r.normal(size=target.shape) + r.random() * 3 * (target == OOD)
        maps.append((score.astype(np.float32).round(int(r.integers(1, 5))), target))
    assert pixel.smiyc_threshold(histogram_of(maps)) == smiyc_slowly(maps)[1]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_smiyc_has_no_value_for_infinite_scores(value: float, share: float, caplog: pytest.LogCaptureFixture) -> None:
    score, target = images()[4]
    score[np.random.default_rng(0).random(score.shape) < share] = value
    histogram = histogram_of([(score, target)])
    m = pixel_metrics(histogram, "smiyc")
    assert np.isnan([m.auroc, m.auprc, m.fpr95, pixel.smiyc_threshold(histogram)]).all()
    assert "smiyc needs finite scores" in caplog.text
    for protocol in ("exact", "per_image_mean"):
        assert np.isfinite(pixel_metrics(histogram, protocol).auroc)


def test_protocols_differ_on_the_same_maps() -> None:
    histogram = histogram_of(images())
    found = {name: pixel_metrics(histogram, name) for name in pixel.PROTOCOLS}
    assert len({m.auprc for m in found.values()}) == 4  # fishyscapes pools exactly, too
    assert {name: m.protocol for name, m in found.items()} == {n: n for n in pixel.PROTOCOLS}


def test_mean_over_images_leaves_out_images_without_ood() -> None:
    maps = images()
    rows = []
    for index in (0, 2, 3, 4):
        score, target = maps[index]
        valid = target != IGNORE
        y, s = target[valid] == OOD, score[valid]
        fpr, tpr, _ = sklearn_roc_curve(y, s, drop_intermediate=False)
        first = fpr[np.argmax(tpr >= 0.95)]
        rows.append((roc_auc_score(y, s), average_precision_score(y, s), first))
    m = pixel_metrics(histogram_of(maps), "per_image_mean")
    assert (m.auroc, m.auprc, m.fpr95) == pytest.approx(np.mean(rows, axis=0), abs=1e-12)
    assert m.frames == 4


@pytest.mark.parametrize("protocol", sorted(pixel.PROTOCOLS))
def test_order_of_images_does_not_matter(protocol: str) -> None:
    maps = images()
    one, other = ScoreHistogram(), ScoreHistogram()
    for i in range(5):
        one.add(*maps[i], name=f"image{i}", curve=True)
        other.add(*maps[4 - i], name=f"image{4 - i}", curve=True)
    assert pixel_metrics(one, protocol) == pixel_metrics(other, protocol)


@pytest.mark.parametrize("protocol", pixel.PER_IMAGE)
def test_curves_of_images_are_asked_for(protocol: str) -> None:
    with pytest.raises(ValueError, match="needs a histogram with the curves of all images"):
        pixel_metrics(ScoreHistogram.of(*images()[0]), protocol)


def test_unknown_protocol_lists_the_known() -> None:
    with pytest.raises(ValueError, match="known: exact, fishyscapes, per_image_mean, published"):
        pixel_metrics(ScoreHistogram.of(*images()[0]), "nonsense")


def test_curves_run_from_end_to_end() -> None:
    score, target = images()[4]
    histogram = ScoreHistogram.of(score, target)
    valid = target != IGNORE
    expected = sklearn_roc_curve(target[valid] == OOD, score[valid], drop_intermediate=False)
    s = pixel.sweep(histogram)
    fpr, tpr, threshold = pixel.roc_curve(s, points=10**6)
    for found, wanted in zip((fpr, tpr, threshold), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    thin = pixel.roc_curve(s, points=40)
    assert thin[0].size <= 42
    assert (thin[0][0], thin[1][0], thin[0][-1], thin[1][-1]) == (0, 0, 1, 1)
    assert np.trapezoid(thin[1], thin[0]) == pytest.approx(np.trapezoid(tpr, fpr), abs=0.01)
    recall, precision, _ = pixel.pr_curve(s, points=10**6)
    steps = np.sum(np.diff(recall, prepend=0) * precision)
    assert steps == pytest.approx(average_precision_score(target[valid] == OOD, score[valid]), abs=1e-12)


def test_f1_at_a_threshold() -> None:
    score, target = images()[4]
    curve = pixel.sweep(ScoreHistogram.of(score, target))
    valid = target != IGNORE
    y, s = target[valid] == OOD, score[valid]
    for threshold in (float(s[7]), 0.5, -1.0):
        predicted = s >= np.float32(threshold)
        assert pixel.f1_at(curve, threshold) == pytest.approx(f1_score(y, predicted), abs=1e-12)
    assert pixel.f1_at(curve, 1e9) == 0
    best = max(pixel.f1_at(curve, float(v)) for v in np.unique(s))
    assert pixel.f1_at(curve, pixel.best_f1_threshold(curve)) == best


def test_fpr_at_any_tpr() -> None:
    score, target = images()[4]
    s = pixel.sweep(ScoreHistogram.of(score, target))
    valid = target != IGNORE
    fpr, tpr, _ = sklearn_roc_curve(target[valid] == OOD, score[valid], drop_intermediate=False)
    for level in (0.01, 0.5, 0.8, 1.0):
        first = np.argmax(tpr >= level)
        assert pixel.fpr_at_tpr(s, level) == pytest.approx((fpr[first], 0))


def test_score_distribution_counts_every_pixel() -> None:
    score, target = images()[4]
    s = pixel.sweep(ScoreHistogram.of(score, target))
    centres, negatives, positives = pixel.score_distribution(s, 20)
    valid = target != IGNORE
    low, high = score[valid].min(), score[valid].max()
    for label, found in ((False, negatives), (True, positives)):
        part = score[valid][(target[valid] == OOD) == label].astype(np.float64)
        np.testing.assert_array_equal(found, np.histogram(part, 20, (low, high))[0])
    assert centres[0] > low
    constant = ScoreHistogram.of(np.zeros((2, 2)), np.full((2, 2), IN, "u1"))
    one = pixel.score_distribution(pixel.sweep(constant))
    assert one[1].sum() == 4
