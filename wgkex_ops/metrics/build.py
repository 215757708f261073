"""What every process shows of itself."""

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
        version=version("wgkex-ops"),
        revision=revision(),
        python_version=platform.python_version(),
    ).set(1)
    return registry


def revision() -> str:
    """The commit that this was built from, as the installation has put it into the environment."""
    return os.environ.get("WGKEX_REVISION") or "unknown"
