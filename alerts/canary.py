"""The alert about the canary: a router in software, which goes the way of a node every minute."""

from alerts.alert import Alert
from alerts.settings import Settings


def canary(settings: Settings) -> list[Alert]:
    """What the canary finds. That it is not scraped is a matter of WgkexTargetDown."""
    window = settings.window(settings.probe_window)
    on = settings.on("job", "instance", "domain")
    failed = f"max_over_time(wgkex_probe_success{{{settings.probe}}}[{window}]) == 0"

    def reached(phase: str) -> str:
        series = f'wgkex_probe_duration_seconds{{{settings.probe}, phase="{phase}"}}'
        return f"{on} max_over_time({series}[{window}])"

    def named(phase: str, expression: str) -> str:
        return f'label_replace(\n  {expression},\n  "phase", "{phase}", "", ""\n)'

    return [
        Alert(
            name="WgkexProbeFailing",
            severity="critical",
            # The window has two rounds, and the label names the first phase that neither of them got through.
            expr="\nor\n".join(
                (
                    named("post", f"{failed}\n  unless {reached('post')}"),
                    named("handshake", f"{failed}\n  and {reached('post')}\n  unless {reached('handshake')}"),
                    named("vxlan", f"{failed}\n  and {reached('handshake')}"),
                )
            ),
            hold="5m",
            summary="The canary gets no tunnel, or no mesh.",
            description=(
                "The canary {{ $labels.instance }} fails in domain {{ $labels.domain }}, whichever gateway it is sent "
                "to. Phase: {{ $labels.phase }} (post: no endpoint from the broker; handshake: an endpoint, and no "
                "tunnel; vxlan: a tunnel, and no mesh). Nodes that ask now most likely fare the same. First check the "
                "canary's log: it has the gateway and the reason."
            ),
        )
    ]
