"""Addresses that no pod of ours reaches."""

import ipaddress
import re

import yaml
from thinkimg_operator.network import METADATA, open_egress

from tests.support import REPOSITORY

GATEWAY = REPOSITORY / "charts" / "thinkimg-tools" / "templates" / "gateway.yaml"
WHERE_CLOUDS_KEEP_CREDENTIALS = [
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fe80::a9fe:a9fe",
]  # fmt: skip


def test_the_gateways_chart_keeps_out_what_the_operator_keeps_out() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"- ipBlock: (\{.*\})", GATEWAY.read_text())]
    assert {block["cidr"]: tuple(block["except"]) for block in blocks} == METADATA


def test_nowhere_do_clouds_hand_out_credentials_to_pods() -> None:
    blocks = [target["ipBlock"] for target in open_egress()[0]["to"] if "ipBlock" in target]
    kept = [ipaddress.ip_network(address) for block in blocks for address in block["except"]]
    for address in map(ipaddress.ip_address, WHERE_CLOUDS_KEEP_CREDENTIALS):
        assert any(address in network for network in kept if network.version == address.version), address
    for block in blocks:
        outer = ipaddress.ip_network(block["cidr"])
        assert all(ipaddress.ip_network(address).subnet_of(outer) for address in block["except"])
