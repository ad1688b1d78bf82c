"""A container's own view of the file system: overlay, volumes, /proc, /dev, /sys, then pivot_root.

Runs in the container's new mount namespace, so that nothing has to be unmounted after a crash. The image is not trusted:
every mount target is looked up inside the new root (openat2 RESOLVE_IN_ROOT), never by a path that a link could bend.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from sampan.node.native import cgroups, syscalls, users
from sampan.node.native.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    mount,
    open_in_root,
)

_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROPAGATION = {"HostToContainer": MS_SLAVE, "Bidirectional": MS_SHARED}
_OVERLAY_MAGIC_DEVICE = "overlay"
_MOUNT_OPTIONS = 4000  # bytes; mount(2) takes a page


class VolumeError(Exception):
    """A volume of the container cannot be had as it is wanted; there is no container then."""


class Root:
    """A directory being made into a container's root; `path()` gives safe names for mount(2) inside it."""

    def __init__(self, directory: str) -> None:
        self.fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str) -> int:
        """An O_PATH descriptor of what `path` names inside the root. Raises OSError."""
        return open_in_root(self.fd, path, os.O_PATH)

    def directory(self, path: str, mode: int = 0o755) -> int:
        """Open a directory of the root, making it and its parents if need be."""
        return self._make(path, mode, is_directory=True)

    def file(self, path: str) -> int:
        """Open a file of the root (whatever it is), making an empty one if need be."""
        return self._make(path, 0o644, is_directory=False)

    def _make(self, path: str, mode: int, is_directory: bool, hops: int = 0) -> int:
        try:
            return self.open(path)
        except FileNotFoundError:
            pass
        parent, _, name = path.rstrip("/").rpartition("/")
        above = self.directory(parent) if parent else os.dup(self.fd)
        try:
            if is_directory:
                os.mkdir(name, mode, dir_fd=above)
            else:
                os.close(
                    os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=above)
                )
        except FileExistsError:  # a link that leads nowhere yet: what it names is made, inside the root
            if hops > 16:
                raise
            return self._make(self._link_target(above, name), mode, is_directory, hops + 1)
        finally:
            os.close(above)
        return self.open(path)

    def _link_target(self, above: int, name: str) -> str:
        link = os.readlink(name, dir_fd=above)
        if not link.startswith("/"):
            root = os.readlink(f"/proc/self/fd/{self.fd}")
            link = f"{os.readlink(f'/proc/self/fd/{above}').removeprefix(root)}/{link}"
        return os.path.normpath(f"/{link}")

    def mount(
        self, source: str | None, path: str, kind: str | None, flags: int = 0, data: str | None = None
    ) -> None:
        """mount(2) on a directory of the root, made if absent."""
        fd = self.directory(path)
        try:
            mount(source, f"/proc/self/fd/{fd}", kind, flags, data)
        finally:
            os.close(fd)

    def bind(self, source: str, path: str) -> None:
        """Bind one host file or directory, without what is mounted below it."""
        fd = self.directory(path) if os.path.isdir(source) else self.file(path)
        try:
            mount(source, f"/proc/self/fd/{fd}", None, MS_BIND)
        finally:
            os.close(fd)


def build(spec: dict, joined: Callable[[], None], own_users: int = -1) -> None:
    """Make the root that `spec` describes (see starter.py) and move into it; the caller has a new mount namespace.

    `own_users`: a descriptor of the pod's user namespace, when it has one; ids of layers and volumes are mapped to it.

    `joined` waits until we are in our control group and enters its namespace: what comes before needs no group and runs
    while the shim makes it. Raises OSError or ValueError naming what failed.
    """
    volumes = [_detach(volume, own_users) for volume in spec["mounts"]]
    mount(None, "/", None, MS_REC | MS_SLAVE)
    directory = spec["dir"]
    upper = _writable(directory)
    target = f"{directory}/root"
    os.makedirs(target, mode=0o700, exist_ok=True)
    _overlay(
        _mapped(spec["layers"], f"{upper}/lower", own_users), target, f"{upper}/upper", f"{upper}/work", spec
    )
    root = Root(target)
    for index, (source, at) in enumerate(spec.get("trees") or ()):
        (lower,) = _mapped([source], f"{upper}/lower{index}-", own_users)
        _tree(root, lower, at, f"{upper}/tree{index}", f"{upper}/work{index}", spec)
    root.mount("proc", "/proc", "proc", _SAFE)
    _dev(root, spec)
    joined()
    _sys(root, spec)
    for index, (volume, tree) in enumerate(zip(spec["mounts"], volumes, strict=True)):
        if volume.get("image"):
            tree = _image_volume(volume, f"{upper}/volume{index}", own_users, spec)
        _attach(root, volume, tree)
    if spec.get("cwd"):
        _working_directory(root, spec)
    os.fchdir(root.fd)
    os.close(root.fd)
    _pivot()
    if spec.get("masked", True) and not spec.get("privileged"):
        _mask()
    if spec.get("readonly_root"):
        _keep_writable(spec)
        _read_only("/")


def _writable(directory: str) -> str:
    """Where the upper layer goes: overlay cannot be stacked as an upper, so on one (sampan in a container) use memory."""
    upper = f"{directory}/rw"
    os.makedirs(upper, mode=0o700, exist_ok=True)
    if _file_system(directory) == _OVERLAY_MAGIC_DEVICE:
        mount("tmpfs", upper, "tmpfs", MS_NODEV, "mode=700")
    return upper


def _file_system(path: str) -> str:
    """The type of the file system that holds `path`, from mountinfo by device number."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            if left.split()[2] == wanted:
                return right.split()[0]
    return ""


def _mapped(layers: list[str], place: str, own_users: int) -> list[str]:
    """The layers as the pod's users see them: idmapped copies of their mounts, in this mount namespace only."""
    if own_users < 0:
        return layers
    found = []
    for index, layer in enumerate(layers):
        tree = users.idmapped(layer, own_users)
        at = f"{place}{index}"
        os.makedirs(at, mode=0o700, exist_ok=True)
        target = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        syscalls.move_mount(tree, target)
        os.close(target)
        os.close(tree)
        found.append(at)
    return found


def _overlay(layers: list[str], target: str, upper: str, work: str, spec: dict) -> None:
    owner = spec.get("user_base") or 0
    for directory in (upper, work):
        os.makedirs(directory, mode=0o755, exist_ok=True)
        if owner:
            os.chown(directory, owner, owner)
    if not layers:
        layers = [f"{os.path.dirname(upper)}/empty"]
        os.makedirs(layers[0], exist_ok=True)
    rest = f",upperdir={_escape(upper)},workdir={_escape(work)}"
    if syscalls.in_user_namespace():
        rest += ",userxattr"
    lower = ":".join(map(_escape, layers))
    opened = []
    if len(lower) + len(rest) > _MOUNT_OPTIONS:  # some 40 layers; images have up to 127
        opened = [os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in layers]
        lower = ":".join(f"/proc/self/fd/{fd}" for fd in opened)
    try:
        mount("overlay", target, "overlay", MS_NODEV, f"lowerdir={lower}{rest}")
    finally:
        for fd in opened:
            os.close(fd)


def _tree(root: Root, source: str, at: str, upper: str, work: str, spec: dict) -> None:
    """One of the machine's directories, copy-on-write; read-only where overlay refuses (mounts below it, rootless)."""
    fd = root.directory(at)
    try:
        _overlay([source], f"/proc/self/fd/{fd}", upper, work, spec)
    except OSError:
        mount(source, f"/proc/self/fd/{fd}", None, MS_BIND | MS_REC)
        mounted = root.open(at)
        _read_only(f"/proc/self/fd/{mounted}")
        os.close(mounted)
    finally:
        os.close(fd)


def _image_volume(volume: dict, place: str, own_users: int, spec: dict) -> int:
    """An image's files as a tree to attach (KEP-4639): put together as for a root, and never written or executed."""
    target = f"{place}/root"
    os.makedirs(target, mode=0o700)
    layers = _mapped(volume["layers"], f"{place}/lower", own_users)
    _overlay(layers, target, f"{place}/upper", f"{place}/work", spec)
    inside = Root(target)
    for index, (source, at) in enumerate(volume.get("trees") or ()):
        (lower,) = _mapped([source], f"{place}/lower{index}-", own_users)
        _tree(inside, lower, at, f"{place}/tree{index}", f"{place}/work{index}", spec)
    part = volume["source"]
    try:
        found = inside.open(part or ".")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VolumeError(
            f'failed to mount image volume on {volume["target"]}: subPath "{part}": {reason}'
        ) from None
    tree = syscalls.open_tree(f"/proc/self/fd/{found}")
    syscalls.mount_setattr(tree, syscalls.ATTR_NOEXEC | syscalls.ATTR_NOSUID, recursive=True)
    os.close(found)
    os.close(inside.fd)
    return tree


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _detach(volume: dict, own_users: int) -> int | None:
    """Copy the mount before propagation is cut, so that Bidirectional volumes stay peers of the node's."""
    if volume.get("image"):
        return None  # not on the node: see _image_volume
    if own_users >= 0:
        return users.idmapped(volume["source"], own_users)
    try:
        return syscalls.open_tree(volume["source"])
    except OSError as error:
        if error.errno == 38:  # ENOSYS: before Linux 5.2
            return None
        raise OSError(error.errno, error.strerror, volume["source"]) from None


def _attach(root: Root, volume: dict, tree: int | None) -> None:
    """Put a volume in its place with its flags. MountVolume semantics: API reference, VolumeMount."""
    source, path = volume["source"], volume["target"]
    is_directory = os.path.isdir(source if tree is None else f"/proc/self/fd/{tree}")
    fd = root.directory(path) if is_directory else root.file(path)
    try:
        if tree is None:
            mount(source, f"/proc/self/fd/{fd}", None, MS_BIND | MS_REC)
        else:
            flags = syscalls.ATTR_RDONLY if volume.get("readonly") else 0
            if flags:
                syscalls.mount_setattr(tree, flags, recursive=bool(volume.get("recursive_readonly")))
            propagation = _PROPAGATION.get(volume.get("propagation") or "", syscalls.MS_PRIVATE)
            syscalls.mount_setattr(
                tree,
                0 if volume.get("devices") else syscalls.ATTR_NODEV,
                propagation=propagation,
                recursive=True,
            )
            syscalls.move_mount(tree, fd)
    finally:
        os.close(fd)
        if tree is not None:
            os.close(tree)


def _dev(root: Root, spec: dict) -> None:
    """A small /dev: nodes are bind mounts, all else forbids devices, so that a mknod inside opens nothing."""
    owner = spec.get("user_base") or 0
    owned = f",uid={owner},gid={owner}" if owner else ""
    root.mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size=64k{owned}")
    if spec.get("privileged"):
        _all_devices(root)
    for name in _DEVICES:
        root.bind(f"/dev/{name}", f"/dev/{name}")
    for path in spec.get("devices") or ():
        root.bind(path, path)
    group = "" if syscalls.mapped_ids() <= 5 else f",gid={owner + 5}"
    options = f"newinstance,ptmxmode=0666,mode=0620{group}"
    root.mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    if spec.get("shm"):
        root.bind(spec["shm"], "/dev/shm")
    else:
        root.mount("shm", "/dev/shm", "tmpfs", _SAFE, f"mode=1777,size=65536k{owned}")
    try:
        root.mount("mqueue", "/dev/mqueue", "mqueue", _SAFE)
    except OSError:
        pass  # not in this kernel, or the IPC namespace is not ours
    dev = root.directory("/dev")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "core": "/proc/kcore"}
    links |= {name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, to in links.items():
        try:
            os.symlink(to, name, dir_fd=dev)
        except FileExistsError:
            pass
    os.close(dev)


def _all_devices(root: Root) -> None:
    """A privileged container sees the machine's devices."""
    skipped = {
        *_DEVICES,
        "pts",
        "shm",
        "mqueue",
        "ptmx",
        "console",
        "fd",
        "stdin",
        "stdout",
        "stderr",
        "core",
    }
    for entry in os.scandir("/dev"):
        if entry.name in skipped or entry.is_symlink():
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            try:
                root.bind(entry.path, f"/dev/{entry.name}")
            except OSError:
                continue


def _sys(root: Root, spec: dict) -> None:
    flags = _SAFE if spec.get("privileged") else _SAFE | MS_RDONLY
    try:
        root.mount("sysfs", "/sys", "sysfs", flags)
    except PermissionError:  # a user namespace that does not own this network namespace
        fd = root.directory("/sys")
        mount("/sys", f"/proc/self/fd/{fd}", None, MS_BIND | MS_REC)
        os.close(fd)
        return
    group = spec.get("cgroup")
    if cgroups.version() == 2:
        try:
            root.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags)
        except OSError:
            pass
    elif cgroups.version() == 1 and group:
        root.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", _SAFE, "mode=755,size=64k")
        for name, at in cgroups.layout().items():
            own = at if spec.get("privileged") else f"{at}/{group}"
            if os.path.isdir(own):
                fd = root.directory(f"/sys/fs/cgroup/{name}")
                mount(own, f"/proc/self/fd/{fd}", None, MS_BIND)
                os.close(fd)
                if not spec.get("privileged"):
                    fd = root.open(f"/sys/fs/cgroup/{name}")
                    _read_only(f"/proc/self/fd/{fd}")
                    os.close(fd)


def _working_directory(root: Root, spec: dict) -> None:
    """workingDir is made when the image lacks it, as other runtimes do."""
    try:
        fd = root.directory(spec["cwd"])
    except OSError as error:
        raise OSError(error.errno, f"mkdir {spec['cwd']}: {(error.strerror or str(error)).lower()}") from None
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotADirectoryError(20, f"mkdir {spec['cwd']}: not a directory")
    os.close(fd)


def _pivot() -> None:
    """The current directory becomes "/"; the old root is stacked on it and then let go."""
    syscalls.pivot_root(".", ".")
    syscalls.umount(".")
    os.chdir("/")


def _keep_writable(spec: dict) -> None:
    """What the image declares a VOLUME may be written although the root may not: mounts of their own."""
    taken = {volume["target"].rstrip("/") for volume in spec["mounts"]}
    root = Root("/")
    for path in spec.get("image_volumes") or ():
        if path.rstrip("/") not in taken:
            fd = root.directory(path)
            mount(f"/proc/self/fd/{fd}", f"/proc/self/fd/{fd}", None, MS_BIND)
            os.close(fd)
    os.close(root.fd)


def _mask() -> None:
    for path in _MASKED:
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            mount("tmpfs", path, "tmpfs", MS_RDONLY | _SAFE, "size=0k")
        else:
            mount("/dev/null", path, None, MS_BIND)
    for path in _READONLY:
        if os.path.lexists(path):
            mount(path, path, None, MS_BIND | MS_REC)
            _read_only(path)


def _read_only(path: str) -> None:
    """Make the mount at `path` read-only, keeping its other flags (some are locked in a user namespace)."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.mount_setattr(fd, syscalls.ATTR_RDONLY)
    except OSError as error:
        if error.errno != 38:
            raise
        mount(None, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    finally:
        os.close(fd)
