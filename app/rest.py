"""An ETSI 014 client for asyncio: status, enc_keys, dec_keys, with mutual TLS.

    async with RestClient(url, certificate=…, private_key=…, ca=…) as client:
        keys = await client.enc_keys("qkd://…/b", number=2)     # the slave fetches them by their ids, at its node

The connection is kept between calls. Keys are bytearrays that the caller wipes; the copies that HTTP and JSON make of
them on their way through the library cannot be.
"""

import ssl
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from qswitch.protocol.etsi014 import (
    DISJOINT_PATHS,
    BadRequest,
    KeyId,
    KeyIds,
    KeyRequest,
    Method,
    Status,
    build,
    build_path,
    parse_container,
    parse_error,
    parse_status,
)

from .client import CONNECT_SECONDS, tls_context
from .errors import ConnectionLost, RestError, Unreachable

ANSWER_SECONDS = 30.0  # longer than a node waits for key


class RestClient:
    """Calls of one application to the node it lives at. All calls raise ClientError."""

    def __init__(self, url: str, *, certificate: Path, private_key: Path, ca: Path, kme_id: str = "") -> None:
        """Reads the PEM files; raises CredentialsError. With `kme_id` the node's certificate must name it."""
        self._url, self._kme_id = url.rstrip("/"), kme_id
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx.AsyncClient(verify=tls_context(certificate, private_key, ca), timeout=timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def status(self, slave: str) -> Status:
        """What the node has for this application and a slave."""
        return parse_status(await self._call("GET", slave, Method.STATUS))

    async def enc_keys(
        self,
        slave: str,
        number: int | None = None,
        size: int | None = None,
        also: Sequence[str] = (),
        disjoint_paths: int = 1,
    ) -> dict[str, bytearray]:
        """New keys by their ids, for the slave and for those `also` named; `size` in bits. Delivered once.

        With several `disjoint_paths` fewer relay nodes than that do not know them; a node that cannot refuses.
        """
        mandatory = [{DISJOINT_PATHS: disjoint_paths}] if disjoint_paths > 1 else None
        request = KeyRequest(number, size, list(also) or None, mandatory)
        return self._keys("enc_keys", await self._call("POST", slave, Method.ENC_KEYS, build(request)))

    async def dec_keys(self, master: str, key_ids: Sequence[str]) -> dict[str, bytearray]:
        """Keys that a master got for this application, all of them or none. Delivered once."""
        request = KeyIds([KeyId(one) for one in key_ids])
        return self._keys("dec_keys", await self._call("POST", master, Method.DEC_KEYS, build(request)))

    @staticmethod
    def _keys(call: str, body: bytes) -> dict[str, bytearray]:
        try:
            return parse_container(body)
        except BadRequest as error:
            raise ConnectionLost(call, f"the node's answer cannot be read ({error})") from error

    async def _call(self, verb: str, sae_id: str, method: Method, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        url = self._url + build_path(sae_id, method)
        try:
            async with self._http.stream(verb, url, content=body, headers=headers) as reply:
                self._check_node(reply)
                content = await reply.aread()
        except httpx.ConnectError as error:
            raise self._unreachable(f"{error}; check the URL, the CA file and that the node runs") from error
        except httpx.HTTPError as error:
            problem = str(error) or "the node closed the connection without an answer"
            raise ConnectionLost(method, f"{problem}; if it does so again, it may not accept this certificate") from error
        if reply.status_code != httpx.codes.OK:
            raise _refused(method, reply.status_code, content)
        return content

    def _check_node(self, reply: httpx.Response) -> None:
        """014 clause 5.1: the application verifies who the KME is."""
        if not self._kme_id:
            return
        stream: Any = reply.extensions["network_stream"]
        secured: ssl.SSLObject = stream.get_extra_info("ssl_object")
        certificate: dict[str, Any] = secured.getpeercert() or {}
        names = {value for _, value in certificate.get("subjectAltName", ())}
        if not names & {self._kme_id, f"urn:uuid:{self._kme_id}"}:
            raise self._unreachable(f"its certificate does not name the KME {self._kme_id}")

    def _unreachable(self, problem: str) -> Unreachable:
        where = httpx.URL(self._url)
        return Unreachable(where.host, where.port or 443, problem)


def _refused(method: Method, status: int, content: bytes) -> RestError:
    try:
        body = parse_error(content)
    except BadRequest:
        return RestError(method, status, "the node gives no reason that can be read")
    return RestError(method, status, body.message, tuple(dict(one) for one in body.details))
