"""Bodies that are not a valid submission, and the reason why each of them is refused."""

import gzip
import json
from typing import Any, Final, NamedTuple

from tests.helpers import KEY, OTHER_KEY, TESTDATA, WELT
from tests.unit.http.public.application import padded, submission
from wgkex_ops.http.public.submission import BODY_LIMIT

REJECTED: Final[dict[str, list[dict[str, Any]]]] = json.loads((TESTDATA / "public_keys_rejected.json").read_text())


class BadBody(NamedTuple):
    """A body, the reason why it is refused, and the label of the domain."""

    body: bytes
    reason: str
    domain: str


def _bad_bodies() -> dict[str, BadBody]:
    unknown = "unknown"
    bodies = {
        "empty": (b"", "malformed_json", unknown),
        "blank": (b" \r\n", "malformed_json", unknown),
        "broken": (submission()[:-1], "malformed_json", unknown),
        "text behind it": (submission() + b"x", "malformed_json", unknown),
        "two documents": (submission() * 2, "malformed_json", unknown),
        "single quotes": (submission().replace(b'"', b"'"), "malformed_json", unknown),
        "form": (b"domain=ffmuc_welt&public_key=x", "malformed_json", unknown),
        "array": (b"[" + submission() + b"]", "malformed_json", unknown),
        "string": (json.dumps(submission().decode()).encode(), "malformed_json", unknown),
        "number": (b"42", "malformed_json", unknown),
        "huge number": (b"9" * BODY_LIMIT, "malformed_json", unknown),
        "huge exponent": (b"1e999999999", "malformed_json", unknown),
        "null": (b"null", "malformed_json", unknown),
        "true": (b"true", "malformed_json", unknown),
        "NaN": (b"NaN", "malformed_json", unknown),
        "brackets to the limit": (b"[" * BODY_LIMIT, "malformed_json", unknown),
        "braces to the limit": (b'{"a":' * (BODY_LIMIT // 5), "malformed_json", unknown),
        "invalid UTF-8": (submission().replace(b"welt", b"w\xffelt"), "malformed_json", unknown),
        "overlong UTF-8": (submission().replace(b"welt", b"\xc0\xaf"), "malformed_json", unknown),
        "UTF-8 of a surrogate": (submission().replace(b"welt", b"\xed\xa0\x80"), "malformed_json", unknown),
        "byte order mark": (b"\xef\xbb\xbf" + submission(), "malformed_json", unknown),
        "UTF-16": (submission().decode().encode("utf-16"), "malformed_json", unknown),
        "UTF-32": (submission().decode().encode("utf-32"), "malformed_json", unknown),
        "NUL": (submission() + b"\0", "malformed_json", unknown),
        "control character in a string": (submission().replace(b"welt", b"w\nelt"), "malformed_json", unknown),
        "gzip": (gzip.compress(submission()), "malformed_json", unknown),
        "key twice, the same": (
            submission()[:-1] + f', "public_key": "{KEY}"}}'.encode(),
            "malformed_json",
            unknown,
        ),
        "key twice, another": (
            submission()[:-1] + f', "public_key": "{OTHER_KEY}"}}'.encode(),
            "malformed_json",
            unknown,
        ),
        "domain twice": (submission()[:-1] + b', "domain": "ffmuc_muc_cty"}', "malformed_json", unknown),
        "key twice, once escaped": (
            submission()[:-1] + f', "public\\u005fkey": "{OTHER_KEY}"}}'.encode(),
            "malformed_json",
            unknown,
        ),
        "twice deep inside": (submission()[:-1] + b', "x": [{"a": 1, "a": 2}]}', "malformed_json", unknown),
        "no members": (b"{}", "missing_field", unknown),
        "no domain": (json.dumps({"public_key": KEY}).encode(), "missing_field", unknown),
        "no key": (json.dumps({"domain": WELT.name}).encode(), "missing_field", WELT.name),
        "no key, unknown domain": (b'{"domain": "x"}', "missing_field", unknown),
        "members in the wrong case": (submission().replace(b"domain", b"Domain"), "missing_field", unknown),
        "members one level down": (b'{"data": ' + submission() + b"}", "missing_field", unknown),
        "unknown domain": (submission("ffmuc_nowhere"), "unknown_domain", unknown),
        "unknown domain and bad key": (submission("ffmuc_nowhere", "x"), "unknown_domain", unknown),
        "domain with a line feed": (submission(WELT.name + "\n"), "unknown_domain", unknown),
        "domain in capitals": (submission(WELT.name.upper()), "unknown_domain", unknown),
        "domain is a topic": (submission("#"), "unknown_domain", unknown),
        "empty domain": (submission(""), "unknown_domain", unknown),
        "domain is a lone surrogate": (b'{"domain": "\\ud800", "public_key": ""}', "unknown_domain", unknown),
        "domain is a number": (submission(1), "unknown_domain", unknown),
        "domain is null": (submission(None), "unknown_domain", unknown),
        "domain is a list": (submission([WELT.name]), "unknown_domain", unknown),
        "domain is NaN": (submission(float("nan")), "unknown_domain", unknown),
        "domain is infinite": (b'{"domain": 1e999, "public_key": ""}', "unknown_domain", unknown),
        "key is a lone surrogate": (submission(public_key="\ud800"), "invalid_public_key", WELT.name),
        "key is NaN": (submission(public_key=float("nan")), "invalid_public_key", WELT.name),
        "key to the limit": (
            padded(BODY_LIMIT).replace(b"padding", b"x").replace(KEY.encode(), b"A" * len(KEY + "123")),
            "invalid_public_key",
            WELT.name,
        ),
    }
    for vector in REJECTED["malformed"]:
        body = submission(public_key=vector["public_key"])
        bodies[f"key: {vector['why']}"] = (body, "invalid_public_key", WELT.name)
    for vector in REJECTED["small_order"]:
        bodies[f"key: {vector['why']}"] = (
            submission(public_key=vector["public_key"]),
            "small_order_public_key",
            WELT.name,
        )
    return {name: BadBody(*case) for name, case in bodies.items()}


BAD_BODIES: Final = _bad_bodies()
