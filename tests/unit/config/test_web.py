"""The web configuration file, in the format of Prometheus' exporters."""

import re
from pathlib import Path
from typing import Final

import pytest

from wgkex_ops.config import load_web_config
from wgkex_ops.errors import ConfigError

# Examples of the exporter-toolkit's documentation, made with htpasswd.
HASH: Final = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS: Final = "cert_file: server.crt, key_file: server.key"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    for name in ("server.crt", "server.key", "ca.crt"):
        (tmp_path / name).touch()
    return tmp_path / "web.yaml"


def problems(path: Path, text: str) -> list[str]:
    """What is wrong, without the file's name."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_web_config(path)
    return [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]


def test_a_file_of_an_exporter_is_read(web: Path) -> None:
    web.write_text(f"""
tls_server_config:
  cert_file: server.crt
  key_file: {web.parent}/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS13
http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: {HASH}
""")
    config = load_web_config(web)
    # Relative paths start at the folder of the file.
    assert config.files == [web.parent / name for name in ("server.crt", "server.key", "ca.crt")]
    assert config.basic_auth_users == {"alice": HASH}
    assert config.http_server_config.headers == {"Strict-Transport-Security": "max-age=31536000"}
    assert HASH not in repr(config)


@pytest.mark.parametrize("text", ["basic_auth_users:", "tls_server_config:", "http_server_config: {}", "{}"])
def test_each_part_may_be_missing(web: Path, text: str) -> None:
    web.write_text(text)
    config = load_web_config(web)
    assert (config.ssl_context(web), config.basic_auth_users, config.files) == (None, {}, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tls_server_config: {cert_file: server.crt}", "tls_server_config.key_file (line 1): is missing"),
        (
            "tls_server_config: {cert_file: nothing.crt, key_file: server.key}",
            "tls_server_config.cert_file (line 1): should be the path of a file",
        ),
        (
            f"tls_server_config: {{{TLS}, client_auth_type: RequireAnyClientCert}}",
            "tls_server_config.client_auth_type (line 1): should be 'NoClientCert', 'VerifyClientCertIfGiven' or",
        ),
        *(
            (
                f"tls_server_config: {{{TLS}, {half}}}",
                "tls_server_config (line 1): needs both or none of client_ca_file and a client_auth_type that",
            )
            for half in ("client_ca_file: ca.crt", "client_auth_type: RequireAndVerifyClientCert")
        ),
        (
            f"tls_server_config: {{{TLS}, min_version: TLS10}}",
            "tls_server_config.min_version (line 1): should be 'TLS12' or 'TLS13'",
        ),
        (
            f"tls_server_config: {{{TLS}, min_version: TLS13, max_version: TLS12}}",
            "tls_server_config (line 1): has a min_version above max_version",
        ),
        (
            f"tls_server_config: {{{TLS}, cipher_suites: [TLS_AES_128_GCM_SHA256]}}",
            "tls_server_config.cipher_suites (line 1): unknown key; known here: cert_file, key_file,",
        ),
        (
            "rate_limit: {burst: 1}",
            "rate_limit (line 1): unknown key; known here: tls_server_config, http_server_config, basic_auth_users",
        ),
        ("http_server_config: {http2: true}", "http_server_config.http2 (line 1): should be False"),
        (
            "http_server_config: {headers: {X-Other: x}}",
            "http_server_config.headers.X-Other (line 1): should be 'Content-Security-Policy',",
        ),
        (
            'http_server_config: {headers: {X-Frame-Options: "a\\r\\nSet-Cookie: x"}}',
            "http_server_config.headers.X-Frame-Options (line 1): should be printable ASCII",
        ),
        *(
            (
                f"basic_auth_users: {{alice: {wrong}}}",
                "basic_auth_users.alice (line 1): should be a bcrypt hash, as `htpasswd -nBC 10 NAME` prints it",
            )
            for wrong in ("correct horse", HASH[:-1], HASH + "x", HASH.replace("$10$", "$32$"), f'"{HASH}\\n"')
        ),
        ("basic_auth_users: [alice]", "basic_auth_users (line 1): should be a mapping of settings"),
        ("", "is empty"),
    ],
    ids=lambda value: value[:70] if isinstance(value, str) else "",
)
def test_problems_are_named_and_no_secret_is_shown(web: Path, text: str, expected: str) -> None:
    (problem,) = problems(web, text)
    assert problem.startswith(expected)
    assert not {"horse", HASH[:-1], "Set-Cookie"} & set(re.split(r"[ \"]", problem))


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"web.yaml: does not exist$"):
        load_web_config(tmp_path / "web.yaml")


def test_files_that_are_no_certificate_are_a_problem(web: Path) -> None:
    web.write_text(f"tls_server_config: {{{TLS}}}")
    with pytest.raises(ConfigError, match=f"^{web}: tls_server_config: its files cannot be used: "):
        load_web_config(web).ssl_context(web)
