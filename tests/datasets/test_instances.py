"""COCO's json read element by element, against json.loads of the whole file."""

import json
import tracemalloc

import pytest

from meta_ood.datasets import instances

CONTENT = {
    "info": {"description": 'Straße, "日本" \\ }]', "version": 1.25e3, "list": [1, [2, {"a": []}]]},
    "images": [
        {"id": 7, "file_name": "é.jpg", "height": 4, "width": 6, "url": "x"},
        {"id": 3, "file_name": "b.jpg", "height": 5, "width": 5},
    ],
    "licenses": [],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 2, "segmentation": [[0, 0, 1.5, 0, 1, 1]]},
        {"id": 2, "image_id": 7, "category_id": 9, "segmentation": [[0, 0, 2, 0, 1, 1]], "n": "ü"},
        {"id": 3, "image_id": 3, "category_id": 9, "segmentation": {"counts": "22"}},
    ],
    "categories": [{"id": 2, "name": "dog"}, {"id": 9, "name": "Löwe"}],
    "version": 12,
}  # fmt: skip
TEXTS = {
    "ascii": json.dumps(CONTENT),
    "utf-8": json.dumps(CONTENT, ensure_ascii=False),
    "spaced": json.dumps(CONTENT, ensure_ascii=False, indent=3).replace("\n", "\r\n"),
}


@pytest.fixture(params=[1, 7, 1 << 20])
def chunk(request, monkeypatch):
    monkeypatch.setattr(instances, "CHUNK", request.param)


def write(folder, text):
    path = folder / "instances.json"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_elements_are_those_of_the_whole_file(tmp_path, text, chunk):
    found = instances.read_instances(write(tmp_path, text))
    assert [image._asdict() for image in found.images] == [
        {key: image[key] for key in ("id", "file_name", "height", "width")} for image in CONTENT["images"]
    ]
    assert found.categories == {2: "dog", 9: "Löwe"}
    assert list(found.read_annotations()) == CONTENT["annotations"]
    assert found.annotations[:, 0].tolist() == [3, 7, 3]
    spans = found.spans([9])
    assert {image: list(instances.read_spans(found.path, of)) for image, of in spans.items()} == {
        7: [CONTENT["annotations"][1]],
        3: [CONTENT["annotations"][2]],
    }


def test_every_cut_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(instances, "CHUNK", 64)
    whole = TEXTS["utf-8"].encode()
    path = tmp_path / "instances.json"
    for end in range(0, len(whole), 3):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"instances\.json: not a complete json file"):
            instances.read_instances(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected an object with lists under images"),
        ('{"images": [], "annotations": []}', "expected a list under 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "expected a list under 'images'"),
        ('{"categories": [{"id": 1, "name": "a"},], "images": []}', "not a complete json file"),
        ('{"images": [] "annotations": []}', 'expected , or } at byte 14, got "'),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "'images'.*KeyError"),
        ('{"images": ' + "[" * 100_000, "not a complete json file"),
        ('{"images": [{"id": 1, "file_name": "a", "height": 100000, "width": 1000000000}]', "px"),
        ('{"images": [{"id": 1, "file_name": "a", "height": 0, "width": 5}]', "0 x 5 px"),
        ('{"images": [{"id": 1, "file_name": "a", "height": "9", "width": 5}]', "whole number"),
        ('{"images": [{"id": "1", "file_name": "a", "height": 9, "width": 5}]', "whole number"),
        ('{"annotations": [{"image_id": "5", "category_id": 1}]', "image_id: expected a whole"),
        ('{"annotations": [{"image_id": 5, "category_id": 1.0}]', "category_id: expected a whole"),
        ('{"annotations": [{"image_id": 10000000000000000000, "category_id": 1}]', "Overflow"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "id 1 occurs twice"),
        ('{"images": [], "annotations": [5], "categories": []}', "'annotations'.*byte 31"),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        instances.read_instances(write(tmp_path, text))


def test_a_file_that_changes_is_noticed(tmp_path):
    path = write(tmp_path, TEXTS["ascii"])
    found = instances.read_instances(path)
    spans = found.spans([2, 9])[3]
    path.write_text(json.dumps({"new": 1, **CONTENT}))
    with pytest.raises(ValueError, match=r"instances\.json: was changed"):
        list(instances.read_spans(path, spans))


def test_memory_does_not_grow_with_the_annotations(tmp_path, monkeypatch):
    monkeypatch.setattr(instances, "CHUNK", 1 << 16)
    outline = [[float(number) for number in range(2000)]]
    content = {**CONTENT, "annotations": [{**CONTENT["annotations"][0], "segmentation": outline}]}
    peaks = []
    for count in (60, 240):  # both of several chunks
        many = {**content, "annotations": content["annotations"] * count}
        path = write(tmp_path, json.dumps(many))
        tracemalloc.start()
        found = instances.read_instances(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found.annotations) == count
    size = path.stat().st_size
    assert peaks[1] - peaks[0] < size / 50
    assert peaks[1] < size / 2
