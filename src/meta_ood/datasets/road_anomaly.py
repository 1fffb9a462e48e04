"""RoadAnomaly, and the two tracks of SegmentMeIfYouCan: RoadAnomaly21 and RoadObstacle21."""

from meta_ood.data.labels import BINARY, IGNORE, IN, OOD
from meta_ood.datasets.reader import Layout

_EACH_ITS_OWN = r"^(?P<scene>.+)$"


def road_anomaly() -> Layout:
    """Describe RoadAnomaly (2019) below ``RoadAnomaly_jpg``, jpg or webp; 2 is the anomaly."""
    return Layout(
        name="RoadAnomaly",
        images="frames/{id}.[jw]*",
        targets="frames/{id}.labels/labels_semantic.png",
        labels={0: IN, 1: IN, 2: OOD, 255: IGNORE},
        splits={"all": 60},
        lead="targets",
        scene=_EACH_ITS_OWN,
    )


def road_anomaly21() -> Layout:
    """Describe RoadAnomaly21 below ``dataset_AnomalyTrack``; test labels are not public."""
    return Layout(
        name="RoadAnomaly21",
        images="images/{id}.jpg",
        targets="labels_masks/{id}_labels_semantic.png",
        labels=BINARY,
        splits={"val": 10, "test": 100},
        only={"val": "validation", "test": "(?!validation)"},
        unlabelled=("test",),
        scene=_EACH_ITS_OWN,
    )


def road_obstacle21() -> Layout:
    """Describe RoadObstacle21 below ``dataset_ObstacleTrack``; night and snow are splits.

    ``val`` holds what the loader of the road-anomaly-benchmark keeps, ``valAll`` all validation frames of the archive.
    That loader expects 30 frames after it has left out ten; the archive of Zenodo has 30 before.
    """
    return Layout(
        name="RoadObstacle21",
        images="images/{id}.webp",
        targets="labels_masks/{id}_labels_semantic.png",
        labels=BINARY,
        splits={"val": 30, "valAll": 30, "test": 327, "night": 30, "snow": 55},
        folders={"valAll": "val"},
        only={
            **dict.fromkeys(("val", "valAll"), "validation"),
            "test": "(?!validation|driveway|snowstorm)",
            "night": "driveway",
            "snow": "snowstorm",
        },
        without={"val": ("validation_19", *(f"validation_2{digit}" for digit in range(1, 10)))},
        unlabelled=("test", "night", "snow"),
        scene=_EACH_ITS_OWN,
    )
