"""Instruments of the key lists."""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Gauge

from wgkex_ops.model.key_lists import LISTS


class KeyListMetrics:
    """What the lists have, and whether their file can be read.

    Args:
        registry: where the instruments live.
        in_force: counts the entries of a list that have not expired.
    """

    def __init__(self, registry: CollectorRegistry, in_force: Callable[[str], int]) -> None:
        entries = Gauge(
            "wgkex_key_list_entries",
            "Entries of the key lists that are in force; those of all domains together for the allowed ones.",
            ["list"],
            registry=registry,
        )
        self.successful = Gauge(
            "wgkex_key_list_last_reload_successful",
            "1 if the file of the key lists could be read the last time, or there is none; at 0 the former ones count.",
            registry=registry,
        )
        self.success_time = Gauge(
            "wgkex_key_list_last_reload_success_timestamp_seconds",
            "When the key lists in force were read; 0 without a file.",
            registry=registry,
        )
        for name in LISTS:
            entries.labels(name).set_function(partial(in_force, name))
        self.successful.set(1)
