"""What the monitoring mixin has of the rules; `deploy/mixin/mixin.libsonnet` around it is written by hand.

It is JSON, because jsonnet 0.18 cannot read YAML with texts of several lines.
"""

import json

from alerts.jobs import jobs
from alerts.rules import groups
from alerts.settings import Settings


def rules(settings: Settings) -> str:
    """The rules, and those names in them that the mixin can replace."""
    config = {"jobs": {job.component: job.name for job in jobs(settings)}, "runbook": settings.runbook}
    return json.dumps({"config": config, "groups": groups(settings)}, indent=2, ensure_ascii=False) + "\n"
