"""Identities look like those of everybody else, and a seed repeats them."""

import random
import uuid

from sampan.base.ids import Ids


def test_uids_are_random_uuids():
    ids, chance = Ids(1), random.Random(1)
    for _ in range(200):
        assert ids.uid() == str(uuid.UUID(int=chance.getrandbits(128), version=4))
