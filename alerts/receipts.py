"""Alerts about keys that brokers accepted, and gateways did not install."""

from alerts.alert import Alert
from alerts.recording import ONLINE
from alerts.recording_nodes import NOWHERE, NOWHERE_RATIO, UNCONFIRMED, UNCONFIRMED_RATIO, WINDOW
from alerts.settings import Settings

_NAME = "WgkexKeysUnconfirmed"


def receipts(settings: Settings) -> list[Alert]:
    """Keys without a receipt: of one gateway, and of all gateways of a domain."""
    return [_nowhere(settings), _unconfirmed(settings)]


def _nowhere(settings: Settings) -> Alert:
    """Keys of a domain that none of its gateways has installed.

    One node that repeats its key every minute is enough keys: that no gateway installs it is no fault of the node.
    """
    return Alert(
        name=_NAME,
        severity="critical",
        expr=(
            f"{NOWHERE_RATIO} > {settings.unconfirmed_ratio:g}\n"
            f"and {settings.on('job', 'domain')} {NOWHERE} >= {settings.unconfirmed_min_keys}"
        ),
        hold="5m",
        summary="Accepted keys are installed on no gateway.",
        description=(
            "{{ $value | humanizePercentage }} of the keys of domain {{ $labels.domain }} that were accepted within "
            f"{settings.span(WINDOW)} are installed on no gateway, as far as receipts show. Their nodes were sent to a "
            "gateway, and have no tunnel. First check what the access rules of the MQTT server let workers read, then "
            "whether the workers hang."
        ),
    )


def _unconfirmed(settings: Settings) -> Alert:
    """Of one gateway, those that are not listed together.

    Where few keys come, the broker's own verdict counts as well: it needs five keys, in whatever time. A gateway that
    is offline gets no nodes: what it did not confirm when it went is of no interest.
    """
    silent = f"max_over_time(wgkex_broker_worker_confirming{{{settings.broker}}}[{settings.window(settings.gap)}])"
    by, on = settings.by("job", "worker"), settings.on("job", "worker")
    return Alert(
        name=_NAME,
        severity="warning",
        expr=(
            f"{UNCONFIRMED_RATIO} > {settings.unconfirmed_ratio:g}\n"
            f"and {on} {UNCONFIRMED} >= {settings.unconfirmed_min_keys}\n"
            f"unless {on} {ONLINE} == 0\n"
            f"or {on}\n"
            f"max {by} (1 - {silent}) == 1\n"
            f"unless {on} {ONLINE} == 0"
        ),
        hold="5m",
        summary="A gateway does not confirm keys.",
        description=(
            "Gateway {{ $labels.worker }} has not confirmed {{ $value | humanizePercentage }} of the keys that it "
            "should have installed lately (unknown: a gateway that is not listed under workers). Nodes that are sent "
            "there may have no tunnel. First check what the access rules of the MQTT server let its user read and "
            "write, then whether its worker hangs."
        ),
    )
