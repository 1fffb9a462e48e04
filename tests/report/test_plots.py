"""Plots as parsed XML and as images."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from meta_ood.report import plots

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def lines():
    x = np.linspace(0, 1, 11)
    return [
        plots.Line("before", x, np.sqrt(x), "#0072b2", "dashed", mark=(0.25, 0.5)),
        plots.Line("after", x, x**0.1, "#d55e00"),
        plots.Line("", x, x**2, "#cc79a7", "dotted"),
        plots.Line("runs", x, x / 2, "#56b4e9", "points", notes=["first"]),
    ]


def test_curves_as_svg(lines):
    axes = plots.Axis("false positive rate", (0, 1)), plots.Axis("true positive rate")
    first = plots.curves(lines, *axes, title="ROC", guides=[("y", 0.95)])
    root = ElementTree.fromstring(first)
    words = "|".join(text for node in root.iter(f"{SVG}text") for text in node.itertext())
    for word in (
        "ROC",
        "false positive rate",
        "true positive rate",
        "before",
        "after",
        "runs",
        "first",
    ):
        assert word in words
    assert "_unnamed" not in words
    for line in lines:
        assert line.colour in first.decode()
    assert "date" not in first.decode().lower()
    assert plots.curves(lines, *axes, title="ROC", guides=[("y", 0.95)]) == first


def test_curves_as_png(lines):
    axes = plots.Axis("x", (1e-3, 1), log=True), plots.Axis("y")
    first = plots.curves(lines[:2], *axes, form="png", size=(2, 1))
    with Image.open(io.BytesIO(first)) as image:
        assert image.size == (300, 150)
    assert plots.curves(lines[:2], *axes, form="png", size=(2, 1)) == first
