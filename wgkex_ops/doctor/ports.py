"""The ports that a process listens on."""

import asyncio
import json

import aiohttp

from wgkex_ops.config import Config
from wgkex_ops.doctor.findings import Finding, critical, ok
from wgkex_ops.doctor.host import Host
from wgkex_ops.doctor.process import BROKER, Process

_TIMEOUT = 4.0


async def check_ports(config: Config, process: Process, host: Host) -> list[Finding]:
    """Whether nodes can reach a broker's public listener, or a broker that starts could have its port.

    The operators' listener of both roles is a part of `check_process`.
    """
    if process.role != BROKER:
        return []
    listen = config.broker_listen
    holder = await asyncio.to_thread(host.holder, listen.port)
    if holder is None:
        if not process.runs:
            return [ok("port", f"{listen} is free")]
        text = f"the broker runs, and does not listen on {listen}"
        return [critical("port", text, "restart it, if broker_listen has changed: systemctl restart wgkex-broker")]
    if await _is_broker(config.model_copy(update={"probe": config.probe.model_copy(update={"url": None})}).probe_url):
        return [ok("port", f"a broker listens on {listen}")]
    who = f"{holder[1]} (process {holder[0]})" if holder[1] else "another program (run this as root to see which one)"
    text = f"broker_listen: {who} has port {listen.port}, and is no broker"
    return [critical("port", text, "end that program, or set another port in broker_listen and in the load balancer")]


async def _is_broker(url: str) -> bool:
    try:
        async with (
            # It is this host, and gets no secret.
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT), connector=aiohttp.TCPConnector(ssl=False)
            ) as client,
            client.get(f"{url}/api", allow_redirects=False) as response,
        ):
            found = json.loads(await response.text())
    except (aiohttp.ClientError, OSError, ValueError):
        return False
    return isinstance(found, dict) and bool({"ready", "error"} & found.keys())
