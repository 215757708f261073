"""Two listeners of one host cannot have the same port."""

import pytest

from tests.unit.config.samples import MINIMAL, problems
from wgkex_ops.config import parse


def listening(**listeners: str) -> str:
    """A file with listeners, each as the text of a mapping: `nodes` from line 5 on, then `broker`, then `worker`."""
    lines = {
        "nodes": "broker_listen: {}\n",
        "broker": "broker: {{metrics_listen: {}}}\n",
        "worker": "worker: {{metrics_listen: {}}}\n",
    }
    return MINIMAL + "".join(line.format(listeners[name]) for name, line in lines.items() if name in listeners)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            listening(nodes="{port: 7000}", broker="{port: 7000}"),
            "broker.metrics_listen.port (line 6): is 7000, which broker_listen has, ",
        ),
        (
            listening(broker="{port: 7000}", worker="{port: 7000}"),
            "worker.metrics_listen.port (line 6): is 7000, which broker.metrics_listen has, ",
        ),
        (
            listening(nodes="{port: 7000}", worker="{port: 7000}"),
            "worker.metrics_listen.port (line 6): is 7000, which broker_listen has, ",
        ),
        # The default is not in the file: the line is that of the other one.
        (
            listening(nodes="{port: 9691}"),
            "broker_listen.port (line 5): is 9691, which worker.metrics_listen has by default, ",
        ),
        (
            listening(worker="{port: 9690}"),
            "worker.metrics_listen.port (line 5): is 9690, which broker.metrics_listen has by default, ",
        ),
        (
            listening(worker="{port: 5000}"),
            "worker.metrics_listen.port (line 5): is 5000, which broker_listen has by default, ",
        ),
    ],
)
def test_the_same_port(text: str, expected: str) -> None:
    assert problems(text) == (f"{expected}and one host cannot serve both; choose another one",)


def test_three_of_them() -> None:
    found = problems(listening(**dict.fromkeys(("nodes", "broker", "worker"), "{port: 7000}")))
    assert [problem.partition(":")[0] for problem in found] == [
        "broker.metrics_listen.port (line 6)",
        "worker.metrics_listen.port (line 7)",
    ]


@pytest.mark.parametrize(
    ("first", "second", "meet"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("'::'", "127.0.0.1", True),
        ("'::'", "2001:db8::1", True),
        ("'::'", "gw01.example.net", True),
        ("'::'", "0.0.0.0", True),
        ("0.0.0.0", "192.0.2.1", True),
        ("0.0.0.0", "localhost", True),
        ("0.0.0.0", "'::1'", False),
        ("localhost", "127.0.0.1", True),
        ("localhost", "'::1'", True),
        ("localhost", "192.0.2.1", False),
        ("192.0.2.1", "127.0.0.1", False),
        ("GW01.example.net", "gw01.example.net", True),
        # Nobody is asked for the addresses of names.
        ("gw01.example.net", "192.0.2.1", False),
        ("0.0.0.0", "gw01.example.net", False),
    ],
)
def test_the_same_port_of_other_addresses_is_fine(first: str, second: str, meet: bool) -> None:
    for one, other in ((first, second), (second, first)):
        text = listening(nodes=f"{{host: {one}, port: 7000}}", worker=f"{{host: {other}, port: 7000}}")
        if meet:
            assert len(problems(text)) == 1
        else:
            assert parse(text, "f").broker_listen.port == 7000


def test_any_free_port_is_never_the_same() -> None:
    config = parse(listening(**dict.fromkeys(("nodes", "broker", "worker"), "{port: 0}")), "f")
    assert config.broker_listen.port == config.worker.metrics_listen.port == 0


def test_the_canary_may_have_the_port_of_a_worker_on_another_host() -> None:
    assert parse(f"{MINIMAL}probe: {{metrics_listen: {{port: 9691}}}}\n", "f").probe.metrics_listen.port == 9691
