import pytest

from sampan.node.native import capabilities
from sampan.node.native.capabilities import DEFAULT, NAMES, resolve


@pytest.mark.parametrize(
    ("add", "drop", "result"),
    [
        ([], [], set(DEFAULT)),
        (["NET_ADMIN"], [], {*DEFAULT, "NET_ADMIN"}),
        (["CAP_SYS_TIME"], ["kill"], {*DEFAULT, "SYS_TIME"} - {"KILL"}),
        ([], ["ALL"], set()),
        (["NET_BIND_SERVICE"], ["ALL"], {"NET_BIND_SERVICE"}),
        (["ALL"], [], set(NAMES)),
        (["ALL"], ["MKNOD"], set(NAMES) - {"MKNOD"}),
    ],
)
def test_add_and_drop(add, drop, result):
    assert set(resolve(add, drop)) == result


def test_names_become_bits():
    assert capabilities.mask(DEFAULT) == 0xA80425FB
    assert capabilities.mask(["CAP_CHOWN", "sys_admin"]) == 1 | 1 << 21
    with pytest.raises(ValueError, match="NONE_SUCH"):
        capabilities.mask(["NONE_SUCH"])
