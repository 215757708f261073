"""Alerts about the MQTT server, and the sessions with it."""

from alerts.alert import Alert
from alerts.settings import Settings


def mqtt(settings: Settings) -> list[Alert]:
    """Sessions with the MQTT server."""
    short, flapping = settings.window(settings.short_gap), settings.window(settings.flapping_window)
    connected = f"max_over_time(wgkex_mqtt_connected{{{settings.both}}}[{short}])"
    losses = f"round(increase(wgkex_mqtt_disconnects_total{{{settings.both}}}[{flapping}]))"
    return [
        Alert(
            name="WgkexMQTTDown",
            severity="critical",
            # One that is connected is enough. The value is the number of those that are not.
            expr=f"{settings.over_all('count', f'{connected} == 0')}\nunless {settings.on()} ({connected} == 1)",
            hold="1m",
            # Its consequences resolve when the last process is back, and stay inhibited until then.
            keep=settings.mqtt_keep,
            summary="The MQTT server of wgkex is gone.",
            description=(
                "All {{ $value }} brokers and workers that answer Prometheus have lost MQTT. Nodes that lose "
                "their tunnel now get no new one; tunnels that are up stay up. First check whether the MQTT "
                "server runs, and whether its certificate or password has changed."
            ),
        ),
        Alert(
            name="WgkexMQTTDisconnected",
            severity="warning",
            expr=f"{connected} == 0",
            hold="1m",
            summary="A wgkex process has no connection to the MQTT server.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} is not connected to the MQTT server. A broker "
                "then responds with 503 to nodes, a gateway takes no new ones. First check its log for the reason "
                "of the last attempt, then the network between the two."
            ),
        ),
        Alert(
            name="WgkexMQTTFlapping",
            severity="warning",
            expr=f"{losses} > {settings.flapping_losses}",
            hold="15m",
            summary="A wgkex process loses the MQTT server again and again.",
            description=(
                "{{ $labels.instance }} of job {{ $labels.job }} has lost its connection {{ $value }} times "
                f"within {settings.span(settings.flapping_window)}. Nodes wait longer for their tunnel. First "
                "check whether two processes have the same name, then the network."
            ),
        ),
    ]
