"""The controller's HTTP API as qkdctl uses it: JSON in, JSON out, every failure one line that says what to do."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import click
import httpx

from .access import Access
from .text import printable

# The controller sends a blank line at least every 15 s on an event stream; this long without one, it is gone.
EVENTS_SILENCE_SECONDS = 45.0


class Refused(click.ClickException):
    """The controller's own answer to a request: `code` and `status` for programs, the message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(printable(message))
        self.status = status
        self.code = code


class Controller:
    """A connection to one controller. Close it, or use it as a context."""

    def __init__(self, access: Access, connect_seconds: float = 5.0, reply_seconds: float = 60.0) -> None:
        self._access = access
        self._http = httpx.Client(
            base_url=access.url,
            verify=_trust(access),
            headers={"Authorization": f"Bearer {access.token}", "Accept": "application/json"},
            timeout=httpx.Timeout(reply_seconds, connect=connect_seconds),
            trust_env=False,  # the token goes to the controller that was named, never by way of a proxy found around here
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **parameters: str | int | None) -> Any:
        """The decoded reply; parameters that are None are left out."""
        return self._call("GET", path, params={name: one for name, one in parameters.items() if one is not None})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json=body)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("PUT", path, json=body)

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def events(self, follow: bool) -> Iterator[dict[str, Any]]:
        """The events the controller still has, oldest first; with `follow`, then each new one as it happens."""
        parameters = {"follow": "true" if follow else "false"}
        timeout = httpx.Timeout(EVENTS_SILENCE_SECONDS, connect=self._http.timeout.connect)
        with (
            self._explained(),
            self._http.stream("GET", "/v1/events", params=parameters, timeout=timeout) as reply,
        ):
            if not reply.is_success:
                reply.read()
                raise self._refused(reply)
            for line in reply.iter_lines():
                if line.strip():
                    yield json.loads(line)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        with self._explained():
            reply = self._http.request(method, path, **arguments)
            if not reply.is_success:
                raise self._refused(reply)
            return reply.json() if reply.content else None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Failures of the way there, in words for the operator."""
        url = self._access.url
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise click.ClickException(
                f"no controller answers at {url}: connecting timed out (--connect-timeout)"
            ) from error
        except httpx.ConnectError as error:
            raise click.ClickException(self._not_connected(error)) from error
        except httpx.TimeoutException as error:
            raise click.ClickException(
                f"the controller at {url} did not answer in time; what was asked may still be done (--timeout waits longer)"
            ) from error
        except httpx.TransportError as error:
            raise click.ClickException(f"the connection to the controller at {url} broke: {error}") from error
        except (httpx.InvalidURL, ValueError) as error:
            raise click.ClickException(f"{url} does not answer like a controller: {error}") from error

    def _not_connected(self, error: httpx.ConnectError) -> str:
        url, text = self._access.url, str(error)
        if "certificate" in text.lower() or "ssl" in text.lower():
            return f"{url} is not trusted: {text}; is --ca that of this controller?"
        return f"no controller answers at {url} ({text}): is it running? `qkd-network status`, or its log, tells"

    def _refused(self, reply: httpx.Response) -> Refused:
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            message = f"the controller at {self._access.url} does not accept the token of {self._access.source}"
            return Refused(reply.status_code, "unauthorized", message)
        try:
            body = reply.json()
            return Refused(reply.status_code, str(body["error"]), str(body["message"]))
        except (ValueError, KeyError, TypeError):
            return Refused(reply.status_code, "http", f"{self._access.url} answered HTTP status {reply.status_code}")


def _trust(access: Access) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=access.ca)
    except (OSError, ssl.SSLError) as error:
        raise click.ClickException(f"cannot use the certificates of {access.ca}: {error}") from error
