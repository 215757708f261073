"""Manifests for the Prometheus Operator: the rules, and what to scrape.

The fields are those of its API reference: PrometheusRule and ServiceMonitor of `monitoring.coreos.com/v1`, ScrapeConfig
of `v1alpha1`. The operator has all fields that are used since its version 0.70.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from alerts.jobs import Job, jobs
from alerts.rules import groups
from alerts.settings import Settings
from alerts.text import as_yaml, spaced

# As in prometheus.yaml.example: the rules need a scrape every 30 s or faster.
INTERVAL: Final = "15s"
PATH: Final = "/metrics"
# Of the Services that a ServiceMonitor selects.
PORT_NAME: Final = "metrics"
APPLICATION: Final = "wgkex-ops"

_MADE: Final = "# Made by `python -m alerts` from alerts/*.py; do not edit."
_RULES_HEAD: Final = f"""\
{_MADE} The rules are those of alerts/wgkex.rules.yaml.
# The operator takes it if the `ruleSelector` of its Prometheus matches these labels: the chart kube-prometheus-stack
# wants `release: NAME` beside them. Helm would evaluate the braces in the annotations: keep this out of `templates/`.
"""
_SERVICES_HEAD: Final = f"""\
{_MADE}
# For processes that run in the cluster. Each ServiceMonitor needs a Service with its labels and a port with the name
# `{PORT_NAME}`, and `metrics_listen` must set an address that Prometheus reaches. The rules select by `job`, which
# would be the name of the Service. Use this file or scrapeconfig.yaml for a program, never both. Leave out what you do
# not have, such as a canary (wgkex-probe). TLS and passwords: see docs/stacks.md.
"""
_HOSTS_HEAD: Final = f"""\
{_MADE}
# For processes on hosts outside of the cluster. Copy it, and put your hosts in place of the examples under `targets`.
# The Prometheus of the operator needs a `scrapeConfigSelector` that matches these labels. Leave out what you do not
# have, such as a canary (wgkex-probe). Names that are not the hosts' own ones belong into their setting
# `metrics_listen.allowed_hosts`. TLS and passwords: see docs/stacks.md.
"""


def manifests(settings: Settings) -> Mapping[str, str]:
    """The text of each file, by name."""
    all_jobs = jobs(settings)
    return {
        "prometheusrule.yaml": _RULES_HEAD + spaced(as_yaml(_prometheus_rule(settings))),
        "servicemonitor.yaml": _SERVICES_HEAD + _documents(_service_monitor(job) for job in all_jobs),
        "scrapeconfig.yaml": _HOSTS_HEAD + _documents(_scrape_config(job) for job in all_jobs),
    }


def _documents(objects: Iterable[Mapping[str, object]]) -> str:
    return "---\n".join(map(as_yaml, objects))


def _manifest(version: str, kind: str, name: str, spec: Mapping[str, object]) -> Mapping[str, object]:
    return {
        "apiVersion": f"monitoring.coreos.com/{version}",
        "kind": kind,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": APPLICATION}},
        "spec": spec,
    }


def _prometheus_rule(settings: Settings) -> Mapping[str, object]:
    return _manifest("v1", "PrometheusRule", "wgkex", {"groups": groups(settings)})


def _service_monitor(job: Job) -> Mapping[str, object]:
    labels = {"app.kubernetes.io/name": APPLICATION, "app.kubernetes.io/component": job.component}
    relabelings = [{"action": "replace", "targetLabel": "job", "replacement": job.name}]
    return _manifest(
        "v1",
        "ServiceMonitor",
        f"wgkex-{job.component}",
        {
            "selector": {"matchLabels": labels},
            "endpoints": [{"port": PORT_NAME, "path": PATH, "interval": INTERVAL, "relabelings": relabelings}],
        },
    )


def _scrape_config(job: Job) -> Mapping[str, object]:
    targets = [f"{job.component}{number:02}.example.net:{job.listen.port}" for number in (1, 2)]
    return _manifest(
        "v1alpha1",
        "ScrapeConfig",
        f"wgkex-{job.component}",
        {
            # A label of a target is stronger than the name that the operator gives the job.
            "staticConfigs": [{"labels": {"job": job.name}, "targets": targets}],
            "metricsPath": PATH,
            "scrapeInterval": INTERVAL,
        },
    )
