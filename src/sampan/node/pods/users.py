"""Who a container runs as: names of its image become numbers, and where that user's home is."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.node.images import users
from sampan.node.pods.problems import ConfigProblem
from sampan.node.runtime import Image


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers, supplementary groups of the image, and the home directory ("" when unknown)."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


def look_up(image: Image, user: str) -> Identity:
    """The identity of an image's `User` ("", "name", "1000", "name:group", "1000:1000"). Blocking.

    Raises ConfigProblem when a name is unknown.
    """
    try:
        uid, gid, groups = users.resolve(image, user)
    except ValueError as error:
        raise ConfigProblem(str(error)) from error
    return Identity(uid, gid, tuple(groups), users.home(image, uid))
