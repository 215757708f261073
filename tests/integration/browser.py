"""A real browser for tests: Debian's Chromium without a window, driven by Debian's chromedriver."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

# Both are named, so that Selenium looks for none to download.
_CHROMIUM: Final = Path("/usr/bin/chromium")
_CHROMEDRIVER: Final = Path("/usr/bin/chromedriver")
_FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root otherwise
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

# The lowest contrast of any text with what is behind it (WCAG 2.1, section 1.4.3), and that text. What CSS puts in
# front of an element counts as well.
_LOWEST_CONTRAST: Final = """
const number = /[\\d.]+/g;
const parse = colour => { const [r, g, b, a = 1] = colour.match(number).map(Number); return {rgb: [r, g, b], a}; };
const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = rgb => { const [r, g, b] = rgb.map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
function behind(element) {
  for (; element; element = element.parentElement) {
    const {rgb, a} = parse(getComputedStyle(element).backgroundColor);
    if (a === 1) return rgb;
    if (a !== 0) throw new Error("a background that is half transparent");
  }
  throw new Error("no background");
}
function contrast(colour, element) {
  const {rgb, a} = parse(colour);
  if (a !== 1) throw new Error("a text that is half transparent");
  const [low, high] = [luminance(rgb), luminance(behind(element))].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  if (!element.getClientRects().length) continue;
  for (let up = element; up; up = up.parentElement)
    if (getComputedStyle(up).opacity !== "1") throw new Error("opacity");
  const own = [...element.childNodes].filter(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
  if (own.length) found.push([contrast(getComputedStyle(element).color, element), own[0].data.trim()]);
  const before = getComputedStyle(element, "::before");
  if (before.content !== "none" && before.content !== "normal")
    found.push([contrast(before.color, element), before.content]);
}
return found.sort((a, b) => a[0] - b[0])[0].concat(found.length);
"""


class Browser:
    """One window, one page at a time."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def command(self, name: str, **parameters: object) -> None:
        """A command of the Chrome DevTools Protocol."""
        self.driver.execute_cdp_cmd(name, parameters)

    def prefer(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int = 800) -> None:
        """Make the window so large, in CSS pixels; narrow ones are phones."""
        phone = width < 600
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    def disable_javascript(self) -> None:
        """From now on no page runs a script; tests still do."""
        self.command("Emulation.setScriptExecutionDisabled", value=True)

    def open(self, url: str) -> None:
        self.driver.get(url)

    def run(self, script: str) -> Any:  # noqa: ANN401  JavaScript can return anything
        return self.driver.execute_script(script)

    @property
    def text(self) -> str:
        """What there is to read, in one line."""
        return " ".join(str(self.run("return document.body.innerText")).split())

    def count(self, selector: str) -> int:
        """How many elements there are of a kind."""
        return int(self.run(f"return document.querySelectorAll({selector!r}).length"))

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window, and the widest table than its box."""
        return int(
            self.run(
                "const boxes = [document.documentElement, ...document.querySelectorAll('.box')];"
                "return Math.max(...boxes.map(box => box.scrollWidth - box.clientWidth));"
            )
        )

    @property
    def lowest_contrast(self) -> tuple[float, str, int]:
        """The lowest contrast of a text, that text, and how many texts there are."""
        ratio, text, number = self.run(_LOWEST_CONTRAST)
        return float(ratio), str(text), int(number)

    @property
    def complaints(self) -> list[str]:
        """What the browser has logged since it was asked last: refused styles, failed requests, errors."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A fresh browser that keeps its data in a folder, and ends with the context."""
    for program in (_CHROMIUM, _CHROMEDRIVER):
        assert program.exists(), f"{program} is missing: scripts/debian-packages test installs it"
    options = webdriver.ChromeOptions()
    options.binary_location = str(_CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={folder / 'chromium'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(_CHROMEDRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
