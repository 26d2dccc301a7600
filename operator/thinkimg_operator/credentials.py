"""Address of the API server, and what the operator shows it: a kubeconfig, or a pod's ServiceAccount."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio import config as credentials
from kubernetes.aio.client import Configuration


async def read_credentials(kubeconfig: Path | None = None, context: str | None = None) -> Configuration:
    """Address and credentials: a kubeconfig where there is one, else a pod's ServiceAccount."""
    configuration = Configuration()
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and not (kubeconfig or os.environ.get("KUBECONFIG"))
    if in_pod:
        credentials.load_incluster_config(client_configuration=configuration)
    else:
        file = str(kubeconfig) if kubeconfig else None
        await credentials.load_kube_config(config_file=file, context=context, client_configuration=configuration)
    # The client would ask the environment for a proxy, and .netrc for a password, in a thread for each request.
    configuration.proxy = configuration.proxy or _proxy_for(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


def _proxy_for(url: str) -> str | None:
    """What HTTPS_PROXY and NO_PROXY say of an address."""
    address, proxies = urlsplit(url), getproxies()
    host = address.hostname or ""
    if proxy_bypass(host) or _in_networks(host, proxies.get("no", "")):
        return None
    return proxies.get(address.scheme)


def _in_networks(host: str, no_proxy: str) -> bool:
    """Whether a host that is an address lies in one of the networks (`10.0.0.0/8`), which `proxy_bypass` does not
    know and an API server of a pod has no name for."""
    for entry in no_proxy.split(","):
        with suppress(ValueError):  # a name, here or there
            if ip_address(host) in ip_network(entry.strip(), strict=False):
                return True
    return False
