"""Pictures of a frame: also where nothing of it is evaluated."""

from pathlib import Path

import numpy as np
import pytest

from meta_ood.config import SegmentsParams
from meta_ood.data import overlays
from meta_ood.data.images import read_image
from meta_ood.data.labels import IGNORE
from meta_ood.data.predictions import Prediction
from meta_ood.evaluation.pictures import write_pictures
from meta_ood.scores import SCORES


@pytest.mark.parametrize("score", ["entropy", "energy"])  # a score with a known range, and one without
@pytest.mark.parametrize("spread", [3.0, 0.0])  # 0: every pixel has the same score
def test_a_frame_that_is_all_void(tmp_path: Path, score: str, spread: float) -> None:
    logits = np.random.default_rng(0).normal(0, spread, (4, 10, 16)).astype(np.float32)
    void = Prediction("f", logits, (40, 64), True, np.full((40, 64), IGNORE, np.uint8))
    write_pictures(tmp_path, void, tmp_path / "none.jpg", np.zeros(0, bool), SegmentsParams(score=score, threshold=0.5))
    found = {path.name.removeprefix("f_"): read_image(path) for path in tmp_path.iterdir()}
    assert sorted(found) == ["classes.png", "score.png", "segments.png", "target.png"]
    assert (found["target.png"] == overlays.SPECIAL_COLOURS[IGNORE]).all()
    # the score has the range of all pixels, as none is evaluated
    values = SCORES[score](void)
    low, high = (0, 1) if score == "entropy" else (values.min(), max(values.max(), values.min() + (spread == 0)))
    np.testing.assert_array_equal(found["score.png"], overlays.score_map(values, low, high))
