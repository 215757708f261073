"""One alerting rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from alerts.recording import Rule
from alerts.settings import Settings


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule.

    Attributes:
        name: the runbook has a section of this name.
        severity: `critical` pages, `warning` opens a ticket, `none` is for machines.
        expr: fires for each series of it.
        hold: nominal duration before it fires; None for at once.
        summary: one fixed sentence.
        description: templated: where, how much, what users notice, what to check first.
        labels: further labels.
        keep: nominal duration for which it goes on firing afterwards; None for none.
    """

    name: str
    severity: str
    expr: str
    hold: str | None
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)
    keep: str | None = None

    def rule(self, settings: Settings) -> Rule:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": settings.span(self.hold)} if self.hold else {}),
            **({"keep_firing_for": settings.span(self.keep)} if self.keep else {}),
            # Alertmanager's inhibition rules compare `service`, which all of them carry.
            "labels": {"service": "wgkex", "severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{settings.runbook}#{self.name.lower()}",
            },
        }
