"""Which texts may be names, labels, ports and keys: each rule is a function that lists what is wrong, in Kubernetes' words.

Clients match on these sentences, so they are the original's to the letter. Source: API docs, "Object Names and IDs",
"Labels and Selectors"; RFC 1123, RFC 1035, RFC 6335 (port names).
"""

from __future__ import annotations

import re
from collections.abc import Callable

_ALNUM_WORD = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_1123 = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_1123 = _LABEL_1123 + r"(\." + _LABEL_1123 + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_VALUE = "(" + _ALNUM_WORD + ")?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_WILDCARD = r"\*\." + _SUBDOMAIN_1123
_HTTP_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"

_is_word = re.compile(_ALNUM_WORD).fullmatch
_is_label_1123 = re.compile(_LABEL_1123).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN_1123).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_label_value = re.compile(_LABEL_VALUE).fullmatch
_is_wildcard = re.compile(_WILDCARD).fullmatch
_is_config_key = re.compile(_CONFIG_KEY).fullmatch
_is_header = re.compile(_HTTP_HEADER).fullmatch
_is_percent = re.compile(_PERCENT).fullmatch

_WORD_RULE = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
_LABEL_1123_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character"
)

LABEL_LIMIT = 63
SUBDOMAIN_LIMIT = 253


def regex_error(rule: str, pattern: str, *examples: str) -> str:
    """A rule with its pattern and examples, as the original words it: `… (e.g. 'a',  or 'b', regex used …)`."""
    if not examples:
        return f"{rule} (regex used for validation is '{pattern}')"
    quoted = " or ".join(f"'{e}', " for e in examples)
    return f"{rule} (e.g. {quoted}regex used for validation is '{pattern}')"


def too_long(limit: int) -> str:
    """The unit is bytes since 1.33; before that the original said characters."""
    return f"must be no more than {limit} bytes"


def _over(text: str, limit: int) -> bool:
    return len(text) > limit or (not text.isascii() and len(text.encode()) > limit)


def dns1123_label(text: str) -> list[str]:
    """Names that become one DNS label (namespaces, containers, ports of endpoints)."""
    problems = [too_long(LABEL_LIMIT)] if _over(text, LABEL_LIMIT) else []
    if not _is_label_1123(text):
        if _is_subdomain(text):
            problems.append("must not contain dots")
        else:
            problems.append(regex_error(_LABEL_1123_RULE, _LABEL_1123, "my-name", "123-abc"))
    return problems


def dns1123_subdomain(text: str) -> list[str]:
    """Names of most objects."""
    problems = [too_long(SUBDOMAIN_LIMIT)] if _over(text, SUBDOMAIN_LIMIT) else []
    if not _is_subdomain(text):
        problems.append(regex_error(_SUBDOMAIN_RULE, _SUBDOMAIN_1123, "example.com"))
    return problems


def dns1035_label(text: str) -> list[str]:
    """Names of Services before RelaxedServiceNameValidation, and of API groups' resources."""
    problems = [too_long(LABEL_LIMIT)] if _over(text, LABEL_LIMIT) else []
    if not _is_label_1035(text):
        problems.append(regex_error(_LABEL_1035_RULE, _LABEL_1035, "my-name", "abc-123"))
    return problems


def wildcard_subdomain(text: str) -> list[str]:
    """Hosts of an Ingress such as `*.example.com`."""
    problems = [too_long(SUBDOMAIN_LIMIT)] if _over(text, SUBDOMAIN_LIMIT) else []
    if not _is_wildcard(text):
        rule = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist "
            "of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        problems.append(regex_error(rule, _WILDCARD, "*.example.com"))
    return problems


def qualified_name(text: str) -> list[str]:
    """Keys of labels, annotations and resources: `[prefix/]name`."""
    parts = text.split("/")
    problems: list[str] = []
    if len(parts) == 2:
        prefix, text = parts
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems += ["prefix part " + p for p in dns1123_subdomain(prefix)]
    elif len(parts) != 1:
        rule = regex_error("a qualified name " + _WORD_RULE, _ALNUM_WORD, "MyName", "my.name", "123-abc")
        return [rule + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if not text:
        problems.append("name part must be non-empty")
    elif _over(text, LABEL_LIMIT):
        problems.append("name part " + too_long(LABEL_LIMIT))
    if not _is_word(text):
        problems.append("name part " + regex_error(_WORD_RULE, _ALNUM_WORD, "MyName", "my.name", "123-abc"))
    return problems


def label_value(text: str) -> list[str]:
    """Source: "Labels and Selectors", syntax and character set."""
    problems = [too_long(LABEL_LIMIT)] if _over(text, LABEL_LIMIT) else []
    if not _is_label_value(text):
        rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
        rule += "start and end with an alphanumeric character"
        problems.append(regex_error(rule, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return problems


def path_segment(text: str) -> list[str]:
    """Names of kinds that take any path segment (RBAC roles, Leases of old)."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{bad}'" for bad in ("/", "%") if bad in text]


def port_name(text: str) -> list[str]:
    """IANA service names (RFC 6335, section 5.1)."""
    problems = []
    if _over(text, 15):
        problems.append(too_long(15))
    if not re.fullmatch("[-a-z0-9]+", text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text and (text[0] == "-" or text[-1] == "-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def port_number(number: int) -> list[str]:
    return [] if 1 <= number <= 65535 else ["must be between 1 and 65535, inclusive"]


def env_var_name(text: str) -> list[str]:
    """Names of environment variables: anything printable without `=` since RelaxedEnvironmentVariableValidation."""
    if not text:
        return ["environment variable name must be non-empty"]
    if any(c == "=" or not 0x20 <= ord(c) <= 0x7E for c in text):
        return [
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
        ]
    return []


def config_key(text: str) -> list[str]:
    """Keys of ConfigMaps and Secrets, which become file names."""
    problems = [too_long(SUBDOMAIN_LIMIT)] if _over(text, SUBDOMAIN_LIMIT) else []
    if not _is_config_key(text):
        rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        problems.append(regex_error(rule, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if text == ".":
        problems.append("must not be '.'")
    elif text == "..":
        problems.append("must not be '..'")
    elif text.startswith(".."):
        problems.append("must not start with '..'")
    return problems


def http_header(text: str) -> list[str]:
    if _is_header(text):
        return []
    rule = "a valid HTTP header must consist of alphanumeric characters or '-'"
    return [regex_error(rule, _HTTP_HEADER, "X-Header-Name")]


def percent(text: str) -> list[str]:
    if _is_percent(text):
        return []
    rule = "a valid percent string must be a numeric string followed by an ending '%'"
    return [regex_error(rule, _PERCENT, "1%", "93%")]


def generated(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The same rule for `generateName`, whose trailing dash a suffix will follow."""

    def check_prefix(text: str) -> list[str]:
        return check(text[:-2] + "a" if text.endswith("-") and len(text) > 1 else text)

    return check_prefix
