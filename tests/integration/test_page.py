"""The operator's pages in a real browser, served by a broker and a worker that run, with a real MQTT server between."""

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
from selenium.common.exceptions import WebDriverException

from tests.helpers import CITY, WELT
from tests.integration.browser import Browser, browser
from tests.integration.inprocess import new_key, settings, submit
from tests.integration.loopback import Answer, eventually, eventually_answered, request
from tests.integration.servers import Bench, Mosquitto

# What a person should be able to read without effort (WCAG 2.1, level AA, section 1.4.3).
ENOUGH_CONTRAST: Final = 4.5
PHONE: Final = 360
DESKTOP: Final = 1280
# Time for two reloads: the first one may come just before.
RELOADED_WITHIN: Final = 45.0

# Several pages and reloads take longer than most tests.
pytestmark = pytest.mark.timeout(240)

LONG_NAME: Final = "gateway-" + "w" * 240 + ".long"
MARKUP: Final = "<img src=x onerror=alert(1)><script>document.title=1"
MIRRORED: Final = "gw\u05d0\u05d1\u05d2-12"


@dataclass(frozen=True)
class Programs:
    """Broker and worker as processes that know each other: where nodes and operators are served."""

    nodes: str
    pages: Mapping[str, str]

    def url(self, process: str) -> str:
        return f"http://{self.pages[process]}/"

    async def submit(self, domain: str = WELT.name, version: int = 2) -> Answer:
        return await submit(self.nodes, version, domain, new_key())

    async def shows(self, process: str, text: str) -> None:
        """Wait until the HTML of a page has a text."""

        async def has() -> bool:
            return text in (await request(self.url(process))).text

        await eventually_answered(has, f"{text} on the page of the {process}")


@pytest.fixture
async def programs(bench: Bench, mosquitto: Mosquitto) -> Programs:
    document = settings(mosquitto.port, workers={"gw01": {"weight": 30}, "gw02": {"weight": 20}, LONG_NAME: {}})
    worker, broker = (bench.wgkex(command, document) for command in ("worker", "broker"))
    await worker.logs("worker_announced")
    await broker.logs("mqtt_connected")
    started = await broker.logs("broker_started")
    pages = {"broker": started["metrics"], "worker": (await worker.logs("worker_started"))["metrics"]}
    programs = Programs(started["listen"], pages)
    await programs.shows("broker", "1 of 3")
    return programs


@pytest.fixture
async def lively(programs: Programs, mosquitto: Mosquitto) -> Programs:
    """Something of everything has happened, good and bad."""
    for domain in (WELT.name, CITY.name):
        assert (await programs.submit(domain)).status == 200
    assert (await request(f"http://{programs.nodes}/api/v1/wg/key/exchange", b"nonsense")).status == 400
    mosquitto.publish("wireguard-worker/gw02/status", "0")
    for name in (MARKUP, MIRRORED):
        mosquitto.publish(f"wireguard-worker/{name}/status", "1")
    mosquitto.publish(f"wireguard-metrics/{WELT.name}/{LONG_NAME}/connected_peers", "7")
    mosquitto.publish("wireguard-worker/gw01/status", "nonsense")
    mosquitto.publish(f"wireguard/{WELT.name}/all", "nonsense")
    await programs.shows("broker", "1 message of workers or brokers refused")
    await programs.shows("worker", "1 key from MQTT rejected")
    return programs


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path) as window:
        yield window


def test_the_checks_see_what_they_look_for(window: Browser) -> None:
    style = "body { background: #fff; color: #777 } p::before { content: 'before'; color: #eee }"
    window.resize(PHONE)
    window.open(f"data:text/html,<style>{style.replace('#', '%23')}</style><p>text<pre>{'wide' * 100}<img src=x:y>")
    ratio, text, number = window.lowest_contrast
    assert (round(ratio, 2), text, number) == (1.16, '"before"', 3)
    assert window.overflow > 1000
    assert window.count("p, pre, img") == 3
    assert any("x:y" in complaint for complaint in window.complaints)


@pytest.mark.parametrize("process", ["broker", "worker"])
async def test_pages_can_be_read_by_day_and_night_on_phone_and_desktop(
    lively: Programs, window: Browser, process: str
) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        window.prefer(scheme)
        for width in (PHONE, 720, DESKTOP):
            window.resize(width)
            window.open(lively.url(process))
            at = f"{process}, {scheme}, {width} px"
            ratio, text, number = window.lowest_contrast
            assert ratio >= ENOUGH_CONTRAST, f"{at}: {text}"
            assert number > 30, at
            assert window.overflow <= 0, at
            assert window.complaints == [], at
            assert window.count("svg.bar rect") > 0, at
            grounds.add(window.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


async def test_pages_show_the_same_without_javascript(lively: Programs, window: Browser) -> None:
    window.disable_javascript()
    window.open("data:text/html,<p>off<script>document.body.textContent = 'on'</script>")
    assert window.text == "off"
    window.open(lively.url("broker"))
    # Read once: the page may reload between two readings.
    shown = window.text
    for text in (
        "✓ Ready",
        f"Offline: {LONG_NAME}, gw02",
        f"gw01 {version('wgkex-ops')} ✓ online confirms keys",
        "gw02 ✗ offline",
        f"{LONG_NAME} ✗ offline 7, target",
        f"{MARKUP} not listed ✓ online not ready for nodes of {WELT.name}, {CITY.name}",
        "malformed json 1",
        "Server 127.0.0.1:",
    ):
        assert text in shown
    window.open(lively.url("worker"))
    shown = window.text
    for text in ("✓ Ready", "0 of 2", "wg-welt ✓ up", "1, 0 % active", "Received 3", "invalid public key 1"):
        assert text in shown
    assert window.complaints == []


async def test_links_lead_to_the_other_paths(programs: Programs, window: Browser) -> None:
    for process in ("broker", "worker"):
        window.open(programs.url(process))
        links = window.run("return [...document.links].map(link => link.href)")
        assert len(links) == 3
        for link in links:
            assert (await request(link)).status == 200


async def test_a_page_shows_a_new_key_by_itself(programs: Programs, window: Browser) -> None:
    window.disable_javascript()
    window.open(programs.url("broker"))
    assert "Accepted 0" in window.text
    assert (await programs.submit()).status == 200

    def accepted() -> bool:
        # The window may be between two pages just now.
        with contextlib.suppress(WebDriverException):
            return "Accepted 1" in window.text
        return False

    await eventually(accepted, "a page that has reloaded", RELOADED_WITHIN)
    assert window.complaints == []


async def test_names_from_the_bus_are_text(lively: Programs, window: Browser) -> None:
    window.open(lively.url("broker"))
    assert window.count("img, script, iframe, object") == 0
    names = window.run("return [...document.querySelectorAll('th bdi')].map(name => name.textContent)")
    assert {MARKUP, MIRRORED, LONG_NAME} <= set(names)
    assert window.driver.title == "ready: wgkex-ops broker gw01"
    # Letters that are written from the right turn nothing around but themselves.
    assert re.search(rf"{MIRRORED} not listed", window.text)
    assert window.complaints == []


async def test_pages_show_that_there_is_no_connection(
    programs: Programs, mosquitto: Mosquitto, window: Browser
) -> None:
    await mosquitto.stop()
    for process in ("broker", "worker"):
        await programs.shows(process, "Not ready")
        window.open(programs.url(process))
        assert window.text.count("there is no connection with the MQTT server") == 1
        assert "MQTT not connected" in window.text
        assert window.driver.title.startswith("not ready: ")
        assert window.complaints == []


async def test_many_people_open_a_page_at_once(programs: Programs) -> None:
    responses = await asyncio.gather(*(request(programs.url(process)) for process in ("broker", "worker") * 20))
    assert {response.status for response in responses} == {200}
