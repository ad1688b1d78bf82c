"""What every plank passes around: an object of the API as the plain value of its JSON."""

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
ReadOnlyObject = Mapping[str, Any]  # one that is looked at only
