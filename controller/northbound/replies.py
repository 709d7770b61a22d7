"""What leaves the API: values as JSON, and every error in one shape, {"error": code, "message": text, "details": {…}}."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import ControllerError, InvalidRequest, Unauthorised, edge
from ..model import to_json

log = logging.getLogger(__name__)


def reply(value: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> JSONResponse:
    """A value of the model (or a list of them) as JSON."""
    return JSONResponse(to_json(value), status_code=status, headers=headers)


def error_reply(error: ControllerError) -> JSONResponse:
    row = edge(error)
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorised) else None
    return _error(row.http, row.code, str(error), to_json(error.details()), headers)


def add_handlers(app: FastAPI) -> None:
    """Makes every failure of `app` leave it in the one shape."""
    app.add_exception_handler(ControllerError, _controller_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


def _error(
    status: int, code: str, message: str, details: dict[str, Any], headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": code, "message": message, "details": details}, status_code=status, headers=headers)


async def _controller_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ControllerError)
    return error_reply(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """The first rule that was broken; 400, since the API's clients need not tell syntax from semantics."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place, value = _place(first["loc"]), first.get("input")
    if first["type"] == "json_invalid":
        place, value = "body", first["ctx"]["error"]
    return error_reply(InvalidRequest(place, "" if value is None else str(value)[:200], first["msg"]))


def _place(location: tuple[str | int, ...]) -> str:
    """`bandwidth_bps` of ("body", "bandwidth_bps"); the body as a whole is `body`."""
    inner = location[1:] if len(location) > 1 else location
    return ".".join(str(one) for one in inner)


async def _http(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: an unknown path, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    message = f"nothing is at {request.url.path}" if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
    return _error(error.status_code, code, message, {}, dict(error.headers) if error.headers else None)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    """A defect: the trace goes to the log, the caller learns only that it is one."""
    log.error("request failed method=%s path=%s", request.method, request.url.path, exc_info=error)
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", "the controller failed; its log says more", {})
