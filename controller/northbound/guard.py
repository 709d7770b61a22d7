"""Who may speak to the API at all: asked before anything of a request is read."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ControllerError, InvalidRequest, Unauthorised
from .replies import error_reply

# Longest body of a request; every one of this API is a few members.
MAX_BODY_BYTES = 64 * 1024


class Guard:
    """Lets requests with the bearer token through, and those for the `open_paths`. The rest get 401 (RFC 6750)."""

    def __init__(self, app: ASGIApp, token: str, open_paths: frozenset[str] = frozenset()) -> None:
        if not token:
            raise ValueError("an empty token would let everybody in")
        self._app = app
        self._token = token.encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await error_reply(problem)(scope, receive, send)

    def _problem(self, scope: Scope) -> ControllerError | None:
        headers = Headers(scope=scope)
        if scope["path"] not in self._open_paths and not self._authorised(headers):
            return Unauthorised("a valid token is needed, as 'Authorization: Bearer TOKEN'")
        return _too_long(headers)

    def _authorised(self, headers: Headers) -> bool:
        """Compares in a time that does not depend on how much of the token is right."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(token.strip().encode(), self._token) and scheme.lower() == "bearer"


def _too_long(headers: Headers) -> ControllerError | None:
    """The length must be known beforehand, so that nobody can make the controller hold an endless body."""
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        return InvalidRequest("Transfer-Encoding", headers["transfer-encoding"], "a request needs a Content-Length")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        return InvalidRequest("Content-Length", length, f"at most {MAX_BODY_BYTES} bytes")
    return None
