"""What the command line may show a person: a sentence that names the cause, and a hint of what to do."""

from __future__ import annotations


class SampanError(Exception):
    """A failure a user can understand. `hint` is the next step, shown on a line of its own."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
