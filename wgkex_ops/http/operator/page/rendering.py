"""HTML: pieces of it for the cells of a page, and the whole page. The only importer of Jinja2.

All text is escaped when it becomes a part of HTML, and invisible characters are shown as escapes: names come from the
bus.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wgkex_ops.http.operator.page.parts import Page, Tone
from wgkex_ops.model.words import count, duration, iso_time, visible

# Seconds until the browser asks again by itself.
REFRESH_SECONDS: Final = 15

# What a tone looks like without colours.
_SYMBOLS: Final = {Tone.GOOD: "✓", Tone.WARN: "!", Tone.BAD: "✗", Tone.PLAIN: "·"}
# A name up to this length is not broken into lines.
_SHORT: Final = 24
# A longer list of names is of no help.
_NAMES_SHOWN: Final = 5


def name(text: str) -> Markup:
    """A text from elsewhere; its direction of writing does not change what surrounds it."""
    shown = visible(text)
    return Markup("<bdi{}>{}</bdi>").format(Markup(' class="short"') if len(shown) <= _SHORT else "", shown)


def names(texts: Sequence[str]) -> Markup:
    """Some names, and how many more there are."""
    more = f" and {count(len(texts) - _NAMES_SHOWN)} more" if len(texts) > _NAMES_SHOWN else ""
    return Markup(", ").join(map(name, texts[:_NAMES_SHOWN])) + more


def state(tone: Tone, text: str) -> Markup:
    return Markup('<span class="state {}"><span aria-hidden="true">{}</span> {}</span>').format(
        tone, _SYMBOLS[tone], text
    )


def toned(tone: Tone, number: int) -> str:
    """A number of things; in the colour of its tone unless there are none."""
    if tone is Tone.PLAIN or not number:
        return count(number)
    return Markup('<span class="state {}">{}</span>').format(tone, count(number))


def quiet(text: str) -> Markup:
    return Markup('<span class="quiet">{}</span>').format(text)


def detail(text: str) -> Markup:
    """The heading of a row that is a part of the row above."""
    return Markup('<span class="detail">{}</span>').format(text)


def lines(*pieces: str) -> Markup:
    return Markup("<ul>{}</ul>").format(Markup().join(Markup("<li>{}</li>").format(piece) for piece in pieces))


def ago(at: float, now: float) -> Markup:
    """How long ago a moment was (both in seconds since the epoch). Clocks that disagree make no negative time."""
    iso = iso_time(at)
    moment = Markup(' datetime="{0}" title="{0}"').format(iso) if iso else ""
    return Markup("<time{}>{} ago</time>").format(moment, duration(now - at))


def bar(parts: Mapping[str, float], scale: float, mark: float | None = None) -> Markup:
    """A bar of coloured parts, for those who see it: the numbers are beside it.

    Args:
        parts: lengths, by the name of their colour.
        scale: the length of the whole bar; without any there is no bar.
        mark: where a mark is.
    """
    if not scale:
        return Markup()
    rectangle = Markup('<rect class="{}" x="{:.2f}" width="{:.2f}" height="10"/>').format
    start, drawn = 0.0, [rectangle("track", 0, 100)]
    for colour, length in parts.items():
        drawn.append(rectangle(colour, start, 100 * length / scale))
        start += 100 * length / scale
    if mark is not None:
        drawn.append(rectangle("mark", 99 * mark / scale, 1))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(Markup().join(drawn))


def legend(parts: Mapping[str, int]) -> Markup:
    """What the colours of a bar are, and how long each part is."""
    entry = Markup(
        '<li><svg class="{0}" viewBox="0 0 1 1" aria-hidden="true"><rect width="1" height="1"/></svg> {1} {0}</li>'
    )
    entries = (entry.format(colour, count(length)) for colour, length in parts.items())
    return Markup('<ul class="legend">{}</ul>').format(Markup(" ").join(entries))


class Renderer:
    """Makes HTML. The template is read once, when this is made.

    Attributes:
        headers: what to send with each page: it is kept nowhere, takes nothing from elsewhere, and runs nothing.
    """

    def __init__(self) -> None:
        environment = Environment(
            loader=PackageLoader("wgkex_ops.http.operator.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=_finalize,
        )
        environment.filters |= {"iso_time": iso_time, "name": name, "names": names, "symbol": _SYMBOLS.get}
        environment.globals["refresh_seconds"] = REFRESH_SECONDS
        self._template = environment.get_template("page.html")
        # The page includes the very same text.
        self.headers = _headers(environment.get_template("style.css").render())

    def render(self, page: Page) -> bytes:
        """Make a page's HTML in UTF-8. Takes some milliseconds for hundreds of lines: better off the event loop."""
        return self._template.render(page=page).encode()


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) else visible(str(value))


def _headers(style: str) -> Mapping[str, str]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        # The icon is part of the page.
        "img-src data:",
        "base-uri 'none'",
        # The search box.
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Content-Type": "text/html; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
