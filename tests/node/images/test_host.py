"""The image made of the machine."""

import fcntl
import os
import time

from sampan.node.images import host


def test_what_the_machine_was_yesterday_goes_unless_somebody_uses_it(tmp_path):
    yesterday = time.time() - 25 * 3600
    for name in ("old", "used", "recent"):
        (tmp_path / name / "etc").mkdir(parents=True)
        if name != "recent":
            os.utime(tmp_path / name, (yesterday, yesterday))
    user = os.open(tmp_path / "used", os.O_RDONLY)
    fcntl.flock(user, fcntl.LOCK_SH)
    image = host.build(str(tmp_path), "localhost/host:v1")
    os.close(user)
    assert {*os.listdir(tmp_path)} == {"used", "recent", os.path.basename(image.layers[0])}
    assert host.build(str(tmp_path), "localhost/host:v2").layers == image.layers
