"""Who may use the operators' listener: names of hosts, users, and the headers that each response has."""

import asyncio
import base64
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import bcrypt
import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.helpers import Answer, send
from wgkex_ops.config import Listen, MetricsListen
from wgkex_ops.errors import ConfigError
from wgkex_ops.http.operator.access import Access
from wgkex_ops.http.operator.listener import OperatorPages, create_operator_app
from wgkex_ops.http.operator.page.parts import Page
from wgkex_ops.http.server import serve

PATHS: Final = ("/", "/metrics", "/-/ready", "/-/healthy")


async def a_page() -> Page:
    return Page(component="worker", name="gw04", now=0.0, problems=[], facts={})


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def authorization(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@contextlib.asynccontextmanager
async def serving(
    *, allowed_hosts: tuple[str, ...] = (), names: tuple[str, ...] = (), web: Path | None = None
) -> AsyncIterator[Listen]:
    listen = MetricsListen(port=0, allowed_hosts=allowed_hosts, web_config_file=web)
    access = Access(listen, setting="worker.metrics_listen", names=names)
    pages = OperatorPages(registry=CollectorRegistry(), problems=list, page=a_page)
    async with serve(create_operator_app(pages, access), listen) as where:
        yield where


async def get(
    listen: Listen, path: str = "/-/healthy", *headers: str, host: str = "127.0.0.1", method: str = "GET"
) -> Answer:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    return await send(listen, "\r\n".join([*lines, "", ""]).encode())


@pytest.fixture(autouse=True)
def full_name(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the resolver has for this host, and how often it was asked."""
    asked: list[int] = []

    def getfqdn() -> str:
        asked.append(threading.get_ident())
        return "gw04.In.example.net"

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    monkeypatch.setattr(socket, "gethostname", lambda: "gw04")
    return asked


# --- names


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:9691",
        "[::1]",
        "[::1]:9691",
        "[fe80::1%25eth0]:9691",
        "192.0.2.4:9691",
        "localhost",
        "LocalHost:9691",
        "localhost.",
        "gw04",
        "gw04:9691",
        "gw04.in.example.net",
        "gw04.IN.example.net.:9691",
        "gw04.example.net",
        "monitoring-name:80",
        "",
    ],
)
async def test_addresses_and_own_and_listed_names_are_served(host: str) -> None:
    async with serving(allowed_hosts=("Monitoring-name",), names=("gw04.example.net",)) as listen:
        assert (await get(listen, host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9691",
        "gw04.evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::1].evil.example",
        "::1",
        "[evil.example]",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "xn--localhost",
    ],
)
async def test_any_other_name_is_421_that_names_the_setting_on_every_path(host: str) -> None:
    async with serving() as listen:
        for path in (*PATHS, "/nothing"):
            answer = await get(listen, path, host=host)
            assert answer.status == 421
            assert b"worker.metrics_listen.allowed_hosts" in answer.body


async def test_the_resolver_is_asked_off_the_loop_and_not_for_each_name(full_name: list[int]) -> None:
    async with serving() as listen:
        assert (await get(listen)).status == 200
        assert full_name == []
        for number in range(10):
            assert (await get(listen, host=f"evil{number}.example")).status == 421
        assert (await get(listen, host="gw04.in.example.net")).status == 200
    assert len(full_name) == 1
    assert threading.get_ident() not in full_name


async def test_a_client_of_http_1_0_without_a_host_is_served() -> None:
    async with serving() as listen:
        assert (await send(listen, b"GET /-/healthy HTTP/1.0\r\n\r\n")).status == 200


# --- methods and headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_only_reading_is_allowed(method: str) -> None:
    async with serving() as listen:
        for path in PATHS:
            answer = await get(listen, path, method=method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET,HEAD")


async def test_every_response_forbids_browsers_to_guess_and_to_load(tmp_path: Path) -> None:
    async with serving(web=a_web_file(tmp_path, {"alice": "secret"})) as listen:
        right = authorization("alice", "secret")
        requests = [
            *(get(listen, path, right) for path in (*PATHS, "/nothing")),
            get(listen, "/metrics", right, method="POST"),
            get(listen, "/"),
            get(listen, "/", host="evil.example"),
        ]
        answers = [await each for each in requests]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 405, 401, 421]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; ")
            assert "frame-ancestors 'none'" in policy


async def test_headers_of_the_web_configuration_are_added_and_win(tmp_path: Path) -> None:
    web = a_web_file(tmp_path, {})
    web.write_text("http_server_config: {headers: {X-Frame-Options: deny, Content-Security-Policy: sandbox}}")
    async with serving(web=web) as listen:
        for path in ("/", "/nothing"):
            headers = (await get(listen, path)).headers
            assert (headers["x-frame-options"], headers["content-security-policy"]) == ("deny", "sandbox")


# --- users


def a_web_file(folder: Path, users: Mapping[str, str]) -> Path:
    path = folder / "web.yaml"
    lines = [f"  {user}: {hashed(password)}\n" for user, password in users.items()]
    path.write_text(f"basic_auth_users:\n{''.join(lines)}")
    return path


@pytest.fixture
async def protected(tmp_path: Path) -> AsyncIterator[Listen]:
    async with serving(web=a_web_file(tmp_path, {"alice": "correct horse", "bob": "pässword:x"})) as listen:
        yield listen


async def test_users_get_through_with_their_password(protected: Listen) -> None:
    for user, password in (("alice", "correct horse"), ("bob", "pässword:x")):
        for path in PATHS:
            assert (await get(protected, path, authorization(user, password))).status == 200
    assert (await get(protected, "/", authorization("alice", "correct horse").replace("Basic", "bAsIc"))).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "X-None: x",
        authorization("alice", "wrong"),
        authorization("alice", ""),
        authorization("alice", "correct horse "),
        authorization("alice", "pässword:x"),
        authorization("Alice", "correct horse"),
        authorization("mallory", "correct horse"),
        authorization("", "correct horse"),
        authorization("", ""),
        authorization("alice", "x" * 73),
        authorization("alice", "correct horse\0"),
        authorization("alice", "correct horse").replace("Basic ", "Bearer "),
        authorization("alice", "correct horse").replace("Basic ", "Basic  "),
        "Authorization: Basic",
        "Authorization: Basic ====",
        "Authorization: Basic YWxpY2U=",
        "Authorization: Basic /zp4",  # no UTF-8
    ],
    ids=lambda value: value[:50],
)
async def test_everybody_else_is_401_on_every_path(protected: Listen, header: str) -> None:
    for path in (*PATHS, "/nothing"):
        answer = await get(protected, path, header)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="wgkex-ops", charset="UTF-8"')


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int]]:
    """The hashes that passwords were compared with, and in which thread."""
    made: list[tuple[bytes, int]] = []
    real = bcrypt.checkpw

    def checkpw(password: bytes, wanted: bytes) -> bool:
        made.append((wanted, threading.get_ident()))
        return real(password, wanted)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    return made


async def test_a_password_that_fits_is_compared_once_and_off_the_loop(
    protected: Listen, comparisons: list[tuple[bytes, int]]
) -> None:
    for _ in range(5):
        assert (await get(protected, "/", authorization("alice", "correct horse"))).status == 200
    assert len(comparisons) == 1
    assert comparisons[0][1] != threading.get_ident()
    # What does not fit is compared each time.
    for _ in range(3):
        assert (await get(protected, "/", authorization("alice", "wrong"))).status == 401
    assert len(comparisons) == 4


async def test_an_unknown_user_takes_the_same_comparison(
    protected: Listen, comparisons: list[tuple[bytes, int]]
) -> None:
    for user in ("mallory", "alice"):
        assert (await get(protected, "/", authorization(user, "wrong"))).status == 401
    assert comparisons[0][0] == comparisons[1][0]


async def test_tried_passwords_are_compared_one_at_a_time_and_hold_up_no_known_user(
    protected: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = authorization("alice", "correct horse")
    assert (await get(protected, "/", right)).status == 200
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(_password: bytes, _wanted: bytes) -> bool:
        begun.release()
        assert go_on.wait(60)
        return False

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    async with asyncio.TaskGroup() as group:
        tried = [group.create_task(get(protected, "/", authorization("alice", f"try {n}"))) for n in range(5)]
        assert await asyncio.to_thread(begun.acquire, timeout=60)
        assert (await get(protected, "/", right)).status == 200
        assert not begun.acquire(blocking=False)
        go_on.set()
    assert [each.result().status for each in tried] == [401] * 5


# --- changes of the file


async def test_users_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    web = a_web_file(tmp_path, {"alice": "old", "bob": "bob's"})
    async with serving(web=web) as listen:
        assert (await get(listen, "/", authorization("alice", "old"))).status == 200
        assert (await get(listen, "/", authorization("bob", "bob's"))).status == 200
        a_web_file(tmp_path, {"alice": "new password"})
        for user, password, status in (("alice", "old", 401), ("bob", "bob's", 401), ("alice", "new password", 200)):
            assert (await get(listen, "/", authorization(user, password))).status == status
        a_web_file(tmp_path, {})
        assert (await get(listen, "/")).status == 200


@pytest.mark.parametrize("damage", ["gone", "incomplete", "no hash"])
async def test_a_damaged_file_leaves_the_users_as_they_were_and_is_logged_once(tmp_path: Path, damage: str) -> None:
    web = a_web_file(tmp_path, {"alice": "secret"})
    content = web.read_text()
    async with serving(web=web) as listen:
        if damage == "gone":
            web.unlink()
        else:
            web.write_text(content[:-10] if damage == "incomplete" else "basic_auth_users: {alice: secret}")
        with structlog.testing.capture_logs() as events:
            for _ in range(3):
                assert (await get(listen, "/", authorization("alice", "secret"))).status == 200
                assert (await get(listen, "/")).status == 401
        assert [(event["event"], event["log_level"]) for event in events] == [("web_config_rejected", "error")]
        assert "secret" not in str(events)
        web.write_text(content.replace("alice", "bob"))
        assert (await get(listen, "/", authorization("alice", "secret"))).status == 401
        assert (await get(listen, "/", authorization("bob", "secret"))).status == 200


def test_a_file_with_problems_is_an_error_at_the_start(tmp_path: Path) -> None:
    web = tmp_path / "web.yaml"
    web.write_text("basic_auth_users: {alice: secret}")
    with pytest.raises(ConfigError):
        Access(MetricsListen(port=0, web_config_file=web), setting="worker.metrics_listen")
