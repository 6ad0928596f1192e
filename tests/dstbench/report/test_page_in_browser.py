"""The report, the index of a site and a dashboard in a browser: what is clicked there does
something, at two widths."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from dstbench.report.dashboard.server import make_server
from dstbench.report.page import write_page
from dstbench.report.site import publish
from dstbench.store import CellFolder

selenium = pytest.importorskip("selenium")
from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import (  # noqa: E402
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

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
def picture(browser, tmp_path) -> Callable[[str], object]:
    """Keeps what a person would see of a page."""
    folder = Path(os.environ.get("DSTBENCH_TEST_ARTEFACTS") or tmp_path)
    return lambda name: browser.save_screenshot(str(folder / f"{name}.png"))


def wait_until_ready(browser) -> None:
    WebDriverWait(browser, 60).until(
        lambda b: b.execute_script("return document.documentElement.dataset.ready") == "yes"
    )


@pytest.fixture
def page(browser, picture, shown, tmp_path):
    """A report, opened at a given width; what a person would see of it is kept as a picture."""
    path = tmp_path / "report.html"
    write_page([shown], path, "A report")

    def at(width: int):
        # The window's own frame counts, too: the page is as wide as is asked for.
        browser.set_window_size(width, 1200)
        browser.get(path.as_uri())
        wait_until_ready(browser)
        picture(f"report-{width}")
        return browser

    return at


def methods(browser) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, "table.leaderboard tbody tr td:first-child")
    return [cell.text for cell in cells if cell.is_displayed()]


def check_that_it_fits(browser) -> None:
    """Nothing is wider than the page, and nothing has failed there."""
    inner, wide = browser.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth]"
    )
    assert wide <= inner
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", [1400, 520])
def test_nothing_is_wider_than_the_page_and_nothing_fails(page, width: int) -> None:
    check_that_it_fits(page(width))


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


def test_layers_of_another_row_are_a_choice_away(page) -> None:
    browser = page(1400)
    choice = Select(browser.find_element(By.CSS_SELECTOR, ".charts select"))
    assert choice.first_selected_option.text == "static, S = 0.5: connections changed"

    choice.select_by_visible_text("rigl, S = 0.5: density")

    shown = "return [...document.querySelectorAll('.charts > *')].at(-1).querySelector("
    shown += "'.js-plotly-plot').data.findIndex((trace) => trace.visible)"
    soon(browser, lambda b: b.execute_script(shown), 4)


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


# Several benchmarks


def test_the_index_of_a_site(browser, picture, keep, make_record, tmp_path) -> None:
    records = [make_record(fid=1), make_record("static", 0.5, fid=2)]
    failed = make_record("rigl", 0.5, status="failed", error="because")
    mine = keep(tmp_path / "mine", [*records, failed])
    yours = keep(tmp_path / ("yours-" * 15 + "2"), records)
    publish([mine, yours], tmp_path / "site")
    for width in (1200, 520):
        browser.set_window_size(width, 1200)
        browser.get((tmp_path / "site" / "index.html").as_uri())
        picture(f"site-{width}")
        check_that_it_fits(browser)

    browser.find_element(By.LINK_TEXT, "mine").click()
    wait_until_ready(browser)
    assert browser.title == "mine"


def test_a_dashboard_follows_the_run(browser, picture, keep, make_record, tmp_path) -> None:
    folder = tmp_path / "results"
    keep(folder / "mine", [make_record(fid=1)])
    keep(folder / "yours", [make_record(status="failed", error="because")])
    cell = make_record("static", 0.5, cell={"training": {"steps": 100}}).cell
    running = CellFolder(folder / "mine" / "cells" / cell.id)
    running.request(cell)
    with make_server(folder, 0) as server, running.locked():
        thread = Thread(target=server.serve_forever)
        thread.start()
        browser.set_window_size(1200, 1200)
        browser.get(f"http://localhost:{server.server_port}/")
        picture("dashboard")
        soon(browser, counts_of("mine"), ["1 done", "1 running"])
        check_that_it_fits(browser)

        keep(folder / "mine", [make_record(seed=1, fid=2)])
        soon(browser, counts_of("mine"), ["2 done", "1 running"])

        browser.find_element(By.LINK_TEXT, "mine").click()
        wait_until_ready(browser)
        assert summary(browser) == "2 cells done"
        keep(folder / "mine", [make_record(seed=2, fid=3)])
        soon(browser, summary, "3 cells done")
        wait_until_ready(browser)
        picture("dashboard-report")
        check_that_it_fits(browser)

        server.shutdown()
        thread.join()
    soon(browser, live, "The dashboard has ended: this page stands still.")


def counts_of(name: str) -> Callable[[WebDriver], list[str]]:
    def counts(browser: WebDriver) -> list[str]:
        return [e.text for e in browser.find_elements(By.CSS_SELECTOR, f"#{name} .counts span")]

    return counts


def summary(browser: WebDriver) -> str:
    return browser.find_element(By.CSS_SELECTOR, ".summary").text


def live(browser: WebDriver) -> str:
    return browser.find_element(By.ID, "live").text
