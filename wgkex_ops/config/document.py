"""The file as it is laid out, and how a configuration is made of it."""

import functools
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, get_args

from pydantic import ConfigDict, Field

from wgkex_ops.config.models import (
    BrokerConfig,
    BrokerSection,
    CleanupConfig,
    Config,
    Listen,
    MetricsConfig,
    MqttConfig,
    Section,
    WorkerConfig,
    with_default_port,
)
from wgkex_ops.config.values import ExternalName, LoggingLevel, Name, Text, Weight
from wgkex_ops.model.domains import parse_domain


class _ListedWorker(Section, frozen=True):
    weight: Weight = 1


class _RootLogger(Section, frozen=True):
    model_config = ConfigDict(extra="ignore")

    level: LoggingLevel = None


class _LoggingConfig(Section, frozen=True):
    """A ``logging.config.dictConfig`` of the old tool: its handlers and formats have nothing to act on here."""

    model_config = ConfigDict(extra="ignore")

    root: _RootLogger = _RootLogger()


class Document(Section, frozen=True):
    """The whole file, as it is laid out."""

    domains: Annotated[list[Text], Field(min_length=1)]
    domain_prefixes: list[Text]
    workers: dict[Name, _ListedWorker] = Field(default_factory=dict)
    external_name: ExternalName = Field(default=None, validation_alias="externalName")
    mqtt: MqttConfig
    broker_listen: Annotated[Listen, with_default_port(5000)] = Listen(port=5000)
    logging_config: _LoggingConfig = _LoggingConfig()
    log_level: LoggingLevel = None
    # Absent sections are checked like empty ones: not every name of a host is one for topics.
    broker: BrokerSection = Field(default={}, validate_default=True)
    worker: WorkerConfig = Field(default={}, validate_default=True)
    cleanup: CleanupConfig = CleanupConfig()
    metrics: MetricsConfig = MetricsConfig()

    def to_config(self) -> Config:
        return Config(
            domains=tuple(parse_domain(name, self.domain_prefixes) for name in self.domains),
            workers={name: worker.weight for name, worker in self.workers.items()},
            external_name=self.external_name,
            mqtt=self.mqtt,
            broker=BrokerConfig(listen=self.broker_listen, **dict(self.broker)),
            worker=self.worker,
            cleanup=self.cleanup,
            metrics=self.metrics,
            log_level=self.log_level or self.logging_config.root.level or "info",
        )


@functools.cache
def settings() -> tuple[str, ...]:
    """List every key that the file may have, as dotted paths; ``*`` stands for the name of a worker."""
    return tuple(".".join(path) for path in _walk(Document))


def _walk(model: type[Section]) -> Iterator[tuple[str, ...]]:
    for key, info in model.fields_by_key().items():
        yield (key,)
        wildcard = ("*",) if getattr(info.annotation, "__origin__", None) is dict else ()
        for inner in _models(info.annotation):
            yield from ((key, *wildcard, *path) for path in _walk(inner))


def _models(annotation: Any) -> Iterable[type[Section]]:  # noqa: ANN401 -- any annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
