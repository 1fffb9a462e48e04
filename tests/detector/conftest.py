import pytest

from detector_parts import Parts, blobs
from meta_ood import Detector, MetaClassifier, SegmentTable, fit, measure_segments


@pytest.fixture(scope="session")
def blob_classifier() -> MetaClassifier:
    return fit(SegmentTable.concatenate([measure_segments(blobs(seed)) for seed in range(8)]))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def detector(parts: Parts) -> Detector:
    return Detector.load(parts.detector, "cpu")
