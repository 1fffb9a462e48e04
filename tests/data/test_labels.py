import numpy as np
import pytest

from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, NEUTRAL, OOD
from meta_ood.data.registry import lookup


def test_cityscapes_has_the_published_train_ids() -> None:
    published = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10}
    published |= {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    ids = np.arange(-1, 34)
    encoded = CITYSCAPES.encode(ids[None])[0]
    for label_id, train_id in zip(ids, encoded, strict=True):
        assert train_id == published.get(int(label_id), IGNORE)
    assert len(CITYSCAPES.names) == len(CITYSCAPES.palette) == 19


def test_special_values_are_no_train_ids() -> None:
    assert len({NEUTRAL, IN, OOD, IGNORE}) == 4
    assert min(NEUTRAL, IN, OOD, IGNORE) >= 200


def test_unknown_label_ids_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[77, 200\] are not in the table"):
        CITYSCAPES.encode(np.array([[7, 77], [200, 7]], np.uint8))


def test_lookup_lists_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'c'; known: a, b"):
        lookup("loss", {"b": 1, "a": 2}, "c")
