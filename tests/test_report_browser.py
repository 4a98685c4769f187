"""The report in a real browser: its script runs, nothing is loaded, and it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chromium_page import Page, find_chromium, open_chromium, read_png
from doubtful_run import make_doubtful_run

from curate.reports import write_report

pytestmark = pytest.mark.browser

# A row that would run a script, load an image and end the script element, were it not escaped.
EVIL = "<img src=x onerror='window.owned=1'></script><script>window.owned=1</script>"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_doubtful_run(tmp_path_factory.mktemp("browser") / "run")
    for name in ("examples", "labeled", "curated", "predictions"):
        path = run / f"{name}.parquet"
        text = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit(EVIL)).otherwise(pl.lit(""))
        pl.read_parquet(path).with_columns(input=pl.col("input") + text).write_parquet(path)
    return write_report(run)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here: install Debian's `chromium`, or set CHROMIUM to its path")
    with open_chromium(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, report: Path) -> Page:
    browser.size(1366, 900)
    browser.prefer("light")
    browser.open(report)
    browser.ask("document.documentElement.style.scrollBehavior = 'auto'")
    return browser


def middle_of(page: Page, selector: str, number: int = 0) -> tuple[float, float]:
    """Scroll to an element and return the place of its middle in the window."""
    x, y = page.ask(
        f"""(() => {{
          const found = document.querySelectorAll({selector!r})[{number}];
          found.scrollIntoView({{block: "center"}});
          const box = found.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
    )
    return x, y


def point_shown(page: Page) -> list[Any]:
    """The entry in the map's data of the row that the card shows."""
    found: list[Any] = page.ask(
        """JSON.parse(document.getElementById("map-data").textContent).points.find(
          (point) => point[2] === document.getElementById("map").dataset.shown)"""
    )
    return found


def test_the_page_runs_quietly_and_loads_nothing(page: Page, report: Path) -> None:
    assert page.ask("document.documentElement.dataset.ready") == "yes"
    assert page.ask("document.documentElement.dataset.scriptError ?? ''") == ""
    assert page.complaints() == []
    assert page.requests() == [report.resolve().as_uri()]
    assert page.ask("document.getElementById('map').dataset.points") == "320"


def test_text_of_the_data_does_nothing(page: Page) -> None:
    assert EVIL in page.ask("document.getElementById('disagreements').textContent")
    assert page.ask("typeof window.owned") == "undefined"
    assert page.ask("document.images.length") == 0
    assert page.ask("document.scripts.length") == 2


def test_pointing_at_a_mark_shows_its_row(page: Page) -> None:
    page.point(*middle_of(page, "circle.p", 40))
    text, label = point_shown(page)[3:5]
    labels = page.ask("JSON.parse(document.getElementById('map-data').textContent).labels")
    card = page.ask("document.getElementById('tip').innerText")
    assert page.ask("document.getElementById('tip').hidden") is False
    assert text.strip() in card
    assert labels[label] in card
    assert "confidence" in card
    assert "kept" in card
    box = page.ask("document.getElementById('tip').getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= 1366
    page.point(5, 5)
    assert page.ask("document.getElementById('tip').hidden") is True


def test_a_dropped_row_names_its_filter_and_can_be_hidden(page: Page) -> None:
    page.point(*middle_of(page, "path.drop", 3))
    reasons = page.ask("JSON.parse(document.getElementById('map-data').textContent).reasons")
    shown = point_shown(page)
    assert f"dropped: {reasons[shown[6]]}" in page.ask("document.getElementById('tip').innerText")
    hidden = "getComputedStyle(document.querySelector('path.drop')).display === 'none'"
    assert page.ask(hidden) is False
    page.ask("document.getElementById('map-dropped').click()")
    assert page.ask(hidden) is True
    page.point(*middle_of(page, "circle.p", 40))
    assert point_shown(page)[6] == -1


def test_the_keyboard_reaches_the_map_and_the_clusters(page: Page) -> None:
    page.ask("document.getElementById('map').focus()")
    page.press("ArrowRight")
    first = point_shown(page)
    page.press("ArrowRight")
    second = point_shown(page)
    assert second[0] > first[0]
    assert second[3].strip() in page.ask("document.getElementById('tip').innerText")
    page.press("Escape")
    assert page.ask("document.getElementById('tip').hidden") is True
    page.ask("document.querySelector('button[data-cluster=\"2\"]').click()")
    assert page.ask("document.querySelectorAll('#map .p:not(.dim)').length") == page.ask(
        """JSON.parse(document.getElementById("map-data").textContent).points.filter(
          (point) => point[7] === 2).length"""
    )
    pressed = "document.querySelector('button[data-cluster=\"2\"]').getAttribute('aria-pressed')"
    assert page.ask(pressed) == "true"


def test_colours_of_the_map_follow_the_choice(page: Page) -> None:
    def colours() -> int:
        found: int = page.ask(
            "new Set([...document.querySelectorAll('circle.p')].map("
            "(mark) => getComputedStyle(mark).fill)).size"
        )
        return found

    def choose(name: str) -> None:
        page.ask(
            f"""(() => {{
              const choice = document.getElementById("map-colour");
              choice.value = {name!r};
              choice.dispatchEvent(new Event("change"));
            }})()"""
        )

    assert colours() == 2
    choose("cluster")
    assert colours() == 6
    choose("reason")
    assert colours() == 1
    crosses = (
        "new Set([...document.querySelectorAll('path.drop')].map("
        "(mark) => getComputedStyle(mark).stroke)).size"
    )
    assert page.ask(crosses) == 7
    assert page.ask("document.querySelector('[data-colours=\"reason\"]').checkVisibility()") is True
    choose("kept")
    assert colours() == 1
    assert page.ask("document.querySelector('[data-colours=\"kept\"]').hidden") is False
    assert page.ask("document.querySelector('[data-colours=\"label\"]').hidden") is True


def test_the_maps_before_and_after_stand_side_by_side(page: Page) -> None:
    boxes = (
        "[...document.querySelectorAll('svg.small-map')].map("
        "(map) => map.getBoundingClientRect().toJSON())"
    )
    before, after = page.ask(boxes)
    assert before["y"] == after["y"]
    assert before["right"] < after["left"]
    assert before["width"] == after["width"] > 300
    page.size(400, 900)
    before, after = page.ask(boxes)
    assert before["bottom"] < after["top"]


@pytest.mark.parametrize("width", [1440, 1280, 1024, 700, 400])
def test_nothing_sticks_out_sideways(page: Page, width: int) -> None:
    page.size(width, 900)
    assert page.ask("document.documentElement.scrollWidth") == width
    smallest = page.ask(
        """Math.min(...[...document.querySelectorAll("main p, main td, main th, main li")]
          .filter((part) => part.textContent.trim() && part.getClientRects().length)
          .map((part) => parseFloat(getComputedStyle(part).fontSize)))"""
    )
    assert smallest >= 12


def test_light_and_dark_pictures(page: Page) -> None:
    page.size(640, 420)
    light, dark = (picture(page, scheme) for scheme in ("light", "dark"))
    assert brightness(light) > 0.85
    assert brightness(dark) < 0.25
    page.prefer("light")
    middle_of(page, "#map")
    content = page.screenshot()
    width, height, colours = read_png(content)
    assert (width, height) == (640, 420)
    assert len(content) > 20_000
    assert len(colours) > 200


def picture(page: Page, scheme: str) -> str:
    page.prefer(scheme)
    found: str = page.ask("getComputedStyle(document.body).backgroundColor")
    return found


def brightness(colour: str) -> float:
    """Mean channel, 0 to 1, of a computed ``rgb(r, g, b)``."""
    channels = colour.removeprefix("rgb(").removesuffix(")").split(",")
    return sum(map(int, channels)) / (3 * 255)


def test_paper_shows_what_the_screen_folds(page: Page) -> None:
    shown = "document.querySelector('details .pair').checkVisibility()"
    assert page.ask(shown) is False
    page.do("Emulation.setEmulatedMedia", media="print", features=[])
    try:
        assert page.ask(shown) is True
        assert page.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        page.do("Emulation.setEmulatedMedia", media="", features=[])
    paper = page.print_pdf()
    assert paper.startswith(b"%PDF")
    assert len(paper) > 50_000
    assert page.ask("document.querySelectorAll('details[open]').length") == 0
