"""What a plugin's own code may do wrong, and how it is said in one line."""

from __future__ import annotations

from eulerstack.errors import Message

# A plugin may raise anything; one that calls sys.exit ends itself and not the command. An interrupt is the user's.
PLUGIN_ERRORS = (Exception, SystemExit)
LONGEST_REASON = 200


class PluginFault(Exception):
    """A plugin breaks the contract; `message` is the translatable reason."""

    def __init__(self, message: Message):
        self.message = message
        super().__init__(message)

    def __str__(self) -> str:
        return self.message.render()


def reason_of(error: BaseException, longest: int = LONGEST_REASON) -> str:
    """The class and the text of an exception in one short line, also where its own `__str__` raises."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except PLUGIN_ERRORS:
        text = ""
    return f"{name}: {text}"[:longest] if text else name
