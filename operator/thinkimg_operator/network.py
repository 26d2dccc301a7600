"""What the NetworkPolicies of tools and of jobs have in common."""

from __future__ import annotations

from .kinds import Body

METADATA = {
    "0.0.0.0/0": (
        "169.254.0.0/16",  # link-local: AWS, Azure, Google, Oracle, OpenStack, Tencent, Huawei
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle's older address
    ),
    "::/0": (
        "fe80::/10",  # link-local: OpenStack
        "fd00:ec2::254/128",  # AWS
        "fd20:ce::254/128",  # Google
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd00:42::42/128",  # Scaleway
    ),
}
"""Where clouds hand out credentials, by what the addresses are excepted from. The gateway's chart has the same."""


def open_egress() -> list[Body]:
    """Egress to everything but the addresses where clouds hand out credentials.

    All pods are named beside all addresses: some agents (Cilium) do not count pods among the addresses of an ipBlock.
    Names may be asked of anybody, because a node's own DNS cache listens at a link-local address. Who wants workload
    identity adds a NetworkPolicy that lets these pods reach its address.
    """
    blocks: list[Body] = [{"ipBlock": {"cidr": all_of, "except": [*kept]}} for all_of, kept in METADATA.items()]
    return [
        {"to": [{"namespaceSelector": {}}, *blocks]},
        {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
    ]
