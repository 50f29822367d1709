"""One chat completion of a server, and what its refusals and faults mean."""

import os

from weaklib.data.errors import RequestError, no_use_of_a_proxy, proxy_set

KEY = "OPENAI_API_KEY"  # of the environment; the key itself is written nowhere
_RENAMED: set[tuple] = set()  # servers and models whose limit is called ``max_completion_tokens``


class Refused(RequestError):
    """A server's answer to one question is that it gets none: a content filter, a prompt that is too long."""


def complete(client, settings, texts: list[str], answered: bool = False, **how) -> tuple:
    """The reply, and the server's count of tokens, if any. Raises RequestError, which names it, never the key; Refused
    where this is about one question, as a 403 or 451 is of a server that has ``answered`` others."""
    import openai

    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts)]
    if (settings.base_url, settings.model) in _RENAMED:
        how["max_completion_tokens"] = how.pop("max_tokens")
    try:
        completion = client.chat.completions.create(model=settings.model, messages=messages, **how)
        if not completion.choices and (cause := getattr(completion, "error", None)):
            raise ValueError(str(cause.get("message", cause) if isinstance(cause, dict) else cause))
        choice = completion.choices[0] if completion.choices else None
        if choice and (choice.finish_reason == "content_filter" or getattr(choice.message, "refusal", None)):
            raise Refused(f"judge.base_url {settings.base_url}: the question was refused")
        said = (choice and choice.message.content) or ""
        return said if isinstance(said, str) else "".join(part.get("text") or "" for part in said), completion.usage
    except (openai.APIError, AttributeError, ValueError, TypeError) as error:  # but the first: no completion
        status = getattr(error, "status_code", None)
        body = getattr(getattr(error, "response", None), "text", "")
        said = " ".join(scrubbed(f"{error}" if not body or body[:20] in str(error) else f"{error} {body}").split())[
            :200
        ]
        unknown = (
            getattr(error, "code", None) == "unsupported_parameter" and getattr(error, "param", None) == "max_tokens"
        )
        if status == 400 and "max_tokens" in how and (unknown or "max_completion_tokens" in str(error)):
            _RENAMED.add((settings.base_url, settings.model))  # newer models of OpenAI's
            return complete(client, settings, texts, answered, **how)
        if isinstance(error, openai.APIConnectionError):
            said = "no answer in time" if isinstance(error, openai.APITimeoutError) else "nothing answers there"
            said += f" (through {proxy})" if (proxy := proxy_set()) else ""
        elif status == 401 or (status == 403 and not answered):
            refused = "refused the key in" if os.environ.get(KEY) else "asks for a key; put it into"
            said = f"the server {refused} {KEY} (status {status}: {said})"
        elif status == 404:
            said = f"no model {settings.model!r} there, or no chat completions (status 404)"
        else:
            said = f"status {status}: {said}" if status else f"not a chat completion: {said}"
        of_one = status in (400, 413, 422, *((403, 451) if answered else ()))
        of_one &= getattr(error, "param", None) not in how  # of a setting
        kind = Refused if of_one else RequestError
        raise kind(f"judge.base_url {settings.base_url}: {said}") from None


def client(settings):
    import openai  # two seconds

    key = os.environ.get(KEY) or "no-key-is-set"  # a server without keys takes any; the client insists on one
    patience = openai.Timeout(settings.timeout_s, connect=min(4.0, settings.timeout_s))
    limits = {"max_retries": settings.max_retries, "timeout": patience}
    with no_use_of_a_proxy():
        return openai.OpenAI(base_url=settings.base_url, api_key=key, **limits)


def scrubbed(text: str) -> str:
    """Without the key, if it is one: what some local servers take for a key (``1``, ``EMPTY``) occurs in any text."""
    key = os.environ.get(KEY, "")
    return text.replace(key, "…") if len(key) >= 8 else text
