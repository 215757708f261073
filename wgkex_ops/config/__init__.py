"""The configuration: one YAML file for the broker and the worker, read once and frozen.

The layout of the file is that of the older wgkex: a file written for it works unchanged. What is wrong is told all at
once, each problem with its place. An empty value (``port:`` with nothing behind it) means the same as an absent one.
"""

from wgkex_ops.config.document import settings
from wgkex_ops.config.loading import DEFAULT_PATH, ENVIRONMENT_VARIABLE, config_path, load, parse
from wgkex_ops.config.models import BrokerConfig, CleanupConfig, Config, Listen, MqttConfig, TlsConfig, WorkerConfig
from wgkex_ops.config.values import LogLevel

__all__ = [
    "DEFAULT_PATH",
    "ENVIRONMENT_VARIABLE",
    "BrokerConfig",
    "CleanupConfig",
    "Config",
    "Listen",
    "LogLevel",
    "MqttConfig",
    "TlsConfig",
    "WorkerConfig",
    "config_path",
    "load",
    "parse",
    "settings",
]
