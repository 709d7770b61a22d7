"""The controller's HTTP API. It only translates: what is asked goes to the Network, what that says leaves as JSON.

Every path but the description asks for the bearer token. Serve it under TLS only. The streams of followers last as long as
they like: give the server a limit for its graceful shutdown.
"""

from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ..checks import NodeCheck
from ..model import MAX_DISJOINT_PATHS, AppView, Event, HealthView, LinkType, LinkView, NodeView, PathView, TopologyView
from ..service import Network
from .guard import Guard
from .replies import add_handlers, reply
from .streams import HEARTBEAT_SECONDS, MEDIA_TYPE, ndjson

DESCRIPTION = "/v1/openapi.json"
ABOUT = """Shows and changes a quantum key distribution network: nodes, links between them, applications that draw key.

Nodes are named by name, by id, or by a unique beginning of an id; links and applications by id or a unique beginning of it.
Rates are in bit/s, amounts of key in bits, QBER is a fraction of 1. Members may be added: ignore those you do not know.
The API never shows key."""
TAGS = [
    {"name": "network", "description": "The whole of it: topology, routes, events, health."},
    {"name": "nodes", "description": "SD-QKD nodes (ETSI GS QKD 015) that the controller looks after."},
    {"name": "links", "description": "Physical key links over a fibre, and virtual ones relayed over trusted nodes."},
    {"name": "apps", "description": "Key streams of applications (ETSI GS QKD 004) and the links that back them."},
]


class LinkRequest(BaseModel):
    """A link that shall be. A physical one joins neighbours, a virtual one any two nodes."""

    model_config = ConfigDict(extra="forbid")

    type: LinkType = Field(description="PHYS over a fibre, VIRT relayed over trusted nodes")
    source: str = Field(min_length=1, max_length=253, description="node: name, id, or unique beginning of an id")
    destination: str = Field(min_length=1, max_length=253, description="the other node")
    bandwidth_bps: int | None = Field(
        None, gt=0, lt=2**63, strict=True, description="rate a virtual link shall be filled with"
    )
    link: UUID | None = Field(None, description="id of the link; made up when left out")
    disjoint_paths: int = Field(
        1,
        ge=1,
        le=MAX_DISJOINT_PATHS,
        strict=True,
        description="key of a virtual link is the XOR of as many, each relayed over nodes that no other passes",
    )


class ClientsRequest(BaseModel):
    """Who shares the key of a key stream at the client applications' node: each of them is given each key once."""

    model_config = ConfigDict(extra="forbid")

    clients: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        min_length=1, max_length=64, description="URIs of applications; a single one shares with nobody"
    )


class Problem(BaseModel):
    """Every error of the API. Programs decide by `error`; `message` is for people; `details` holds what it is made from."""

    error: str = Field(examples=["no-route"])
    message: str = Field(examples=["no route from Quiron to Norte: link Quijote-Quevedo is down"])
    details: dict[str, Any] = Field(default_factory=dict)


def make_app(network: Network, token: str, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> FastAPI:
    """The API as an ASGI application over `network`. Raises ValueError for an empty token."""
    app = FastAPI(
        title="Quantum Switch controller",
        version=version("quantum-switch"),
        description=ABOUT,
        openapi_tags=TAGS,
        openapi_url=DESCRIPTION,
        # The interactive pages load scripts from elsewhere; a controller's network need not reach there.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Declares the scheme in the description; Guard is what asks for the token.
        dependencies=[Depends(HTTPBearer(auto_error=False, description="the token of the controller's token_file"))],
        responses={"4XX": {"model": Problem}, "5XX": {"model": Problem}},
    )
    app.include_router(_network_routes(network, heartbeat_seconds))
    app.include_router(_node_routes(network))
    app.include_router(_link_routes(network))
    app.include_router(_app_routes(network))
    app.add_middleware(Guard, token=token, open_paths=frozenset({DESCRIPTION}))
    add_handlers(app)
    return app


def _says(model: Any, description: str = "done") -> dict[int | str, dict[str, Any]]:
    """For the description only: the handlers build their replies themselves."""
    return {200: {"model": model, "description": description}}


def _node_routes(network: Network) -> APIRouter:
    router = APIRouter(prefix="/v1/nodes", tags=["nodes"])

    @router.get("", summary="All nodes", responses=_says(list[NodeView]))
    async def nodes() -> JSONResponse:
        return reply(await network.nodes())

    @router.get("/{node}", summary="One node", responses=_says(NodeView))
    async def node(node: str) -> JSONResponse:
        return reply(await network.node(node))

    @router.post("/{node}/check", summary="Look a node over", responses=_says(NodeCheck, "what was found"))
    async def check(node: str) -> JSONResponse:
        """Connects to the node the configured way and reports what was offered, agreed and allowed, and what is wrong.

        Changes nothing there. A node that cannot be reached is a report like any other, with `well` false.
        """
        return reply(await network.check(node))

    return router


def _link_routes(network: Network) -> APIRouter:
    router = APIRouter(prefix="/v1/links", tags=["links"])

    @router.get("", summary="All links", responses=_says(list[LinkView]))
    async def links() -> JSONResponse:
        return reply(await network.links())

    @router.get("/{link}", summary="One link, with its key stores and what relaying it costs", responses=_says(LinkView))
    async def link(link: str) -> JSONResponse:
        return reply(await network.link(link))

    @router.post("", status_code=HTTPStatus.CREATED, summary="Make a link", responses={201: {"model": LinkView}})
    async def create(wanted: LinkRequest) -> JSONResponse:
        """Returns once all nodes of the route have taken it, or none: it is then PENDING, and ACTIVE once it makes key."""
        made = await network.create_link(
            wanted.type,
            wanted.source,
            wanted.destination,
            wanted.bandwidth_bps,
            None if wanted.link is None else str(wanted.link),
            wanted.disjoint_paths,
        )
        return reply(made, HTTPStatus.CREATED, {"Location": f"/v1/links/{made.link}"})

    @router.delete("/{link}", status_code=HTTPStatus.NO_CONTENT, summary="Take a link away")
    async def delete(link: str) -> Response:
        """Refused with 409 while applications use it. What is left of its key is erased."""
        await network.delete_link(link)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return router


def _app_routes(network: Network) -> APIRouter:
    router = APIRouter(prefix="/v1/apps", tags=["apps"])

    @router.get("", summary="All applications", responses=_says(list[AppView]))
    async def apps() -> JSONResponse:
        return reply(await network.apps())

    @router.get("/{ksid}", summary="One application's key stream", responses=_says(AppView))
    async def app(ksid: str) -> JSONResponse:
        return reply(await network.app(ksid))

    @router.put("/{ksid}/clients", summary="Name the clients that share the key", responses=_says(AppView))
    async def share(ksid: str, wanted: ClientsRequest) -> JSONResponse:
        """Returns once both nodes have taken it, or neither. Whoever is named no longer gets no more key."""
        return reply(await network.share_app(ksid, wanted.clients))

    return router


def _network_routes(network: Network, heartbeat_seconds: float) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["network"])

    @router.get("/path", summary="The route a virtual link would take now", responses=_says(PathView))
    async def path(
        source: Annotated[str, Query(min_length=1)],
        destination: Annotated[str, Query(min_length=1)],
        bandwidth_bps: Annotated[int, Query(ge=0, lt=2**63, description="rate that must be free all the way")] = 0,
        disjoint_paths: Annotated[int, Query(ge=1, le=MAX_DISJOINT_PATHS, description="so many node-disjoint ones")] = 1,
    ) -> JSONResponse:
        """With several paths `others` has all but the first."""
        return reply(await network.path(source, destination, bandwidth_bps, disjoint_paths))

    @router.get("/topology", summary="Nodes, links and applications as of one moment", responses=_says(TopologyView))
    async def topology() -> JSONResponse:
        return reply(await network.topology())

    @router.get("/health", summary="How the controller and its network are", responses=_says(HealthView))
    async def health() -> JSONResponse:
        return reply(await network.health())

    @router.get("/events", summary="What happened", response_class=StreamingResponse, responses=_EVENTS)
    async def events(
        follow: Annotated[bool, Query(description="go on with each new event, without an end")] = False,
        after: Annotated[int, Query(ge=0, description="leave out events up to this seq")] = 0,
    ) -> StreamingResponse:
        """One JSON object a line, oldest first. Blank lines only show that the controller is still there."""
        lines = ndjson(network.events(follow), after, heartbeat_seconds)
        return StreamingResponse(lines, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    return router


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "events", "content": {MEDIA_TYPE: {"schema": TypeAdapter(Event).json_schema()}}}
}
