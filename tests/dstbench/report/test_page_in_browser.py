"""The report in a browser: what is clicked there does something, at two widths."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dstbench.report.page import write_page

selenium = pytest.importorskip("selenium")
from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import (  # noqa: E402
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="there is no chromium with its chromedriver here"
    ),
]


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, shown, tmp_path):
    """A report, opened at a given width; what a person would see of it is kept as a picture."""
    path = tmp_path / "report.html"
    write_page([shown], path, "A report")

    def at(width: int):
        # The window's own frame counts, too: the page is as wide as is asked for.
        browser.set_window_size(width, 1200)
        browser.get(path.as_uri())
        WebDriverWait(browser, 60).until(
            lambda b: b.execute_script("return document.documentElement.dataset.ready") == "yes"
        )
        folder = Path(os.environ.get("DSTBENCH_TEST_ARTEFACTS") or tmp_path)
        browser.save_screenshot(str(folder / f"report-{width}.png"))
        return browser

    return at


def methods(browser) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, "table.leaderboard tbody tr td:first-child")
    return [cell.text for cell in cells if cell.is_displayed()]


@pytest.mark.parametrize("width", [1400, 520])
def test_nothing_is_wider_than_the_page_and_nothing_fails(page, width: int) -> None:
    browser = page(width)
    inner, wide = browser.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )

    assert wide <= inner
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def scores(browser) -> list[float]:
    cells = browser.find_elements(By.CSS_SELECTOR, "table.leaderboard tbody tr td:nth-child(5)")
    return [float(cell.text.split()[0]) for cell in cells]


def soon(browser, look: Callable[[WebDriver], object], expected: object) -> None:
    """The table is drawn anew a moment after a click."""
    with suppress(TimeoutException):
        wait = WebDriverWait(browser, 10, ignored_exceptions=[StaleElementReferenceException])
        wait.until(lambda b: look(b) == expected)
    assert look(browser) == expected


def test_the_table_is_sorted_by_a_click_and_filtered_by_words(page) -> None:
    browser = page(1400)
    assert methods(browser) == ["dense", "static", "static", "rigl"]
    numbers = scores(browser)
    assert numbers != sorted(numbers)

    head = browser.find_element(By.XPATH, "//th[contains(., 'FID')]")
    head.click()
    soon(browser, scores, sorted(numbers))
    head.click()
    soon(browser, scores, sorted(numbers, reverse=True))

    browser.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("rigl")
    soon(browser, methods, ["rigl"])


def test_columns_can_be_hidden(page) -> None:
    browser = page(1400)
    browser.find_element(By.CSS_SELECTOR, "button.buttons-colvis").click()
    choices = browser.find_elements(By.CSS_SELECTOR, ".buttons-columnVisibility")
    next(choice for choice in choices if choice.text == "seeds").click()

    def hidden(browser) -> bool:
        heads = browser.find_elements(By.CSS_SELECTOR, "table.leaderboard thead th")
        return "seeds" not in [head.text for head in heads if head.is_displayed()]

    soon(browser, hidden, True)


def test_a_point_tells_what_it_is(page) -> None:
    browser = page(1400)
    point = browser.find_element(By.CSS_SELECTOR, ".js-plotly-plot .scatterlayer .point")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(browser).move_to_element(point).perform()
    WebDriverWait(browser, 10).until(
        lambda b: b.find_elements(By.CSS_SELECTOR, ".hoverlayer .hovertext")
    )

    told = browser.find_element(By.CSS_SELECTOR, ".hoverlayer .hovertext").text
    assert "dense, S = 0" in told
    assert "FID 10." in told


def test_samples_of_other_seeds_are_a_click_away(page) -> None:
    browser = page(1400)
    where = browser.find_element(By.CSS_SELECTOR, ".pages .where")
    assert where.text == "seed 3 (1 of 3)"

    browser.find_element(By.CSS_SELECTOR, ".pages button[data-turn='-1']").click()

    assert where.text == "seed 4 (3 of 3)"
    shown = browser.find_elements(By.CSS_SELECTOR, ".page:not([hidden]) .strip span")
    assert [label.text for label in shown] == [
        "real images", "dense", "static, S = 0.5", "static, S = 0.9", "rigl, S = 0.5",
    ]  # fmt: skip
