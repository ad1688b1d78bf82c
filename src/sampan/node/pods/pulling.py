"""Getting a container's image, by its pull policy, with the events people look for when it fails."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import orjson

from sampan.node.pods.problems import NotStarted
from sampan.node.runtime import Image, ImageError

if TYPE_CHECKING:
    from sampan.node.pods.driver import PodDriver

Object = dict[str, Any]
# The reference grammar of the distribution project: [host[:port]/]path[:tag][@digest]
_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,})?"
)


def default_policy(container: Object) -> str:
    """The server defaults imagePullPolicy; this is for static pods."""
    policy = container.get("imagePullPolicy")
    if policy:
        return policy
    image = container.get("image", "")
    tag = image.rpartition("/")[2]
    return "Always" if "@" not in image and (":" not in tag or tag.endswith(":latest")) else "IfNotPresent"


async def ensure_image(driver: PodDriver, container: Object) -> Image:
    """The image, present on this machine. Raises NotStarted with the reason a waiting container shows."""
    kit, name, ref = driver.kit, container["name"], container.get("image", "")
    if not _REFERENCE.fullmatch(ref):
        text = f'Failed to apply default image tag "{ref}": couldn\'t parse image name "{ref}": invalid reference format'
        driver.record("Warning", "InspectFailed", text, name)
        driver.record("Warning", "Failed", "Error: InvalidImageName", name)
        raise NotStarted("InvalidImageName", text)
    policy = default_policy(container)
    if policy != "Always":
        image = await kit.images.find(ref)
        if image is not None:
            text = f'Container image "{ref}" already present on machine and can be accessed by the pod'
            driver.record("Normal", "Pulled", text, name)
            return image
        if policy == "Never":
            text = f'Container image "{ref}" is not present with pull policy of Never'
            driver.record("Warning", "ErrImageNeverPull", text, name)
            driver.record("Warning", "Failed", "Error: ErrImageNeverPull", name)
            raise NotStarted("ErrImageNeverPull", text)
    return await _pull(driver, container, ref)


async def _pull(driver: PodDriver, container: Object, ref: str) -> Image:
    kit, name = driver.kit, container["name"]
    driver.record("Normal", "Pulling", f'Pulling image "{ref}"', name)
    begun = kit.clock.monotonic()
    try:
        image = await kit.images.pull(ref, await _credentials(driver))
    except ImageError as error:
        text = f'Failed to pull image "{ref}": {error.message}'
        driver.record("Warning", "Failed", text, name)
        driver.record("Warning", "Failed", f"Error: {error.reason}", name)
        raise NotStarted(error.reason, error.message) from error
    kit.images_changed()
    took = _took(kit.clock.monotonic() - begun)
    text = f'Successfully pulled image "{ref}" in {took} ({took} including waiting). Image size: {image.size} bytes.'
    driver.record("Normal", "Pulled", text, name)
    return image


def _took(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms" if seconds < 1 else f"{seconds:.3f}s"


async def _credentials(driver: PodDriver) -> list[Object]:
    """Registry logins of the pod's imagePullSecrets: {"registry", "username", "password", ...} as data."""
    found: list[Object] = []
    namespace = driver.pod["metadata"]["namespace"]
    for reference in driver.pod["spec"].get("imagePullSecrets") or ():
        name = reference.get("name", "")
        secret = await driver.kit.lookup("secrets", namespace, name) if name else None
        if secret is None:
            text = f"Unable to retrieve some image pull secrets ({name}); attempting to pull the image may not succeed."
            driver.record("Warning", "FailedToRetrieveImagePullSecret", text)
            continue
        found += secret_logins(secret)
    return found


def secret_logins(secret: Object) -> list[Object]:
    """The logins in a kubernetes.io/dockerconfigjson or dockercfg Secret; a broken one gives none."""
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            entries = orjson.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths") or {}
        else:
            entries = orjson.loads(base64.b64decode(data.get(".dockercfg", "e30=")))
        return [_login(registry, entry) for registry, entry in entries.items()]
    except (ValueError, AttributeError, TypeError):
        return []


def _login(registry: str, entry: Object) -> Object:
    login = {"registry": registry, **entry}
    if entry.get("auth") and "username" not in entry:
        username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        login |= {"username": username, "password": password}
    return login
