"""What the NetworkPolicies of tools and of jobs have in common."""

from __future__ import annotations

from .kinds import Body


def open_egress() -> list[Body]:
    """Egress to everything but link-local addresses, where clouds keep credentials.

    All pods are named beside all addresses: some agents (Cilium) do not count pods among the addresses of an ipBlock.
    Names may be asked of anybody, because a node's own DNS cache listens at a link-local address.
    """
    return [
        {
            "to": [
                {"namespaceSelector": {}},
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
                {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]}},
            ]
        },
        {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
    ]
