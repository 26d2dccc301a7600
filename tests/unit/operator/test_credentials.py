"""Which proxy the operator takes to the API server."""

import pytest
from thinkimg_operator.credentials import _proxy_for

PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("https://10.96.0.1:443", "", True),
        ("https://10.96.0.1:443", "10.0.0.0/8", False),
        ("https://10.96.0.1:443", "localhost, 10.96.0.0/12 ,.svc", False),
        ("https://10.96.0.1:443", "10.96.0.1", False),
        ("https://11.96.0.1:443", "10.0.0.0/8", True),
        ("https://[fd00:10:96::1]:443", "fd00:10:96::/112", False),
        ("https://[fd00:10:96::1]:443", "10.0.0.0/8,fd01::/16", True),
        ("https://kubernetes.default.svc", ".svc,10.0.0.0/8", False),
        ("https://api.example.com:6443", "10.0.0.0/8", True),
        ("https://api.example.com:6443", "*", False),
    ],
)
def test_no_proxy_may_name_networks(url: str, no_proxy: str, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "no_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert _proxy_for(url) == (PROXY if proxied else None)
