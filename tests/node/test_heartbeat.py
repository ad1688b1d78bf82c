"""What a Node says of itself."""

from sampan.node.heartbeat import container_images
from sampan.node.runtime import Image


def image(ref, key, digest="", size=1):
    return Image(ref, key, digest, (), {}, size)


def test_an_image_is_listed_once_with_all_its_names_and_the_largest_first():
    by_digest = "r.io/box@sha256:1"
    found = container_images(
        [
            image("r.io/small:v1", "sha256:b"),
            image("r.io/box:v2", "sha256:a", by_digest, 9),
            image(by_digest, "sha256:a", by_digest, 9),
        ]
    )
    assert found == [
        {"names": [by_digest, "r.io/box:v2"], "sizeBytes": 9},
        {"names": ["r.io/small:v1"], "sizeBytes": 1},
    ]
