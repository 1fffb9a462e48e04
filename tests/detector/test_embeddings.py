"""What alarms are compared by: features of the network, or of the segments."""

import numpy as np
import pytest
import torch

from meta_ood import Detector
from meta_ood.data.images import read_image
from meta_ood.detector import demo
from meta_ood.segments import segment_means

PHOTO = read_image(sorted(demo.PHOTOS.iterdir())[0])


def slow_means(labels, values):
    """Mean over the pixels, one by one, of the cell under each."""
    (height, width), (_, h, w) = labels.shape, values.shape
    rows = []
    for k in range(labels.max()):
        pixels = [(y, x) for y in range(height) for x in range(width) if labels[y, x] == k + 1]
        rows.append(np.mean([values[:, int(y * h / height), int(x * w / width)] for y, x in pixels], axis=0))
    return np.array(rows)


def test_means_over_segments_are_those_of_their_pixels():
    rng = np.random.default_rng(0)
    labels = np.zeros((11, 17), np.int32)
    labels[0, 0], labels[2:9, 3:12], labels[10, 14:] = 1, 2, 3
    labels[4:6, 5:8] = 0
    values = rng.random((5, 3, 4), np.float32)
    np.testing.assert_allclose(segment_means(labels, values), slow_means(labels, values), rtol=1e-6)
    assert segment_means(np.zeros_like(labels), values).shape == (0, 5)


def features_of_a_pass(detector, photo):
    """What goes into the last layer of the demo's network."""
    caught = []
    last = detector.network.head.bottleneck[3]
    with last.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0][0].numpy())):
        detector.network(torch.from_numpy(photo.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    return caught[0]


def test_an_embedding_is_the_mean_of_the_last_features():
    detector, plain = Detector.load(demo.DETECTOR, "cpu", embed=True), Detector.load(demo.DETECTOR, "cpu")
    found, same = detector(PHOTO), plain(PHOTO)
    assert same.embeddings is None
    np.testing.assert_array_equal(found.score, same.score)
    with torch.inference_mode():
        values = features_of_a_pass(plain, PHOTO)
    np.testing.assert_allclose(found.embeddings, slow_means(found.labels, values), rtol=1e-4, atol=1e-5)


def with_infer(**changes):
    loaded = Detector.load(demo.DETECTOR, "cpu")
    settings = loaded.settings.model_copy(update={"infer": loaded.settings.infer.model_copy(update=changes)})
    return Detector(loaded.network, settings, loaded.classifier, "cpu", embed=True)


def test_with_flips_they_are_those_of_the_same_place():
    """The last pass is that of the mirror image: its features are turned back."""
    detector = with_infer(flip=True)
    with torch.inference_mode():
        mirrored = features_of_a_pass(detector, PHOTO[:, ::-1])
    found = detector(PHOTO)
    np.testing.assert_allclose(found.embeddings, slow_means(found.labels, mirrored[:, :, ::-1]), rtol=1e-4, atol=1e-5)


def test_without_a_map_of_features_they_are_the_scaled_features_of_the_segments():
    detector = with_infer(tile=128)
    found = detector(PHOTO)
    scaling = detector.classifier.scaling
    expected = (found.table.features - scaling.mean) / np.where(scaling.scale > 0, scaling.scale, np.inf)
    np.testing.assert_allclose(found.embeddings, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no embeddings"):
        Detector(detector.network, detector.settings, None, "cpu", embed=True)
