"""From elements to transactions: what is in force, what shall be, and the smallest change between them.

`Programmed` remembers which Service asks for which element. Two may ask for the same one (an external address with
the same port; a pod behind two Services): the first by name has it, and the other when that one goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sampan.node.network import ruleset
from sampan.node.network.expressions import FAMILIES, Family, goto
from sampan.node.network.nftables import Transaction
from sampan.node.network.ruleset import Balance, Config
from sampan.node.network.services import Element, Entries

Value = Balance | bytes | None


@dataclass(slots=True)
class Delta:
    """`removed` holds the former value; an element with another value is in both."""

    added: dict[Element, Value] = field(default_factory=dict)
    removed: dict[Element, Value] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


def diff(old: Mapping[Element, Value], new: Mapping[Element, Value]) -> Delta:
    """The element operations that lead from one state to the other."""
    delta = Delta()
    for element, value in old.items():
        if element not in new or new[element] != value:
            delta.removed[element] = value
    for element, value in new.items():
        if element not in old or old[element] != value:
            delta.added[element] = value
    return delta


class Programmed:
    """What the kernel has been told, by Service."""

    def __init__(self) -> None:
        self.by_service: dict[str, Entries] = {}
        self._claims: dict[Element, dict[str, Value]] = {}

    def effective(self) -> dict[Element, Value]:
        return {element: claims[min(claims)] for element, claims in self._claims.items()}

    def __contains__(self, element: Element) -> bool:
        return element in self._claims

    def value(self, element: Element) -> Value:
        """What is in force for it; None also for one that is not there."""
        claims = self._claims.get(element)
        return claims[min(claims)] if claims else None

    def lost(self, service: str) -> Iterable[tuple[Element, str]]:
        """The elements a Service asks for that another has, and who that is."""
        for element in self.by_service.get(service, ()):
            owner = min(self._claims[element])
            if owner != service:
                yield element, owner

    def change(self, wanted: Mapping[str, Entries]) -> Delta:
        """Takes over the new elements of some Services (none: it is gone) and gives what that means for the kernel."""
        touched: dict[Element, tuple[bool, Value]] = {}
        for service, new in wanted.items():
            old = self.by_service.get(service, {})
            delta = diff(old, new)
            for element in delta.removed:
                self._touch(touched, element)
                claims = self._claims[element]
                del claims[service]
                if not claims:
                    del self._claims[element]
            for element, value in delta.added.items():
                self._touch(touched, element)
                self._claims.setdefault(element, {})[service] = value
            if new:
                self.by_service[service] = new
            else:
                self.by_service.pop(service, None)
        return self._outcome(touched)

    def _touch(self, touched: dict[Element, tuple[bool, Value]], element: Element) -> None:
        if element not in touched:
            claims = self._claims.get(element)
            touched[element] = (True, claims[min(claims)]) if claims else (False, None)

    def _outcome(self, touched: Mapping[Element, tuple[bool, Value]]) -> Delta:
        delta = Delta()
        for element, (existed, before) in touched.items():
            claims = self._claims.get(element)
            after = claims[min(claims)] if claims else None
            if existed and (not claims or after != before):
                delta.removed[element] = before
            if claims and (not existed or after != before):
                delta.added[element] = after
        return delta


def transaction(
    delta: Delta, config: Config, known: Mapping[int, set[Balance]]
) -> tuple[Transaction, list[set[Balance]]]:
    """The change as netlink messages, and for each family the balances it makes that were not `known`."""
    result = Transaction(FAMILIES[0], config.table)
    made = []
    for family in FAMILIES:
        changes = Transaction(family, config.table)
        balances = _balances(family, delta.added) - known[family.version]
        _add_balances(changes, family, balances)
        for name, elements in _grouped(family, delta.removed).items():
            changes.delete_elements(name, elements)
        for name, elements in _grouped(family, delta.added).items():
            changes.add_elements(name, elements)
        made.append(balances)
        result.merge(changes)
    return result, made


def whole(effective: Mapping[Element, Value], config: Config) -> tuple[Transaction, list[set[Balance]]]:
    """Everything anew, in place of whatever the table holds: at start, and when somebody has damaged it."""
    result = Transaction(FAMILIES[0], config.table)
    made = []
    for family in FAMILIES:
        changes = Transaction(family, config.table)
        changes.fresh_table()
        for spec in ruleset.sets(family):
            changes.add_set(spec)
        chains = ruleset.chains(family, config)
        # Chains without a hook first: rules may point to them; those with a hook come into force last.
        ordered = sorted(chains, key=lambda chain: chain.hook is not None)
        for chain in ordered:
            changes.add_chain(chain)
        balances = _balances(family, effective)
        _add_balances(changes, family, balances)
        for name, elements in _grouped(family, effective).items():
            changes.add_elements(name, elements)
        for chain in ordered:
            changes.add_rules(chain)
        made.append(balances)
        result.merge(changes)
    return result, made


def _balances(family: Family, elements: Mapping[Element, Value]) -> set[Balance]:
    found = {v for e, v in elements.items() if isinstance(v, Balance) and e.version == family.version}
    return found | {balance.without_sources() for balance in found}


def _add_balances(changes: Transaction, family: Family, balances: Iterable[Balance]) -> None:
    ordered = sorted(balances, key=lambda b: (bool(b.sources), b.chain))
    for balance in ordered:
        changes.add_chain(ruleset.balance_chain(family, balance))
    for balance in ordered:
        changes.add_rules(ruleset.balance_chain(family, balance))
    changes.add_elements(ruleset.BALANCES, {b.number: goto(b.chain) for b in ordered})


def _grouped(family: Family, elements: Mapping[Element, Value]) -> dict[str, dict[bytes, bytes | None]]:
    """Set name -> key -> encoded value."""
    result: dict[str, dict[bytes, bytes | None]] = {}
    for (version, name, key), value in elements.items():
        if version == family.version:
            encoded = value.number if isinstance(value, Balance) else value
            result.setdefault(name, {})[key] = encoded
    return result
