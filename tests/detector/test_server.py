"""The served detector: the same answer as `detect`, clear errors, limits, no pickle on the way."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import importlib.metadata
import io
import json
import sys
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.version import Version
from PIL import Image, ImageFile

import meta_ood
from meta_ood.detector.server import Guard, Limits, RequestError, answer, answers, images_of


def text_of(picture: Image.Image | np.ndarray, form: str = "PNG", **options) -> str:
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, form, **options)
    return base64.b64encode(file.getvalue()).decode()


def array_of(text: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.array(image)


BLACK = np.zeros((64, 64, 3), np.uint8)


def test_an_answer_is_the_json_of_detect_with_pictures(parts, detector):
    found = detector(parts.frames[0].image)
    content = parts.frames[0].image.read_bytes()
    (served,) = answers(detector, {"image": base64.b64encode(content).decode()}, Limits())
    pictures = {"mask", "kept_mask", "score", "score_low", "score_high", "classes"}
    plain = {name: value for name, value in served.items() if name not in pictures}
    assert json.dumps(plain, indent=1) + "\n" == found.to_json()
    np.testing.assert_array_equal(array_of(served["mask"]) == 255, found.mask)
    np.testing.assert_array_equal(array_of(served["kept_mask"]) == 255, found.kept_mask)
    np.testing.assert_array_equal(array_of(served["classes"]), found.classes)
    score = array_of(served["score"]) / 255 * (served["score_high"] - served["score_low"])
    np.testing.assert_allclose(score + served["score_low"], found.score, atol=0.5 / 255 + 1e-6)
    assert not pictures & set(answer(found, maps=False))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("street.png", "image 1: .*base64"),
        (base64.b64encode(b"no image at all").decode(), "no PNG or JPEG file"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode(), "no PNG or JPEG file"),
        (text_of(BLACK, "BMP"), "expected a PNG or JPEG"),
        (base64.b64encode(b"\xff\xd8" + 2000 * b"\xff\xda").decode(), "more than 1000 scans"),
        (text_of(np.random.default_rng(0).integers(0, 256, BLACK.shape, np.uint8))[:4000], "PNG"),
        (text_of(np.zeros((64, 64), np.uint16)), "8 bits"),
        (np.zeros((64, 64), np.uint8), "expected a PNG"),
        (np.full((64, 64, 3), 0.5), "dtype float64"),
        (np.full((64, 64, 3), 256), "numbers from 256"),
        ([[1, 2], [3]], "expected a PNG"),
        (np.zeros((8, 64, 3), np.uint8), "8 x 64 pixels"),
        (3, "expected a PNG"),
    ],
)
def test_what_is_no_image_is_answered_with_what_is_expected(detector, given, message):
    with pytest.raises(RequestError, match=message):
        list(answers(detector, {"image": given}, Limits()))


def test_the_orientation_of_a_camera_is_applied(detector):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (served,) = answers(detector, {"image": text_of(picture, "JPEG", exif=exif)}, Limits())
    assert served["size"] == [96, 64]
    assert array_of(served["mask"]).shape == (96, 64)


def test_images_are_found_in_every_form_of_a_request():
    import pandas

    table = pandas.DataFrame({"image": ["a", ["b", "c"]]})
    for request, count in (
        ({"image": "a"}, 1),
        ({"image": ["a", "b"]}, 2),
        ({"image": BLACK}, 1),
        ({"image": BLACK.tolist()}, 1),
        ({"image": np.stack([BLACK, BLACK])}, 2),
        ({"image": [BLACK.tolist(), BLACK.tolist()]}, 2),
        (table, 3),
    ):
        assert len(images_of(request)) == count
    for wrong in ({"picture": "a"}, pandas.DataFrame({"picture": ["a"]})):
        with pytest.raises(RequestError, match="nothing under `image`"):
            images_of(wrong)


# --- limits ------------------------------------------------------------------------------------


def test_sizes_are_checked_before_anything_is_decoded(detector, monkeypatch):
    """A black PNG of 8192 x 8192 has 200 kB and would decode to 200 MB."""
    large = text_of(Image.new("1", (8192, 8192)))
    calls, decoded = [], []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size))

    def spy(image):
        calls.append(image.shape)
        return detector(image)

    tracemalloc.start()
    with pytest.raises(RequestError, match="image 2 has 8192 x 8192 pixels"):
        list(answers(spy, {"image": [text_of(BLACK), large]}, Limits()))
    with pytest.raises(RequestError, match="8192 pixels in one request: at most 5000"):
        list(answers(spy, {"image": [text_of(BLACK)] * 2}, Limits(pixels_in_sum=5000)))
    with pytest.raises(RequestError, match="3 images in one request: at most 2"):
        list(answers(spy, {"image": [text_of(BLACK)] * 3}, Limits(images=2)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert calls == decoded == []
    monkeypatch.undo()
    with pytest.raises(RequestError, match="image 1 was not begun within 0 s"):
        list(answers(spy, {"image": [text_of(BLACK)]}, Limits(answer_seconds=0)))
    # one image at a time is decoded: the first is answered before the second is looked into
    damaged = text_of(np.random.default_rng(0).integers(0, 256, BLACK.shape, np.uint8))[:4000]
    found = answers(spy, {"image": [text_of(BLACK), damaged]}, Limits())
    assert next(found)["size"] == [64, 64]
    with pytest.raises(RequestError, match="image 2"):
        next(found)


def test_limits_are_settable(monkeypatch):
    monkeypatch.setenv("META_OOD_MAX_PIXELS", "100")
    monkeypatch.setenv("META_OOD_MAX_BODY_SECONDS", "7")
    limits = Limits.from_environment()
    assert (limits.pixels, limits.body_seconds, limits.images) == (100, 7, Limits().images)
    monkeypatch.setenv("META_OOD_MAX_IMAGES", "many")
    with pytest.raises(ValueError, match="META_OOD_MAX_IMAGES=many: expected a whole number"):
        Limits.from_environment()


def ask(limits: Limits, parts: list[bytes], content_type: str = "application/json", delay=0.0):
    """Return what the application behind a guard was sent, and what the client got."""
    passed, sent = [], []

    async def application(scope, receive, send):
        message = await receive()
        passed.append((dict(scope["headers"]), message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    waiting = iter(parts)

    async def receive():
        await asyncio.sleep(delay)
        part = next(waiting)
        more = waiting.__length_hint__() > 0
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", content_type.encode()), (b"content-length", b"1")]
    scope = {"type": "http", "method": "POST", "headers": headers}
    asyncio.run(Guard(application, limits)(scope, receive, send))
    return passed, sent[0]["status"]


def test_a_body_that_is_too_large_or_too_slow_is_refused():
    limits = Limits(body_bytes=10)
    passed, status = ask(limits, [b"12345", b"67890"])
    assert (passed[0][1], status) == (b"1234567890", 200)
    assert ask(limits, [b"12345", b"678901", b""]) == ([], 413)
    assert ask(limits, [b"12345", b"678901"]) == ([], 413)
    begin = time.monotonic()
    assert ask(Limits(body_seconds=0.2), [b"1"] * 5, delay=0.1) == ([], 408)
    assert 0.2 <= time.monotonic() - begin < 1.5


def test_an_image_as_the_body_is_accepted():
    ((headers, body),), status = ask(Limits(), [b"\xff\xd8", b"rest"], "image/jpeg")
    assert status == 200
    assert json.loads(body) == {"inputs": {"image": ["/9hyZXN0"]}}
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body)


def test_what_is_no_image_and_no_table_is_refused():
    """A form, or an image that curl did not find: the scoring server's own answers do not say what to do."""
    for content_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert ask(Limits(), [b"1"], content_type) == ([], 415)
    assert ask(Limits(), [b""], "image/jpeg") == ([], 400)
    assert ask(Limits(), [b"{}"], "application/json; charset=utf-8")[1] == 200
    with pytest.raises(RequestError, match="image 2 is no PNG or JPEG file: expected a PNG or JPEG file as base64"):
        list(answers(None, {"image": [text_of(BLACK), "aGVsbG8="]}, Limits()))


# --- MLflow ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(parts, tmp_path_factory):
    from meta_ood.tracking import served

    folder = tmp_path_factory.mktemp("packed") / "model"
    served.pack(folder, parts.detector)
    return folder


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_the_packed_model_answers_and_nothing_is_unpickled(parts, detector, packed):
    import mlflow

    assert not [p for p in packed.rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    mlflow.pyfunc.load_model(str(packed))  # imports are done: now watch
    unpickled: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "pickle.find_class":
            unpickled.append(str(arguments))

    sys.addaudithook(watch)
    model = mlflow.pyfunc.load_model(str(packed))
    text = base64.b64encode(parts.frames[0].image.read_bytes()).decode()
    (served,) = model.predict({"image": [text]})
    watching = False
    assert unpickled == []
    assert served == answer(detector(parts.frames[0].image))
    with pytest.raises(mlflow.MlflowException, match="expected a PNG or JPEG") as error:
        model.predict({"image": ["hello"]})
    assert error.value.get_http_status_code() == 400


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_the_packed_model_has_its_code_and_exact_requirements(packed):
    import mlflow

    options, own, *others = (packed / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert options == "--find-links wheels"
    # 1. the wheel is the only distribution that fulfils the requirement, and holds the code that packed it
    (wheel,) = (packed / "wheels").iterdir()
    name, version = own.split("==")
    assert (name, version.partition("+")[0]) == ("meta-ood", meta_ood.__version__)
    assert wheel.name.startswith(f"meta_ood-{version}-cp3")
    source = Path(meta_ood.__file__).parent
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for path in (*source.rglob("*.py"), *source.rglob("*.so"), *source.rglob("*.safetensors")):
            assert archive.read(f"meta_ood/{path.relative_to(source).as_posix()}") == path.read_bytes()
        # 2. RECORD has every file with its hash, or installers refuse it
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert {row[0] for row in rows} == names
        for file, digits, size in rows:
            if file != record:
                content = archive.read(file)
                hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                assert (digits, size) == (f"sha256={hashed}", str(len(content)))
    # 3. exact versions of what it needs
    for requirement in filter(None, others):
        needed, exact = requirement.split("==")
        assert Version(exact) == Version(Version(importlib.metadata.version(needed)).public)
    assert {"torch", "numpy", "mlflow", "fastapi"} <= {requirement.split("==")[0] for requirement in others}
    # 4. any patch release of this Python will do
    python = yaml.safe_load((packed / "python_env.yaml").read_text(encoding="utf-8"))["python"]
    assert python == f"{sys.version_info.major}.{sys.version_info.minor}"
    # 5. the input example is a request
    model = mlflow.pyfunc.load_model(str(packed))
    (answered,) = model.predict(mlflow.models.Model.load(str(packed)).load_input_example(str(packed)))
    assert answered["size"] == [128, 256]


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_the_scoring_server_over_http(parts, detector):
    import uvicorn

    from meta_ood.tracking import served

    application = served.application(str(parts.detector))
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]

        def post(body: bytes, content_type: str = "application/json"):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": content_type}
            )
            try:
                with urllib.request.urlopen(request) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        content = parts.frames[0].image.read_bytes()
        text = base64.b64encode(content).decode()
        expected = (200, {"predictions": [answer(detector(parts.frames[0].image))]})
        assert post(content, "image/png") == expected
        assert post(json.dumps({"inputs": {"image": [text]}}).encode()) == expected
        table = {"columns": ["image"], "data": [[text]]}
        assert post(json.dumps({"dataframe_split": table}).encode()) == expected
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as response:
            assert response.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/version") as response:
            about = json.load(response)
        assert about["meta_ood"] == meta_ood.__version__
        assert about["detector"] == json.loads(json.dumps(detector.identity))
        status, message = post(b"[" * 100_000)
        assert (status, message["message"]) == (400, "the JSON is nested too deeply")
        for body in (b'{"a":' * 100_000, b"9" * 5000, b"{", b"", b"[]", b"\xff", b'{"inputs": {"image": 3}}'):
            assert post(body)[0] == 400, body[:10]
    finally:
        server.should_exit = True
        thread.join()
