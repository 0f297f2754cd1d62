"""The page of the server, in a browser: digits drawn on it are read, by pointer and by keyboard."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from inference.exported import ONNX
from tests import digit_model
from tests.helpers import ADMITTED, ROOT, encoded, headless_browser, set_screen
from tests.serving import Server, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromium-driver here"),
]

NOTHING = "\N{EN DASH}"  # where no class is read

Strokes = list[list[list[float]]]
# Several ways to write each digit: the points that a pen passes, from 0 to 1, stroke by stroke.
DIGITS: dict[str, list[Strokes]] = json.loads((ROOT / "tests/digits.json").read_text())
AT_THE_EDGE = (-0.22, 0.0)  # moved by so much of the width and height of the sheet


class Page:
    """The page in a browser.

    Parameters
    ----------
    browser : webdriver.Chrome
        The browser.
    """

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def open(self, server: Server, path: str = "/", width: int = 1280) -> None:
        """Load a page on a screen of a width in pixels."""
        set_screen(self.browser, width)
        self.browser.get(server.address + path)

    def element(self, identifier: str) -> webdriver.remote.webelement.WebElement:
        """Return an element by its id."""
        return self.browser.find_element(By.ID, identifier)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        WebDriverWait(self.browser, 60, 0.02).until(lambda _: condition())

    def text(self, identifier: str) -> str:
        """Return what stands in an element."""
        return self.element(identifier).text

    def script(self, code: str) -> Any:
        """Run JavaScript and return what it returns."""
        return self.browser.execute_script(code)

    def draw(self, strokes: Strokes, move: tuple[float, float] = (0, 0)) -> None:
        """Draw with the mouse, each stroke moved."""
        self.wait(lambda: self.element("canvas").is_displayed())
        box = self.element("canvas").rect
        for stroke in strokes:
            points = [
                (box["x"] + box["width"] * (x + move[0]), box["y"] + box["width"] * (y + move[1]))
                for x, y in stroke
            ]
            self.mouse("mousePressed", *points[0])
            for point in points[1:]:
                self.mouse("mouseMoved", *point)
            self.mouse("mouseReleased", *points[-1])

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Do something with the mouse."""
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        self.browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)

    def answered(self) -> str:
        """Return the class that is read, once the page has the answer to all that was drawn."""
        self.wait(lambda: self.element("canvas").get_attribute("aria-busy") == "false")
        return self.text("class")

    def clear(self) -> None:
        """Clear the sheet."""
        self.element("clear").click()
        assert self.answered() == NOTHING


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Start a browser."""
    with headless_browser() as browser:
        yield Page(browser)
        errors = [entry["message"] for entry in browser.get_log("browser")]
        assert [message for message in errors if not re.search("status of 4(13|22)", message)] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a model that was learnt from scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("page")
    digit_model.write_digit_model(folder / ONNX)
    with serving(folder) as server:
        yield server


def read_right(page: Page, way: int, move: tuple[float, float] = (0, 0)) -> int:
    """Draw the ten digits, each in one of its ways; return how many are read right."""
    right = 0
    for digit, ways in DIGITS.items():
        page.draw(ways[way], move)
        right += page.answered() == digit
        page.clear()
    return right


def test_drawn_digits_are_read(page: Page, server: Server) -> None:
    page.open(server)
    # At the edge, where fitting and centring decide.
    assert read_right(page, 1, AT_THE_EDGE) >= 9
    page.element("prepare").click()
    assert read_right(page, 1, AT_THE_EDGE) <= 5


@pytest.mark.skipif(not (ROOT / ONNX).exists(), reason="no model is trained and exported here")
def test_drawn_digits_are_read_by_the_default_model(page: Page, tmp_path: Path) -> None:
    (tmp_path / ONNX).parent.mkdir()
    shutil.copy(ROOT / ONNX, tmp_path / ONNX)
    with serving(tmp_path) as server:
        page.open(server)
        for way in range(3):
            assert read_right(page, way) >= 9


def test_bars_and_the_image_follow_the_strokes(page: Page, server: Server) -> None:
    page.open(server)
    page.draw(DIGITS["7"][1][:1])
    assert page.answered() == "7"
    first = page.element("seen").get_attribute("src")
    shown = (
        "return [...document.querySelectorAll('#bars .bar')].map(e => parseFloat(e.style.width))"
    )
    assert int(max(range(10), key=page.script(shown).__getitem__)) == 7
    page.draw(DIGITS["7"][1][1:])
    page.answered()
    assert page.element("seen").get_attribute("src") != first
    page.element("undo").click()
    page.answered()
    assert page.element("seen").get_attribute("src") == first
    page.element("undo").click()
    assert page.answered() == NOTHING
    assert not page.element("undo").is_enabled()
    assert max(page.script(shown)) == 0


def test_a_digit_is_drawn_by_keyboard(page: Page, server: Server) -> None:
    page.open(server)
    page.wait(lambda: page.element("canvas").is_displayed())
    canvas = page.element("canvas")
    canvas.send_keys(Keys.SPACE, *[Keys.ARROW_DOWN] * 9, Keys.SPACE)
    assert page.answered() == "1"
    canvas.send_keys(Keys.CONTROL, "z")
    assert page.answered() == NOTHING
    canvas.send_keys(Keys.SPACE, Keys.ARROW_DOWN, Keys.DELETE)
    assert page.answered() == NOTHING


def test_files_are_read_and_bad_ones_named(page: Page, server: Server, tmp_path: Path) -> None:
    page.open(server)
    (tmp_path / "good.jpg").write_bytes(ADMITTED["grey JPEG"])
    (tmp_path / "bad.jpg").write_text("no image")
    (tmp_path / "long.jpg").write_bytes(bytes(40 * 10**6))
    (tmp_path / "vast.png").write_bytes(encoded(Image.new("1", (6000, 6000))))
    page.wait(lambda: page.text("about").startswith("A network"))
    names = ("good.jpg", "bad.jpg", "long.jpg", "vast.png")
    paths = [str(tmp_path / name) for name in names]
    page.element("choose").send_keys("\n".join(paths))
    page.wait(lambda: page.text("counted") == "1 of 4 images read, 3 could not be read")
    good, *bad = (
        card.text.splitlines() for card in page.browser.find_elements(By.CLASS_NAME, "card")
    )
    answer = server.predict(("good.jpg", ADMITTED["grey JPEG"])).body["predictions"][0]
    assert f"{answer['class']}, {answer['confidence']:.1%}" in good
    assert bad == [
        ["bad.jpg", "not a JPEG, PNG or BMP image"],
        ["long.jpg", "the request has more than 32 MB; send fewer or smaller files"],
        ["vast.png", "more than 33 million pixels"],
    ]
    page.element("remove").click()
    assert not page.browser.find_elements(By.CLASS_NAME, "card")


@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_names_what_it_has(page: Page, server: Server, width: int) -> None:
    for path, title in (("/", "canvas"), ("/docs", "operations")):
        page.open(server, path, width)
        page.wait(lambda title=title: page.element(title).is_displayed())
        assert page.script("return document.documentElement.scrollWidth") <= width
    page.wait(lambda: "POST /predict" in page.text("operations"))
    assert "Predictions" in page.text("operations")
