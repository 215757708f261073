"""Windows of the rules that depend on what the programs count."""

from alerts.recording_nodes import WINDOW
from alerts.settings import Settings, milliseconds
from tests.alerts import ALERTS
from wgkex_ops.http.gateways.nodes import COUNTED_ONCE_IN


def test_a_node_is_counted_once_in_the_window_of_the_counts() -> None:
    assert milliseconds(WINDOW) == COUNTED_ONCE_IN * 1000


def test_a_session_is_missed_for_longer_than_a_node_that_connected_is_counted() -> None:
    (hold,) = (rule["for"] for rule in ALERTS if rule["alert"] == "WgkexNoNewSessions")

    assert milliseconds(Settings().sessions_window) + milliseconds(hold) > milliseconds(WINDOW)
