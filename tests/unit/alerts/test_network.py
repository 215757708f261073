"""The simulated network, before which the rules are tested, has what they look at."""

from tests.alerts import RULES, metrics_in
from tests.network import DOMAINS, Network


def _value(network: Network, name: str, **labels: str) -> float:
    """The latest sum of the series with these labels."""
    return sum(
        values[-1] or 0
        for (found, of), values in network.series.items()
        if found == name and labels.items() <= dict(of).items()
    )


def test_it_has_every_series_that_a_rule_looks_at() -> None:
    network = Network(50, 3)
    network.run(1)

    found = {name for name, _ in network.series}
    scraped = {name for rule in RULES for name in metrics_in(rule["expr"]) if ":" not in name} - {"ALERTS"}
    # It has no canary: the other alerts do without.
    assert {name for name in scraped if not name.startswith("wgkex_probe_")} <= found


def test_a_healthy_network_keeps_its_nodes_and_moves_some() -> None:
    network = Network(50, 3, churn=0.5)
    network.run(120)

    # Those that have just left are active for some minutes, and so is what they have found.
    assert 48 <= _value(network, "wgkex_worker_peers", state="active") <= 56
    assert _value(network, "wgkex_worker_peers", state="idle") > 20
    # One that loses its tunnel twice within five minutes comes back, as a broker counts it.
    nodes = _value(network, "wgkex_broker_key_first_requests_total")
    back = _value(network, "wgkex_broker_keys_returned_total")
    assert _value(network, "wgkex_worker_peer_sessions_started_total") == nodes + back
    assert nodes > 20 > back


def test_nodes_of_a_closed_port_are_elsewhere_after_some_minutes() -> None:
    network = Network(50, 3)
    closed = network.gateways[0]
    network.at(5, lambda: network.close_port(closed, DOMAINS[0]))
    network.run(15)

    assert closed.active[DOMAINS[0]] == 0
    assert closed.active[DOMAINS[1]] > 0
    assert 48 <= _value(network, "wgkex_worker_peers", state="active") <= 52
    assert _value(network, "wgkex_broker_keys_returned_total", worker=closed.name) > 0


def test_a_gateway_that_reboots_is_not_scraped_and_forgets_its_peers() -> None:
    network = Network(50, 3)
    gone = network.gateways[0]
    network.at(5, lambda: network.reboot(gone, 3, closed=True))
    network.run(30)

    (values,) = (
        values
        for (name, labels), values in network.series.items()
        if name == "process_start_time_seconds" and dict(labels)["instance"] == gone.instance
    )
    assert values[4:9] == [-36_000, None, None, None, 480]
    assert sum(gone.active.values()) == 0
    assert 47 <= _value(network, "wgkex_worker_peers", state="active") <= 53


def test_a_site_marks_all_its_series() -> None:
    network = Network(50, 3, cluster="muc")
    network.run(1)

    assert all(dict(labels)["cluster"] == "muc" for _, labels in network.series)
    assert all('cluster="muc"' in series["series"] for series in network.input_series())
    assert {series["values"] for series in network.input_series() if series["series"].startswith("up{")} == {"1x0"}
