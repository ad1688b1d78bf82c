"""Getting the images of containers and image volumes, by their pull policy, with the events people look for when it fails."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import orjson

from sampan.base.objects import Object
from sampan.node.pods.problems import NotStarted
from sampan.node.runtime import Image, ImageError

if TYPE_CHECKING:
    from sampan.node.pods.driver import PodDriver

# The reference grammar of the distribution project: [host[:port]/]path[:tag][@digest]
_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,})?"
)


def default_policy(policy: str | None, ref: str) -> str:
    """The server defaults pull policies; this is for static pods."""
    if policy:
        return policy
    tag = ref.rpartition("/")[2]
    return "Always" if "@" not in ref and (":" not in tag or tag.endswith(":latest")) else "IfNotPresent"


async def ensure_image(driver: PodDriver, container: Object) -> Image:
    """A container's image, present on this machine. Raises NotStarted with the reason a waiting container shows."""
    name = container["name"]
    try:
        return await _ensure(driver, container.get("image", ""), container.get("imagePullPolicy"), name)
    except NotStarted as error:
        driver.record("Warning", "Failed", f"Error: {error.reason}", name)
        raise


async def ensure_volumes(driver: PodDriver, container: Object) -> dict[str, Image]:
    """The images of the image volumes a container mounts, by volume name (KEP-4639). Raises NotStarted.

    What nobody mounts keeps nobody waiting. Their events are the pod's: a volume is no container's own.
    """
    mounted = {mount["name"] for mount in container.get("volumeMounts") or ()}
    found = {}
    for volume in driver.pod["spec"].get("volumes") or ():
        source = volume.get("image")
        if source is None or volume["name"] not in mounted:
            continue
        ref = source.get("reference", "")
        try:
            found[volume["name"]] = await _ensure(driver, ref, source.get("pullPolicy"))
        except NotStarted as error:
            driver.record("Warning", "Failed", f"Error: {error.reason}", container["name"])
            raise NotStarted(error.reason, error.message, ref) from error
    return found


async def _ensure(driver: PodDriver, ref: str, policy: str | None, about: str = "") -> Image:
    """`about`: the container that the events are about, "" for the pod."""
    kit = driver.kit
    if not _REFERENCE.fullmatch(ref):
        text = f'Failed to apply default image tag "{ref}": couldn\'t parse image name "{ref}": invalid reference format'
        driver.record("Warning", "InspectFailed", text, about)
        raise NotStarted("InvalidImageName", text)
    policy = default_policy(policy, ref)
    if policy != "Always":
        image = await kit.images.find(ref)
        if image is not None and (
            await kit.images.allows(image, ref)
            or await kit.images.allows(image, ref, await _credentials(driver))
        ):
            text = f'Container image "{ref}" already present on machine and can be accessed by the pod'
            driver.record("Normal", "Pulled", text, about)
            return image
        if policy == "Never":
            text = f'Container image "{ref}" is not present with pull policy of Never'
            if image is not None:
                text = (
                    f'Container image "{ref}" is present with pull policy of Never but does not have the proper '
                    "credentials to access the image"
                )
            driver.record("Warning", "ErrImageNeverPull", text, about)
            raise NotStarted("ErrImageNeverPull", text)
    return await _pull(driver, ref, about)


async def _pull(driver: PodDriver, ref: str, about: str) -> Image:
    kit = driver.kit
    driver.record("Normal", "Pulling", f'Pulling image "{ref}"', about)
    begun = kit.clock.monotonic()
    try:
        image = await kit.images.pull(ref, await _credentials(driver))
    except ImageError as error:
        driver.record("Warning", "Failed", f'Failed to pull image "{ref}": {error.message}', about)
        raise NotStarted(error.reason, error.message) from error
    kit.images_changed()
    took = _took(kit.clock.monotonic() - begun)
    text = f'Successfully pulled image "{ref}" in {took} ({took} including waiting). Image size: {image.size} bytes.'
    driver.record("Normal", "Pulled", text, about)
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
