"""What can be wrong with what the user asked for or gave; each message is one line that names the culprit."""

import re
from contextlib import contextmanager
from urllib.request import getproxies


class RequestError(Exception):
    """The request, or a file that it names, is wrong; nothing has been run or written."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: our line, not the way to it
        return [f"RequestError: {self}"]


class StudyFailed(Exception):
    """The study did not come to its end, or not to what it should; the message says where."""


def proxy_set() -> str | None:
    """The proxy that the environment names, without a user's name and password."""
    named = ((kind, url) for kind, url in getproxies().items() if kind != "no")
    return next((f"the proxy {kind.upper()}_PROXY={re.sub('//.*@', '//', url)}" for kind, url in named), None)


@contextmanager
def no_use_of_a_proxy():
    """Turns what a library says of a proxy that it cannot use into one line."""
    try:
        yield
    except Exception as error:
        of_it = isinstance(error, ImportError) or "proxy" in str(error) or type(error).__name__ == "InvalidURL"
        if (proxy := proxy_set()) is None or not of_it:
            raise
        raise RequestError(f"{proxy} cannot be used: {' '.join(str(error).split())}") from None
