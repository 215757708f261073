"""What every process shows of itself."""

import functools
import os
import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector


def new_registry(component: str) -> CollectorRegistry:
    """Make a registry with the metrics of the process, of Python, and of this build.

    Args:
        component: ``broker`` or ``worker``.
    """
    # They double the series, and Prometheus finds resets without them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Gauge(
        "wgkex_build_info",
        "Always 1; the labels show which build this is, so that an upgrade shows in every graph.",
        ["component", "version", "revision", "python_version"],
        registry=registry,
    ).labels(
        component=component,
        version=software_version(),
        revision=revision(),
        python_version=platform.python_version(),
    ).set(1)
    return registry


@functools.cache
def software_version() -> str:
    """The version of this package, which is looked up in files."""
    return version("wgkex-ops")


class ProcessMetrics:
    """What a process shows once its name is known.

    Args:
        registry: where the instruments live.
        component: ``broker`` or ``worker``.
        name: its name on the bus.
    """

    def __init__(self, registry: CollectorRegistry, component: str, name: str) -> None:
        Gauge(
            f"wgkex_{component}_info",
            f"Always 1; the {component}'s name on the bus, which joins what others show of it with its own metrics.",
            [component],
            registry=registry,
        ).labels(name).set(1)
        self._time = Gauge(
            "wgkex_time_seconds",
            "This host's clock when the scrape began. Far from the scrape's own time: this host or that of Prometheus "
            "has no NTP, and ages of handshakes and the propagation of keys mean nothing.",
            registry=registry,
        )

    def refresh(self) -> None:
        """A scrape begins. To read the kernel takes a while, so the time is taken before."""
        self._time.set_to_current_time()


def revision() -> str:
    """The commit that this was built from, as the installation has put it into the environment."""
    return os.environ.get("WGKEX_REVISION") or "unknown"
