"""What a user reads of errors, compared with the parts that matter."""


def same(lines, expected):
    """Each line holds the part expected in its place."""
    assert len(lines) == len(expected), lines
    for line, part in zip(lines, expected, strict=True):
        assert part in line
