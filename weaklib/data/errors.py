"""What can be wrong with what the user asked for or gave; each message is one line that names the culprit."""


class RequestError(Exception):
    """The request, or a file that it names, is wrong; nothing has been run or written."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: our line, not the way to it
        return [f"RequestError: {self}"]


class StudyFailed(Exception):
    """The study did not come to its end, or not to what it should; the message says where."""
