"""The refusals that setting up a pod can end in, as the API shows them."""

from __future__ import annotations


class NotStarted(Exception):
    """Why a container waits: `reason` and `message` of its waiting state. `image`: of a volume, if it is about that."""

    def __init__(self, reason: str, message: str, image: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.image = image


class ConfigProblem(Exception):
    """A container's configuration refers to something that is not there, or contradicts itself."""

    reason = "CreateContainerConfigError"


class VolumeError(Exception):
    """A volume cannot be set up (yet); the message goes into the FailedMount event.

    `step` and `volume` are what kubelet would have been at: the name is the PersistentVolume's where there is one.
    `reason` is what a container waits for, when it shows only as the container is made.
    """

    step, volume = "MountVolume.SetUp", ""
    reason = ConfigProblem.reason
