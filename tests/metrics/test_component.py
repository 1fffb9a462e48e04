"""Component metrics: each rule of decision 0043 as a drawing, and a slow, obvious oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import f1_score

from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.data.predictions import Prediction
from meta_ood.metrics import component, pixel
from meta_ood.metrics.component import Cut, Overlaps, component_metrics, of_mask, of_table
from meta_ood.segments import measure_segments

KEY = {".": (0, IN), "o": (0, OOD), "p": (1, IN), "#": (1, OOD), "v": (0, IGNORE), "x": (1, IGNORE)}
KEY["n"], KEY["q"] = (0, NEUTRAL), (1, NEUTRAL)


def draw(*rows: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a drawing: p predicted, o true, # both, v void, x predicted void, q on neutral."""
    score = np.array([[KEY[c][0] for c in row] for row in rows], np.float32)
    return score, np.array([[KEY[c][1] for c in row] for row in rows], np.uint8)


SMIYC = Cut("smiyc", 0.5, strict=True)


def measured(*rows: str, **sizes: int) -> tuple[list[float], list[float]]:
    score, target = draw(*rows)
    found = of_mask(SMIYC.mask(score, target), target, **sizes)
    return found.siou.tolist(), found.ppv.tolist()


def test_plain_overlap() -> None:
    assert measured("..oo....", "..##pp..") == ([2 / 6], [2 / 4])


def test_missed_and_false() -> None:
    assert measured("oo...pp") == ([0], [0])
    assert measured("oo.....") == ([0], [])
    assert measured(".....pp") == ([], [0])
    assert measured(".......") == ([], [])


def test_segments_touching_a_component_are_united() -> None:
    assert measured("p##o##pp") == ([4 / 8], [2 / 3, 2 / 4])


def test_pixels_on_other_components_are_no_union() -> None:
    # one segment over two components: for the left one, what lies on the right one is taken out
    assert measured("##p##") == ([2 / 3, 2 / 3], [4 / 5])


def test_another_component_counts_in_full_where_it_is_not_predicted() -> None:
    assert measured("##p##oo") == ([2 / 3, 2 / 5], [4 / 5])


def test_contact_without_a_common_pixel_is_none() -> None:
    assert measured("oopp") == ([0], [0])


def test_diagonal_contact_joins_both_kinds() -> None:
    assert measured("#..", ".#.", "..p") == ([2 / 3], [2 / 3])


def test_void_cuts_before_labelling() -> None:
    # the predicted void pixel parts the segment in two; the right half is a false one
    assert measured("##x.", "..xp", "..xp") == ([1], [1, 0])


def test_void_is_in_no_union() -> None:
    assert measured("##xx") == ([1], [1])


def test_neutral_pixels_are_not_void() -> None:
    assert measured("##qq") == ([2 / 4], [2 / 4])
    assert measured("##nn") == ([1], [1])


def test_small_segments_go_before_anything_is_counted() -> None:
    assert measured("##.pppp", min_segment=3) == ([0], [0])
    assert measured("##.pppp", min_segment=5) == ([0], [])
    assert measured("##.pppp", min_segment=2) == ([1], [1, 0])


def test_segment_size_is_that_before_small_components_become_void() -> None:
    # three pixels, two of them on a component that becomes void: the segment stays, one pixel large
    assert measured("p##...ooooo", min_segment=3, min_component=5) == ([0], [0])


def test_small_components_become_void() -> None:
    assert measured("oo..pp", min_component=3) == ([], [0])
    # a segment wholly on a small component vanishes without being relabelled or called false
    assert measured("##..ooo", min_component=3) == ([0], [])
    # a segment cut in two by such void stays one segment
    assert measured("p#p", min_component=2) == ([], [0])


def test_size_at_the_limit_is_kept() -> None:
    assert measured("###", min_segment=3, min_component=3) == ([1], [1])
    assert measured("###", min_segment=4, min_component=3) == ([0], [])
    assert measured("###", min_segment=3, min_component=4) == ([], [])


def test_the_threshold_itself_is_predicted_by_our_rule_only() -> None:
    score = np.array([[0.7, 0.8, 0.9]], np.float32)
    target = np.uint8([[IN, OOD, IGNORE]])
    ours, theirs = Cut("given", 0.7), Cut("given", float(np.float32(0.7)), strict=True)
    assert ours.mask(score, target).tolist() == [[True, True, False]]
    assert theirs.mask(score, target).tolist() == [[False, True, False]]
    # an edge between two float32 scores is not rounded to one of them
    between = float((np.float64(score[0, 0]) * 3 + np.float64(np.nextafter(score[0, 0], 0))) / 4)
    assert Cut("smiyc", between, strict=True).mask(score, target)[0, 0]


def test_a_threshold_is_given_or_chosen_by_one_of_two_rules() -> None:
    r = np.random.default_rng(0)
    target = r.choice(np.uint8([IN, OOD]), (30, 40), p=[0.9, 0.1])
    score = (r.normal(size=target.shape) + 2 * (target == OOD)).astype(np.float32)
    histogram = pixel.ScoreHistogram().add(score, target, curve=True)
    curve = pixel.sweep(histogram)
    assert Cut.choose(histogram, curve, 0.3) == Cut("given", 0.3)
    ours, theirs = Cut.choose(histogram, curve), Cut.choose(histogram, curve, smiyc=True)
    assert (ours.rule, ours.strict, theirs.rule, theirs.strict) == (
        "best_pixel_f1", False, "smiyc", True,
    )  # fmt: skip
    best = [f1_score(target.ravel() == OOD, c.mask(score, target).ravel()) for c in (ours, theirs)]
    assert best[0] == max(f1_score(target.ravel() == OOD, score.ravel() >= v) for v in score.flat)
    assert best[0] >= best[1] > 0.95 * best[0]
    values = theirs.values("all", of_mask(theirs.mask(score, target), target))
    assert (values["rule"], values["threshold_is_oracle"]) == ("smiyc", True)


def test_tracks() -> None:
    assert component.TRACKS == {"anomaly": (500, 100), "obstacle": (50, 10), "all": (0, 0)}


def slowly(
    score: np.ndarray, target: np.ndarray, min_segment: int, min_component: int
) -> tuple[list[float], list[float]]:
    """Sets of pixels, rule by rule."""
    height, width = target.shape

    def components(pixels: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
        left, found = set(pixels), []
        for start in sorted(pixels):
            if start in left:
                stack, one = [start], set()
                while stack:
                    y, x = stack.pop()
                    if (y, x) in left:
                        left.remove((y, x))
                        one.add((y, x))
                        stack += [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
                found.append(one)
        return found

    every = [(y, x) for y in range(height) for x in range(width)]
    segments = components({p for p in every if score[p] > 0.5 and target[p] != IGNORE})
    segments = [s for s in segments if len(s) >= min_segment]
    truths = components({p for p in every if target[p] == OOD})
    void = {p for t in truths if len(t) < min_component for p in t}
    truths = [t for t in truths if len(t) >= min_component]
    segments = [s - void for s in segments if s - void]
    siou = []
    for truth in truths:
        union = set().union(*(s for s in segments if s & truth))
        others = set().union(*(t for t in truths if t is not truth))
        siou.append(len(truth & union) / len((truth | union) - others))
    any_truth = set().union(*truths)
    return siou, [len(s & any_truth) / len(s) for s in segments]


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_against_sets_of_pixels(seed: int, min_segment: int, min_component: int) -> None:
    r = np.random.default_rng(seed)
    score = ndimage.gaussian_filter(r.random((14, 17)), 1) > r.uniform(0.4, 0.6)
    true = ndimage.gaussian_filter(r.random((14, 17)), 1) > r.uniform(0.45, 0.6)
    target = np.where(true, OOD, IN).astype(np.uint8)
    target[r.random(target.shape) < 0.08] = IGNORE
    found = of_mask(score & (target != IGNORE), target, min_segment, min_component)
    siou, ppv = slowly(score.astype(np.float32), target, min_segment, min_component)
    assert found.siou.tolist() == pytest.approx(siou)
    assert found.ppv.tolist() == pytest.approx(ppv)


def test_table_and_map_agree() -> None:
    r = np.random.default_rng(4)
    target = np.full((40, 50), IN, np.uint8)
    target[:4], target[10:22, 5:20], target[25:35, 30:33] = IGNORE, OOD, OOD
    soft = ndimage.gaussian_filter(r.random((40, 50)), 2)
    soft = 0.01 + 0.99 * (soft - soft.min()) / np.ptp(soft)
    p = np.stack([1 - soft / 2, soft / 2]).astype(np.float32)
    prediction = Prediction.from_softmax("a", p, target)
    entropy = -(p.astype(np.float64) * np.log(p)).sum(0) / np.log(2)
    table = measure_segments(prediction, threshold=0.7)
    a, b = of_table(table), of_mask((entropy > 0.7) & (target != IGNORE), target)
    assert a.siou.tolist() == pytest.approx(b.siou.tolist())
    assert a.ppv.tolist() == pytest.approx(b.ppv.tolist())
    kept = table.iou == 0
    part = of_table(table, kept)
    assert part.ppv.tolist() == [0] * kept.sum()
    assert part.siou.tolist() == [0, 0]


def test_f1_counts_over_the_set() -> None:
    m = component_metrics(Overlaps(np.array([0.3, 0.8, 0.0]), np.array([0.5, 1.0, 0.26, 0.1])))
    expected = []
    for tau in np.linspace(0.25, 0.75, 11):
        tp = sum(v >= tau for v in (0.3, 0.8, 0.0))
        fp = sum(v < tau for v in (0.5, 1.0, 0.26, 0.1))
        expected.append(2 * tp / (2 * tp + (3 - tp) + fp))
    assert m.f1_at == pytest.approx(expected)
    assert m.f1 == pytest.approx(np.mean(expected))
    assert (m.siou, m.ppv) == pytest.approx((1.1 / 3, 1.86 / 4))
    assert (m.components, m.segments) == (3, 4)


def test_empty_set_is_undefined() -> None:
    nothing = np.empty(0)
    m = component_metrics(Overlaps(nothing, nothing))
    assert np.isnan([m.siou, m.ppv, m.f1]).all()
    only_false = component_metrics(Overlaps(nothing, np.array([0.0])))
    assert np.isnan(only_false.siou)
    assert (only_false.ppv, only_false.f1) == (0, 0)
    assert component_metrics(Overlaps(np.array([0.0]), nothing)).f1 == 0


def test_overlaps_of_images_concatenate() -> None:
    parts = []
    for rows in (("##p##",), ("..oo....", "..##pp..")):
        score, target = draw(*rows)
        parts.append(of_mask(SMIYC.mask(score, target), target))
    both = Overlaps.concatenate(parts)
    assert both.siou.tolist() == [2 / 3, 2 / 3, 2 / 6]
    assert both.ppv.tolist() == [4 / 5, 2 / 4]
