"""Chance is injected, so that a run with a seed writes the same history twice.

uids, name suffixes, tokens and jitter all come from one `Ids`. Keys and certificates do not: those are in
`base.pki` and always use the system's generator.
"""

from __future__ import annotations

import random
import secrets

# The alphabet of generated names: no vowels and no look-alikes, so that no word appears by accident.
SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Ids:
    """A source of identity and chance; `seed=None` takes the system's entropy."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(secrets.randbits(128) if seed is None else seed)

    def uid(self) -> str:
        """A random (version 4) UUID for `metadata.uid`."""
        digits = f"{self._random.getrandbits(128):032x}"
        variant = "89ab"[int(digits[16], 16) & 3]  # RFC 9562, section 4.1
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def suffix(self, length: int = 5) -> str:
        """The random end of a generated name (`metadata.generateName`)."""
        return "".join(self._random.choices(SUFFIX_ALPHABET, k=length))

    def jitter(self, base: float, factor: float = 0.1) -> float:
        """`base` seconds plus up to `factor` of it, so that many timers do not fire at once."""
        return base * (1.0 + self._random.random() * factor)

    def choice(self, count: int) -> int:
        """A number in [0, count)."""
        return self._random.randrange(count)
