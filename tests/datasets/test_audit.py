import json

import numpy as np
import pytest
from PIL import Image

from meta_ood.datasets import audit


@pytest.fixture
def root(tmp_path):
    """Four images of 10 x 10: two proxies, one with a person, one too small."""
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations").mkdir()
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 10, "width": 10 if k < 4 else 5} for k in range(1, 5)]
    for image in images:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / "train2017" / image["file_name"])

    def annotation(number, image, category, columns):
        counts = [0, 10 * columns, 100 - 10 * columns] if image < 4 else [0, 10 * columns, 40]
        return {
            "id": number,
            "image_id": image,
            "category_id": category,
            "iscrowd": 1,
            "area": 10.0 * columns,
            "segmentation": {"counts": counts, "size": [10, 10 if image < 4 else 5]},
        }

    instances = {
        "images": images,
        "annotations": [
            annotation(1, 1, 18, 4),
            annotation(2, 1, 18, 2),
            annotation(3, 1, 62, 1),
            annotation(4, 3, 18, 3),
            annotation(5, 3, 1, 2),
            annotation(6, 4, 62, 1),
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 62, "name": "chair"}],
    }
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(instances))
    return tmp_path


def test_audit_counts_by_hand(root):
    found = audit.audit(root, "train2017", {"min_side": 8})
    assert (found.images, found.kept, found.empty, found.measured) == (4, 2, 1, 2)
    assert found.unannotated == pytest.approx(1 - 40 / 200)
    dog, chair, person = found.categories
    assert dog == audit.Category("dog", 1, 1, 2, 1, pytest.approx(0.6), pytest.approx(0.3), dog.evaluation)
    assert (chair.images_kept, chair.images_dropped) == (1, 1)
    assert chair.area_dropped == pytest.approx(0.2)
    assert (person.annotations_kept, person.annotations_dropped) == (0, 1)
    assert [c.name for c in found.leaks] == ["dog"]
    assert found.numbers()["audit/leaking_categories"] == 1


def test_excluding_a_category_ends_its_leak(root):
    options = {"min_side": 8, "exclude": ["person", "dog"]}
    found = audit.audit(root, "train2017", options)
    assert found.leaks == ()
    assert found.kept == 1


def test_audit_is_written_as_table_and_figure(root, tmp_path):
    found = audit.audit(root, "train2017", {"min_side": 8}, sample=1)
    audit.write(found, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["kept"] == 2
    lines = (tmp_path / "out" / "categories.csv").read_text().splitlines()
    assert lines[0].startswith("category,images,dropped")
    assert lines[1].startswith("dog,1,1,2,60.0%")
    picture = np.asarray(Image.open(tmp_path / "out" / "categories.png"))
    assert (picture[..., :3] == (0, 114, 178)).all(axis=2).any()
