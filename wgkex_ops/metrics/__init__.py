"""Prometheus instruments. Each class takes a registry; nothing here touches the global one."""
