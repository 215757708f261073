"""Importing does nothing: no I/O, no registration, no thread, no changed signal."""

import json
import subprocess
import sys
from typing import Any, Final

import pytest

# The first import of everything also imports the libraries; the second one runs our modules alone, under an audit hook.
SCRIPT: Final = """
import importlib, json, pkgutil, signal, sys, threading

import prometheus_client
import wgkex_ops

names = ["wgkex_ops", *(found.name for found in pkgutil.walk_packages(wgkex_ops.__path__, "wgkex_ops."))]
for name in names:
    importlib.import_module(name)

def own(name):
    return name == "wgkex_ops" or name.startswith("wgkex_ops.")

for name in list(filter(own, sys.modules)):
    del sys.modules[name]
signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
def registered():
    return sorted(metric.name for metric in prometheus_client.REGISTRY.collect())

registered_before = registered()
suspicious = []
watching = True

def watch(event, arguments):
    if not watching:
        return
    if event == "open":
        path, mode, flags = arguments
        # The import system reads source and byte code.
        if str(path).endswith((".py", ".pyc")) and mode in (None, "r", "rb"):
            return
        suspicious.append([event, str(path)])
    elif event.startswith(("socket.", "subprocess.", "os.", "shutil.", "tempfile.", "signal.")):
        # It also looks into directories.
        if event != "os.listdir":
            suspicious.append([event, str(arguments)])

sys.dont_write_bytecode = True
sys.addaudithook(watch)
for name in names:
    importlib.import_module(name)
watching = False
print(json.dumps({
    "modules": names,
    "suspicious": suspicious,
    "registered before": registered_before,
    "registered": registered(),
    "threads": threading.active_count(),
    "signals changed": {n: signal.getsignal(n) for n in signal.valid_signals()} != signals,
    "log handlers": len(__import__("logging").getLogger().handlers),
}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_module_is_imported(imported: dict[str, Any]) -> None:
    assert {"wgkex_ops.__main__", "wgkex_ops.http.public.app", "wgkex_ops.consumer.dataplane.kernel"} <= set(
        imported["modules"]
    )


def test_import_opens_no_file_and_no_socket_and_starts_nothing(imported: dict[str, Any]) -> None:
    assert imported["suspicious"] == []
    assert imported["threads"] == 1


def test_import_registers_nothing_in_the_global_registry(imported: dict[str, Any]) -> None:
    # The client library itself puts the process, the platform and the garbage collector there.
    assert all(name.startswith(("process_", "python_")) for name in imported["registered"])
    assert imported["registered"] == imported["registered before"]


def test_import_leaves_signals_and_logging_alone(imported: dict[str, Any]) -> None:
    assert not imported["signals changed"]
    assert imported["log handlers"] == 0
