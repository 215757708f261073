"""What anybody outside can send us, as functions of bytes: each ends, or raises an error that its reader documents.

Any other exception is a bug, and so is an input that takes long. `make fuzz` looks for both for as long as one likes;
tests/unit/test_fuzz.py does so for a moment.
"""

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.helpers import DOMAINS, KEY, ROOT
from wgkex_ops.bus import messages
from wgkex_ops.config import parse, parse_key_lists
from wgkex_ops.consumer.upkeep.journal_file import FILE, JournalFile, JournalUnavailableError, Row
from wgkex_ops.errors import ConfigError, InvalidMessageError
from wgkex_ops.http.clients import TrustedProxies, network_of
from wgkex_ops.http.public.responses import RejectedError
from wgkex_ops.http.public.submission import parse_submission
from wgkex_ops.model.key_lists import LISTS
from wgkex_ops.model.locations import parse_location

# Processor time. An event loop that stands still for so long keeps other nodes waiting; a thread need not hurry.
SLOW_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Target:
    """A reader of what comes from outside.

    Attributes:
        read: takes the input; raises only what is a bug.
        seeds: inputs to begin with, most of them valid.
        on_the_loop: whether it runs on the event loop, where an input must not take longer than SLOW_SECONDS.
    """

    read: Callable[[bytes], None]
    seeds: Sequence[bytes]
    on_the_loop: bool = True


def _submission(data: bytes) -> None:
    with contextlib.suppress(RejectedError):
        submission = parse_submission(data, DOMAINS)
        assert len(submission.key.raw) == 32
        assert submission.domain in DOMAINS.values()
        assert submission.location in (None, parse_location(submission.location))


def _topic_and_payload(data: bytes) -> tuple[str, bytes]:
    topic, _, payload = data.partition(b"\n")
    return topic.decode(errors="replace"), payload


def _key_message(data: bytes) -> None:
    topic, payload = _topic_and_payload(data)
    with contextlib.suppress(InvalidMessageError):
        messages.parse_key(topic, payload)
    origin = messages.parse_origin({"wgkex-request-id": topic, "wgkex-accepted-at": topic}, topic, payload)
    assert len(origin.request_id) <= 64


def _worker_event(data: bytes) -> None:
    with contextlib.suppress(InvalidMessageError):
        messages.parse_worker_event(*_topic_and_payload(data))


def _receipt(data: bytes) -> None:
    topic, payload = _topic_and_payload(data)
    with contextlib.suppress(InvalidMessageError):
        messages.parse_receipt(topic, payload)
    messages.split_correlation(data)


def _forwarded(data: bytes) -> None:
    forwarded_for, _, real_ip = data.decode("utf-8", errors="surrogateescape").partition("\n")
    network_of(_PROXIES.client("127.0.0.1", forwarded_for, real_ip))


def _configuration(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        parse(data.decode(errors="replace"), "fuzz.yaml")


def _key_lists(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        lists = parse_key_lists(data.decode(errors="replace"), "fuzz.yaml").key_lists()
        for name in LISTS:
            assert lists.in_force(name, 0.0) >= 0


def _journal(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, FILE).write_bytes(data)
        file = JournalFile(Path(folder))
        try:
            for row in file.open():
                assert len(row.key) == 32
        except JournalUnavailableError:
            pass
        finally:
            file.close()


def _journal_of_a_peer() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = JournalFile(Path(folder))
        file.open()
        file.save([Row(bytes(range(32)), "ffmuc_welt", 1e9, 0.0)])
        file.close()
        # All of it in the one file.
        connection = sqlite3.connect(Path(folder, FILE))
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
        return Path(folder, FILE).read_bytes()


_PROXIES: Final = TrustedProxies(
    parse("domains: [a]\ndomain_prefixes: ['']\nmqtt: {broker_url: m}", "m").broker.trusted_proxies
)
_DATA: Final = {"ExternalAddress": "gw.example.net", "Port": 40000, "PublicKey": KEY, "LinkAddress": "fe80::1"}

TARGETS: Final[Mapping[str, Target]] = {
    "submission": Target(
        _submission,
        [
            b'{"domain": "ffmuc_welt", "public_key": "%s"}' % KEY.encode(),
            b'{"domain": "ffmuc_welt", "public_key": "%s", "location": "Munich-2"}' % KEY.encode(),
            b'{"public_key": "\\u0041", "domain": null, "domain": [1e999, {"x": "\xff"}]}',
        ],
    ),
    "key_message": Target(
        _key_message, [b"wireguard/ffmuc_welt/all\n" + KEY.encode(), b"wgkex/receipts/b1\n1234567890"]
    ),
    "worker_event": Target(
        _worker_event,
        [
            f"wireguard-worker/gw01/ffmuc_welt/data\n{json.dumps(_DATA)}".encode(),
            b"wireguard-worker/gw01/status\n1",
            b"wireguard-metrics/ffmuc_welt/gw01/connected_peers\n42",
            b"wireguard-broker/b1/status\n0",
        ],
    ),
    "receipt": Target(
        _receipt,
        [b"wgkex/receipts/b1/gw01\n" + b'{"worker": "gw01", "result": "failed", "reason": "EBUSY"}'],
    ),
    "forwarded": Target(_forwarded, [b"192.0.2.1, 10.0.0.1\n", b"::ffff:192.0.2.1, fe80::1%eth0\n2001:db8::1"]),
    "configuration": Target(_configuration, [(ROOT / "wgkex.yaml.example").read_bytes()], on_the_loop=False),
    "key_lists": Target(
        _key_lists,
        [
            f"denied:\n- key: {KEY}\n  name: a\n  expires: 2027-01-01\n".encode(),
            f"allowed: {{x: [{{key: {KEY}, expires: 2027-01-01T00:00:00Z}}]}}\nprotected: []\n".encode(),
        ],
        on_the_loop=False,
    ),
    "journal": Target(_journal, [_journal_of_a_peer()], on_the_loop=False),
}
