"""What is scraped: one job of Prometheus for each program."""

from dataclasses import dataclass

from alerts.settings import Settings
from wgkex_ops.config import Listen
from wgkex_ops.config.model import BrokerConfig, ProbeConfig, WorkerConfig


@dataclass(frozen=True, slots=True)
class Job:
    """The processes of one program.

    Attributes:
        component: its command: `wgkex-ops broker`.
        name: `job` in Prometheus; the rules select by it.
        listen: where it serves `/metrics`, unless its `metrics_listen` sets another address.
    """

    component: str
    name: str
    listen: Listen


def jobs(settings: Settings) -> tuple[Job, ...]:
    """All jobs, with the addresses that the configuration has by default."""
    sections = (
        ("broker", settings.broker_job, BrokerConfig),
        ("worker", settings.worker_job, WorkerConfig),
        ("probe", settings.probe_job, ProbeConfig),
    )
    return tuple(
        Job(component, name, section.model_fields["metrics_listen"].default) for component, name, section in sections
    )
