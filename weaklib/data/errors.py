"""What can be wrong with what the user asked for or gave; each message is one line that names the culprit."""


class RequestError(Exception):
    """The request was wrong; nothing has been run or written."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: our line, not the way to it
        return [f"RequestError: {self}"]


class BadFile(RequestError):
    """A file, or a row of it, is not what it should be; the message names file, row and cause."""


class LeftOut(Exception):
    """A row is as it should be but states no preference that the study uses; the message says why."""
