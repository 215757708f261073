"""From a page's values to HTML: the only importer of Jinja2, which escapes whatever is not a template's own text."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wgkex_ops.http.operator.page.parts import Page
from wgkex_ops.http.operator.page.words import clock_time, count, duration, iso_time, things, visible

# Seconds until the browser asks again by itself.
REFRESH_SECONDS: Final = 15

_PAGES: Final = ("broker.html", "worker.html")
_STYLE: Final = "style.css"


class Renderer:
    """Makes HTML. The templates are read once, when this is made.

    Attributes:
        headers: what is to be sent with each page: it is not kept anywhere, takes nothing from anywhere, and runs
            nothing.
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
        environment.filters |= {
            "clock_time": clock_time,
            "count": count,
            "duration": duration,
            "iso_time": iso_time,
            "things": things,
        }
        environment.globals["refresh_seconds"] = REFRESH_SECONDS
        self._templates = {name: environment.get_template(name) for name in _PAGES}
        # The pages include the very same text.
        self.headers = _headers(environment.get_template(_STYLE).render())

    def render(self, page: Page) -> bytes:
        """Make a page's HTML in UTF-8. Takes some milliseconds for hundreds of lines: better off the event loop."""
        return self._templates[page.template].render(page=page).encode()


def _finalize(value: object) -> object:
    """What no template has written is shown as it is, even what would be unseen."""
    if isinstance(value, Markup):
        return value
    return visible(str(value))


def _headers(style: str) -> Mapping[str, str]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        # The icon is part of the page.
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "Content-Type": "text/html; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
