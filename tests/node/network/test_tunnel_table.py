"""Who is behind which machine, as the Nodes tell it."""

from __future__ import annotations

from typing import Any

from sampan.node.network import fabric
from sampan.node.network.tunnel_table import wanted

FIRST, SECOND, THIRD = "192.0.2.1", "192.0.2.2", "192.0.2.3"
HOST = "10.89.7.1"
ALL = "00:00:00:00:00:00"


def node(name: str, address: str, machine: str = "", host: str = "") -> dict[str, Any]:
    notes = {"sampan.dev/machine-address": machine, "sampan.dev/machine-host": host} if machine else {}
    status = {"addresses": [{"type": "InternalIP", "address": address}] if address else []}
    return {"metadata": {"name": name, "annotations": notes}, "status": status}


NODES = [
    node("node-1", "10.89.7.2"),
    node("second", "10.89.7.101", SECOND, "10.89.7.102"),
    node("third", "10.89.7.103", THIRD, "10.89.7.104"),
]


def test_the_first_machine_knows_those_that_have_joined() -> None:
    assert wanted(NODES, FIRST, FIRST, HOST) == {
        (fabric.mac("10.89.7.101"), SECOND),
        (fabric.mac("10.89.7.102"), SECOND),
        (fabric.mac("10.89.7.103"), THIRD),
        (fabric.mac("10.89.7.104"), THIRD),
        (ALL, SECOND),
        (ALL, THIRD),
    }


def test_another_one_knows_the_first_and_its_nodes() -> None:
    assert wanted(NODES, SECOND, FIRST, HOST) == {
        (fabric.mac(HOST), FIRST),
        (fabric.mac("10.89.7.2"), FIRST),
        (fabric.mac("10.89.7.103"), THIRD),
        (fabric.mac("10.89.7.104"), THIRD),
        (ALL, FIRST),
        (ALL, THIRD),
    }


def test_before_any_node_is_known_the_first_machine_is() -> None:
    assert wanted([], SECOND, FIRST, HOST) == {(fabric.mac(HOST), FIRST), (ALL, FIRST)}


def test_a_node_that_has_no_address_yet_is_asked_for() -> None:
    found = wanted([node("new", "", SECOND, "10.89.7.102")], FIRST, FIRST, HOST)
    assert found == {(fabric.mac("10.89.7.102"), SECOND), (ALL, SECOND)}
