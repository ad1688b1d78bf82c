import pytest

from sampan.api import names

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


@pytest.mark.parametrize(
    ("rule", "text", "problems"),
    [
        (names.dns1123_subdomain, "a.b-c", []),
        (names.dns1123_subdomain, "A", [SUBDOMAIN]),
        (names.dns1123_subdomain, "a" * 254, ["must be no more than 253 bytes"]),
        (names.dns1123_label, "a.b", ["must not contain dots"]),
        (names.label_value, "", []),
        (names.qualified_name, "example.com/My_Name", []),
        (names.port_name, "http", []),
        (
            names.port_name,
            "1-",
            ["must contain at least one letter (a-z)", "must not begin or end with a hyphen"],
        ),
        (names.path_segment, "..", ["may not be '..'"]),
        (names.config_key, "..a", ["must not start with '..'"]),
        (names.generated(names.dns1123_label), "job-", []),
    ],
)
def test_a_wrong_name_is_told_what_a_right_one_is(rule, text, problems):
    assert rule(text) == problems


def test_an_empty_label_key_has_two_problems():
    first, second = names.qualified_name("")
    assert first == "name part must be non-empty"
    assert second.startswith("name part must consist of alphanumeric characters")
