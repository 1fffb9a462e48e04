"""The page driven in headless Chromium, without a network: ``pytest -m browser``.

Needs playwright (``pip install playwright``; it downloads no browser of its own) and a chromium on the PATH. With
META_OOD_SHOTS=FOLDER it leaves screenshots there, wide and narrow, light and dark.
"""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from gallery_folder import DATASET, NETWORK, write_gallery
from meta_ood import config
from meta_ood.data.context import Machine, no_log
from meta_ood.metrics import segment
from meta_ood.pipeline import report
from meta_ood.report.frames import operating_points

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]  # a container has neither
SECONDS = 120_000  # [ms] for a crowded machine


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    tables = write_gallery(root, frames=60, size=(64, 128))
    params = config.load(Path(__file__).parents[2] / "params.yaml")
    params = params.model_copy(update={"networks": (NETWORK,), "evaluation_sets": (DATASET,)})
    paths = {name: root / name for name in ("evaluation", "prepared", "segments", "meta", "report")}
    report.run(params, **paths, summary=root / "summary.json", log=no_log, machine=Machine())
    return root / "report/index.html", tables


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


@pytest.fixture
def page(made, browser):
    yield from opened(browser, made[0])


def opened(browser, path, **options):
    """Yield the page, ready; it may neither complain nor ask for anything but itself."""
    context = browser.new_context(offline=True, reduced_motion="reduce", **options)
    page, said, asked = context.new_page(), [], []
    page.set_default_timeout(SECONDS)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), timeout=SECONDS)
    page.wait_for_selector("html[data-ready]", state="attached")
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    context.close()


def counts(page, variant, made):
    """Return FP, FN, true segments removed and frames with an alarm in the row of a variant."""
    place = list(made[1]).index(variant)
    return [int(text) for text in page.locator(f"#recount [data-cell='{place}'] [data-now]").all_inner_texts()]


def expected(table, removed):
    errors = segment.segment_errors(table, removed)
    alarms = int(segment.has_alarm(table, removed).sum())
    after = errors.false_positives_after_meta, errors.false_negatives_after_meta
    return [*after, errors.true_segments_removed, alarms]


def test_a_table_sorts_up_down_and_back(page):
    table = page.locator("#results ~ .wide table").first
    rows = table.locator("tbody tr:not(.group)")
    before = rows.all_inner_texts()
    head = table.locator("thead th").nth(2)  # FPR95, lower after OoD training
    assert head.inner_text().startswith("FPR95")

    def variants():
        return [re.search("baseline|ood_trained", text)[0] for text in rows.all_inner_texts()]

    assert variants() == ["baseline", "ood_trained"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert variants() == ["ood_trained", "baseline"]
    assert DATASET in rows.first.inner_text()  # it left its group
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert variants() == ["baseline", "ood_trained"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert rows.all_inner_texts() == before


def test_the_slider_counts_what_an_evaluation_at_its_point_counts(page, made):
    slider = page.locator("#point")
    last = len(operating_points([0.5])) - 1
    assert slider.get_attribute("max") == str(last)
    for variant, (table, probability) in made[1].items():
        assert counts(page, variant, made) == expected(table, probability > 0.5)  # as evaluated
    for position in (0, 40, 150, last // 2, 300, last):
        slider.fill(str(position))
        said = page.locator("#point-value").inner_text()
        point = operating_points([0.5])[position]
        for variant, (table, probability) in made[1].items():
            assert counts(page, variant, made) == expected(table, probability > point)
        assert ("nothing is kept" in said) == (position == 0)
    slider.press("ArrowLeft")
    table, probability = made[1]["baseline"]
    assert counts(page, "baseline", made) == expected(table, probability > operating_points([0.5])[-2])
    page.locator("#own").click()
    assert counts(page, "baseline", made) == expected(table, probability > 0.5)


def test_frames_are_filtered_by_error_and_object_size(page, made):
    choose = {name: page.locator(f"#filters [name={name}]") for name in ("variant", "kind", "size")}
    frames = page.locator("#frames-list li")
    for variant, (table, probability) in made[1].items():
        choose["variant"].select_option(variant)
        missed = segment.missed(table, probability <= 0.5)
        choose["kind"].select_option("all")
        assert frames.count() == 48
        choose["kind"].select_option("random")
        assert frames.count() == 12
        choose["kind"].select_option("missed")
        names = [text.split("\n")[0] for text in frames.all_inner_texts()]
        of_frame = {
            name: table.component_size[missed & (table.component_image == i)] for i, name in enumerate(table.image_ids)
        }
        assert names
        assert all(len(of_frame[name]) for name in names)
        largest = [max(of_frame[name]) for name in names]
        assert largest == sorted(largest, reverse=True)
        assert largest[0] == max(table.component_size[missed])
        choose["kind"].select_option("alarms")
        alarms = np.bincount(table.image[table.is_false & (probability <= 0.5)], minlength=len(table.image_ids))
        shown = [int(re.search(r"(\d+) false alarm", text)[1]) for text in frames.all_inner_texts()]
        assert shown == sorted(shown, reverse=True)
        assert shown[0] == alarms.max()
        choose["kind"].select_option("all")
        choose["size"].select_option("10000-1000000000.0")
        assert frames.count() == 0
        choose["size"].select_option("any")


def test_a_frame_opens_zooms_and_tells_why(page):
    page.locator("#filters [name=kind]").select_option("found")
    total = page.locator("#frames-list li").count()
    page.locator("#frames-list button").first.press("Enter")
    title = page.locator("#viewer-title")
    first = title.inner_text()
    # 1. by keyboard through the frames, round and round
    page.keyboard.press("ArrowRight")
    assert title.inner_text() != first
    for _ in range(total - 1):
        page.keyboard.press("ArrowRight")
    assert title.inner_text() == first
    # 2. zoom by key, wheel and button
    zoom = page.locator("#zoom")
    page.keyboard.press("+")
    assert zoom.inner_text() == "150 %"
    page.locator(".stage").hover()
    page.mouse.wheel(0, -100)
    page.wait_for_function("document.querySelector('#zoom').textContent === '188 %'")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("0")
    assert zoom.inner_text() == "100 %"
    # 3. a segment by key, with three reasons and more
    page.keyboard.press("n")
    told = page.locator("#segment")
    assert re.match(r"(Kept|Removed), (rightly|wrongly): .*P\(false\) ", told.inner_text())
    assert told.locator(".reason").count() == 3
    assert told.locator("tbody tr").count() == 6
    by_key = told.inner_text()
    # 4. the same by a click on its pixels, which are white now
    place = page.evaluate(
        """() => {
            const canvas = document.querySelector(".stage canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            for (let i = 0; i < data.length; i += 4) {
                if (data[i] + data[i + 1] + data[i + 2] === 765 && data[i + 3] === 200) {
                    const box = canvas.getBoundingClientRect();
                    const [x, y] = [(i / 4) % canvas.width + 0.5, Math.floor(i / 4 / canvas.width) + 0.5];
                    return [box.x + x / canvas.width * box.width, box.y + y / canvas.height * box.height];
                }
            }
        }"""
    )
    page.keyboard.press("n")
    assert told.inner_text() != by_key
    page.mouse.click(*place)
    assert told.inner_text() == by_key
    # 5. the other variant of the same frame, segments off and on, and back
    page.keyboard.press("v")
    assert title.inner_text() == first
    assert "baseline" in page.locator("#viewer-about").inner_text()
    page.keyboard.press("o")
    assert page.locator(".stage canvas").is_hidden()
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()


def test_a_curve_tells_its_values_and_its_legend_switches(page):
    figure = page.locator("#curves ~ .charts figure").first
    chart = figure.locator("svg")
    chart.scroll_into_view_if_needed()
    chart.hover()
    told = figure.locator(".told")
    assert re.search(r"baseline false positive rate [\d.]+, true positive rate [\d.]+", told.inner_text())
    assert "ood_trained" in told.inner_text()
    lines = chart.locator("g[id$='-line']:visible")
    before = lines.count()
    entry = figure.get_by_role("button", name="baseline")
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    assert lines.count() < before
    chart.hover()
    assert "baseline" not in told.inner_text()
    entry.click()
    assert lines.count() == before
    chart.press("ArrowRight")
    assert "baseline" in told.inner_text()


def test_the_page_is_readable_without_its_script(made, browser):
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(made[0].as_uri(), timeout=SECONDS)
    assert page.locator("#results ~ .wide table").first.is_visible()
    assert page.locator("#recount").is_visible()
    assert page.locator("svg.chart").first.is_visible()
    assert page.locator("noscript .missing").is_visible()
    assert page.locator("#filters").is_hidden()
    assert page.locator("#point").is_hidden()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_wider_than_the_window(made, browser, width, scheme):
    for page in opened(browser, made[0], viewport={"width": width, "height": 900}, color_scheme=scheme):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("#frames-list button").first.click()
        page.keyboard.press("n")
        assert page.locator("#viewer").bounding_box()["width"] <= width
        if folder := os.environ.get("META_OOD_SHOTS"):
            page.screenshot(path=Path(folder) / f"frame-{width}-{scheme}.png")
            page.keyboard.press("Escape")
            for anchor in ("results", "operating-point", "frames", "curves"):
                page.evaluate(f"document.getElementById('{anchor}').scrollIntoView()")
                page.screenshot(path=Path(folder) / f"{anchor}-{width}-{scheme}.png")
