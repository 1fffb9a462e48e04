import numpy as np
import pytest

from meta_ood.data.predictions import Prediction

TARGET = np.zeros((4, 6), np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros((2, 3), np.float32)}, r"logits must be \(C, h, w\)"),
        ({"target": np.zeros((4, 6), np.int64)}, "target must be uint8, got int64"),
        ({"size": (4, 5)}, r"target has shape \(4, 6\), expected \(4, 5\)"),
        ({"is_softmax": True}, "a given softmax must have the full size"),
    ],
)
def test_wrong_shapes_name_the_image(changes: dict, message: str) -> None:
    good = {
        "image_id": "frame 7",
        "logits": np.zeros((3, 2, 3), np.float32),
        "size": (4, 6),
        "align_corners": True,
        "target": TARGET,
    }
    Prediction(**good)
    with pytest.raises(ValueError, match=f"frame 7: {message}"):
        Prediction(**(good | changes))


def test_a_given_softmax_is_kept_as_it_is() -> None:
    softmax = np.full((2, 4, 6), 0.4)
    prediction = Prediction.from_softmax("a", softmax, TARGET, scene="s")
    assert prediction.is_softmax
    assert prediction.size == (4, 6)
    np.testing.assert_array_equal(prediction.logits, np.float32(0.4))
