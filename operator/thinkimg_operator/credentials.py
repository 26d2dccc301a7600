"""Address of the API server, and what the operator shows it: a kubeconfig, or a pod's ServiceAccount."""

from __future__ import annotations

import os
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
    address = urlsplit(url)
    return None if proxy_bypass(address.hostname or "") else getproxies().get(address.scheme)
