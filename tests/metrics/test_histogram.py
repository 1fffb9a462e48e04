"""Score histograms against scikit-learn on the raw scores, and their sums in every order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.metrics.pixel import ScoreHistogram, key_scores, merge, pixel_metrics
from meta_ood.metrics.pixel.keys import order_keys

SMALL = 1 << 17
N = 40_000


def scores(name: str) -> np.ndarray:
    r = np.random.default_rng(11)
    return {
        "heavy_tailed": lambda: r.standard_cauchy(N) * 1e5,
        "constant": lambda: np.full(N, 0.25),
        "tied": lambda: r.integers(-2, 3, N) / 4,
        "bimodal": lambda: np.where(r.random(N) < 0.5, r.normal(0.1, 0.01, N), r.normal(9, 1, N)),
        "negative": lambda: -np.exp(r.normal(size=N)),
        "huge_range": lambda: np.exp(r.normal(size=N) * 15),
        "saturated": lambda: 1 - r.beta(0.02, 5, N),
        "zeros": lambda: np.where(r.random(N) < 0.5, -0.0, r.beta(0.2, 9, N)),
        "infinite": lambda: np.where(r.random(N) < 0.01, np.inf, r.normal(size=N)),
    }[name]()


NAMES = ["heavy_tailed", "constant", "tied", "bimodal", "negative"]
NAMES += ["huge_range", "saturated", "zeros", "infinite"]


def make(name: str, dtype: str = "float32", share: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Return a score map with 1 row, shifted up where positive, and its target."""
    r = np.random.default_rng(5)
    values = scores(name)
    positive = r.random(N) < share
    if name not in ("constant", "infinite"):
        values[positive] += 0.5 * np.abs(values[positive])
    if dtype == "float16":
        values = np.clip(values, -6e4, 6e4)
    target = np.where(positive, OOD, r.choice([IN, 0, 18], N)).astype(np.uint8)
    return values.astype(dtype)[None], target[None]


def by_sklearn(score: np.ndarray, target: np.ndarray) -> tuple[float, float, float]:
    evaluated = (target != IGNORE) & (target != NEUTRAL)
    y, s = target[evaluated] == OOD, score[evaluated].astype(np.float32).astype(np.float64)
    s = np.clip(s, -1e300, 1e300)  # scikit-learn takes no infinities
    fpr, tpr, _ = sklearn_roc_curve(y, s, drop_intermediate=False)
    return roc_auc_score(y, s), average_precision_score(y, s), fpr[np.argmax(tpr >= 0.95)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_as_scikit_learn(name: str, dtype: str) -> None:
    score, target = make(name, dtype)
    m = pixel_metrics(ScoreHistogram.of(score, target))
    auroc, auprc, fpr95 = by_sklearn(score, target)
    assert m.auroc == pytest.approx(auroc, abs=1e-12)
    assert m.auprc == pytest.approx(auprc, abs=1e-12)
    assert m.fpr95 == pytest.approx(fpr95, abs=1e-12)
    assert m.auroc_error == m.auprc_error == m.fpr95_error == 0


def test_one_positive_in_many() -> None:
    r = np.random.default_rng(0)
    score = r.normal(size=(1, 400_000)).astype(np.float32)
    target = np.full(score.shape, IN, np.uint8)
    target[0, np.argsort(score[0])[-300]] = OOD
    m = pixel_metrics(ScoreHistogram.of(score, target))
    assert (m.auroc, m.auprc, m.fpr95) == pytest.approx(by_sklearn(score, target), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_error_bounds_hold_when_memory_is_short(name: str) -> None:
    score, target = make(name)
    m = pixel_metrics(ScoreHistogram.of(np.tile(score, (3, 1)), np.tile(target, (3, 1)), 1 << 16))
    auroc, auprc, fpr95 = by_sklearn(score, target)
    assert abs(m.auroc - auroc) <= m.auroc_error + 1e-12
    assert abs(m.auprc - auprc) <= m.auprc_error + 1e-12
    assert abs(m.fpr95 - fpr95) <= m.fpr95_error + 1e-12


def test_short_memory_is_close() -> None:
    score, target = make("bimodal")
    histogram = ScoreHistogram.of(score, target, 1 << 16)
    assert not histogram.exact
    m = pixel_metrics(histogram)
    auroc, auprc, fpr95 = by_sklearn(score, target)
    assert m.auroc == pytest.approx(auroc, abs=1e-5)
    assert m.auprc == pytest.approx(auprc, abs=1e-3)
    assert m.fpr95 == pytest.approx(fpr95, abs=1e-3)


def test_rare_scores_of_a_wide_range_cost_the_others_no_resolution() -> None:
    r = np.random.default_rng(0)
    score = r.uniform(1, 8, (1, 200_000)).astype(np.float32)
    score[0, ::50] = np.exp(r.normal(size=4000) * 15)  # about one in each page
    target = np.where(r.random(score.shape) < 0.1, OOD, IN).astype(np.uint8)
    histogram = ScoreHistogram.of(score, target, SMALL)
    assert not histogram.exact
    assert pixel_metrics(histogram).auroc_error < 1e-5  # it would be 8 times as large if each page had a row


def exact_counts(score: np.ndarray, target: np.ndarray) -> dict[float, list[int]]:
    found: dict[float, list[int]] = {}
    for value, label in zip(score.ravel().tolist(), target.ravel().tolist(), strict=True):
        if label not in (IGNORE, NEUTRAL):
            found.setdefault(value + 0.0, [0, 0])[label == OOD] += 1
    return found


def test_counts_every_score_for_itself() -> None:
    score, target = make("zeros")
    score, target = score[:, :2000], target[:, :2000]
    target[0, :50], target[0, 50:90] = IGNORE, NEUTRAL
    histogram = ScoreHistogram.of(score, target)
    keys, negatives, positives, coarse = histogram.counts()
    assert not coarse.any()
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    found = {float(s): [int(n), int(p)] for s, n, p in zip(key_scores(keys), negatives, positives, strict=True)}
    assert found == exact_counts(score, target)
    assert (histogram.ignored, histogram.neutral) == (50, 40)


@pytest.mark.parametrize("cells", [SMALL, 1 << 16])
@pytest.mark.parametrize("name", ["heavy_tailed", "bimodal", "saturated", "tied", "huge_range"])
def test_any_order_and_grouping_gives_the_same_bits(name: str, cells: int) -> None:
    score, target = (np.tile(a, (4, 1)) for a in make(name))
    score[2:] *= np.float32(1.7)
    rows = list(zip(np.split(score, 4), np.split(target, 4), strict=True))
    whole = merge(ScoreHistogram.of(s, t, cells) for s, t in rows)
    for order in itertools.islice(itertools.permutations(range(4)), 0, 24, 13):
        one_by_one = ScoreHistogram(cells)
        for i in order:
            one_by_one.add(*rows[i])
        assert one_by_one == whole
        left = ScoreHistogram.of(*rows[order[0]], cells) + ScoreHistogram.of(*rows[order[1]], cells)
        right = ScoreHistogram.of(*rows[order[2]], cells)
        assert left + (right + ScoreHistogram.of(*rows[order[3]], cells)) == whole


def test_adding_leaves_the_summands_alone() -> None:
    a, b = (ScoreHistogram.of(*make(name), SMALL) for name in ("bimodal", "zeros"))
    before = [x.copy() for x in b.counts()]
    total = a + b
    total.add(*make("heavy_tailed"))
    assert total.frames == 3
    assert all(np.array_equal(x, y) for x, y in zip(before, b.counts(), strict=True))
    assert a == ScoreHistogram.of(*make("bimodal"), SMALL)


def test_different_histograms_differ() -> None:
    score, target = make("tied")
    other = target.copy()
    other[target == OOD] = IN
    assert ScoreHistogram.of(score, target) != ScoreHistogram.of(score + 1, target)
    assert ScoreHistogram.of(score, target) != ScoreHistogram.of(score, other)
    with pytest.raises(ValueError, match="do not add up"):
        ScoreHistogram(SMALL) + ScoreHistogram(1 << 18)
    with pytest.raises(ValueError, match="too small"):
        ScoreHistogram(100)


def test_counters_beyond_32_bits() -> None:
    score, target = make("tied")
    small = ScoreHistogram.of(score, target, SMALL)
    histogram = small
    for _ in range(17):  # 2^17 times 40 000 pixels
        histogram = histogram + histogram
    assert histogram.positives == small.positives << 17
    _, negatives, positives, _ = histogram.counts()
    assert np.array_equal(negatives, small.counts()[1] << 17)
    assert positives.sum() + negatives.sum() > 1 << 32
    assert pixel_metrics(histogram).auroc == pytest.approx(pixel_metrics(small).auroc, abs=1e-12)


def test_dense_counters_beyond_32_bits() -> None:
    r = np.random.default_rng(1)
    score = r.random((1, 300_000)).astype(np.float32)
    target = np.where(score > 0.7, OOD, IN).astype(np.uint8)
    histogram = ScoreHistogram.of(score, target, SMALL)
    for _ in range(15):
        histogram = histogram + histogram
    assert histogram.counts()[1].sum() == histogram.negatives > 1 << 32
    assert pixel_metrics(histogram).auroc == pytest.approx(1, abs=1e-4)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=40))
@settings(max_examples=150, deadline=None)
def test_keys_keep_the_order(values: list[float]) -> None:
    array = np.array(values, np.float32)
    keys = order_keys(array).astype(np.int64)
    for (a, i), (b, j) in itertools.combinations(zip(values, keys.tolist(), strict=True), 2):
        assert (a < b, a == b) == (i < j, i == j)
    assert np.array_equal(key_scores(order_keys(array)), array)


def test_what_is_wrong_is_said() -> None:
    score, target = make("tied")
    with pytest.raises(ValueError, match="differ in shape"):
        ScoreHistogram.of(score[:, :-1], target)
    with pytest.raises(ValueError, match="must be uint8"):
        ScoreHistogram.of(score, target.astype(np.int64))
    with pytest.raises(ValueError, match=r"values \[18\]"):
        ScoreHistogram.of(score, target, classes=18)
    with pytest.raises(ValueError, match="real numbers"):
        ScoreHistogram.of(score.astype(complex), target)
    with pytest.raises(ValueError, match="beyond the range of float32"):
        ScoreHistogram.of(score.astype(np.float64) * 1e300, target)
    score[0, 3] = np.nan
    with pytest.raises(ValueError, match=r"x\.png: 1 evaluated pixels have the score NaN"):
        ScoreHistogram().add(score, target, name="x.png")
    target[0, 3] = IGNORE
    assert ScoreHistogram.of(score, target).ignored == 1


@pytest.mark.parametrize("start", [0.0, 1.0, -3e5])
def test_scores_that_float32_cannot_tell_apart_are_refused(start: float, caplog: pytest.LogCaptureFixture) -> None:
    """Narrowed, these scores would have an AUROC of 0.5."""
    r = np.random.default_rng(0)
    step = float(np.spacing(np.float32(start))) / 1000
    score = start + step * r.permutation(400).reshape(20, 20)
    target = np.where(score < start + 100 * step, OOD, IN).astype(np.uint8)
    with pytest.raises(ValueError, match=r"map: scores are counted as float32.* become equal"):
        ScoreHistogram().add(score, target, name="map")
    target[:] = IN  # alone this frame says nothing of AUROC, with others it may
    assert ScoreHistogram.of(score, target).negatives == 400
    assert "become equal; store a function of the same order" in caplog.text
    caplog.clear()
    target[:] = IGNORE  # what is not evaluated may be equal
    assert ScoreHistogram.of(score, target).ignored == 400
    assert not caplog.text


def test_integers_beyond_float32_are_refused_and_others_are_exact() -> None:
    target = np.uint8([[IN, OOD, IN, OOD]])
    with pytest.raises(ValueError, match="different int64 scores become equal"):
        ScoreHistogram.of(np.array([[2**24, 2**24 + 1, 5, 6]]), target)
    assert pixel_metrics(ScoreHistogram.of(np.array([[1, 2, 5, 6]]), target)).auroc == 0.75


def test_float64_scores_whose_rounding_hardly_matters_are_taken() -> None:
    r = np.random.default_rng(0)
    score = r.random((500, 600))
    target = np.where(r.random(score.shape) < 0.02, OOD, IN).astype(np.uint8)
    assert len(np.unique(score.astype(np.float32))) < score.size
    m = pixel_metrics(ScoreHistogram.of(score, target))
    assert m.auroc == pytest.approx(roc_auc_score(target.ravel() == OOD, score.ravel()), abs=1e-6)


def test_a_failed_map_is_not_counted() -> None:
    score, target = make("tied")
    histogram = ScoreHistogram.of(score, target)
    bad = score.copy()
    bad[0, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        histogram.add(bad, target)
    assert histogram == ScoreHistogram.of(score, target)


@pytest.mark.parametrize("values", [[IN], [OOD], [IGNORE, NEUTRAL]])
def test_a_missing_class_gives_nan_and_a_warning(values: list[int], caplog: pytest.LogCaptureFixture) -> None:
    target = np.resize(np.uint8(values), (3, 4))
    m = pixel_metrics(ScoreHistogram.of(np.ones((3, 4)), target))
    assert np.isnan([m.auroc, m.auprc, m.fpr95]).all()
    assert "the metrics are NaN" in caplog.text
