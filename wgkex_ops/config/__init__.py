"""The configuration: one YAML file for broker, worker and canary, read once and frozen.

The layout of the file is that of the older wgkex: a file written for it works unchanged.
"""

from wgkex_ops.config.environment import by_variable, environment_text
from wgkex_ops.config.fields import LogLevel, broker_url
from wgkex_ops.config.key_lists import load_key_lists, parse_key_lists
from wgkex_ops.config.limits import MAX_PEERS
from wgkex_ops.config.loader import DEFAULT_PATH, ENVIRONMENT_VARIABLE, config_path, file_version, load, parse
from wgkex_ops.config.model import CleanupConfig, Config, MetricsListen, settings
from wgkex_ops.config.mqtt import MqttConfig, TlsConfig
from wgkex_ops.config.section import Listen
from wgkex_ops.config.tls import ServerTls
from wgkex_ops.config.warnings import warnings
from wgkex_ops.config.web import WebConfig, load_web_config

__all__ = [
    "DEFAULT_PATH",
    "ENVIRONMENT_VARIABLE",
    "MAX_PEERS",
    "CleanupConfig",
    "Config",
    "Listen",
    "LogLevel",
    "MetricsListen",
    "MqttConfig",
    "ServerTls",
    "TlsConfig",
    "WebConfig",
    "broker_url",
    "by_variable",
    "config_path",
    "environment_text",
    "file_version",
    "load",
    "load_key_lists",
    "load_web_config",
    "parse",
    "parse_key_lists",
    "settings",
    "warnings",
]
