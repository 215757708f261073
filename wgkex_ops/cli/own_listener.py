"""Where the operators' listener of a program on this host is."""

import ssl

from wgkex_ops.config import MetricsListen, load_web_config


def own_listener(listen: MetricsListen) -> tuple[str, ssl.SSLContext]:
    """Find the URL of a listener, without a slash at its end, and what a client needs for it.

    Raises:
        ConfigError: its web configuration file cannot be used.
    """
    path = listen.web_config_file
    with_tls = path is not None and load_web_config(path).tls_server_config is not None
    # On this host: its certificate is for the name that others know.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return f"{'https' if with_tls else 'http'}://{listen.on_this_host}", context
