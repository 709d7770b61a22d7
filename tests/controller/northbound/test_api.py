"""The API: who gets in, what goes through, how every failure looks."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from held_network import FIRST, KSID, NODES, TOKEN, VIRTUAL, Served

from qswitch.controller.errors import EDGES, NodeTimedOut, TransactionFailed
from qswitch.controller.model import to_json
from qswitch.controller.northbound.api import make_app

PATHS = ["nodes", f"nodes/{NODES['Quiron']}", "links", f"links/{FIRST}", "apps", f"apps/{KSID}", "topology", "health"]


# Who gets in -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN],
)
@pytest.mark.parametrize("path", ["/v1/nodes", "/v1/nothing", "/v1/events?follow=true"])
def test_without_the_token_nothing_is_told(served: Served, authorization: str | None, path: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    with served.client(None) as http:
        reply = http.get(path, headers=headers)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["error"] == "unauthorised"
    assert TOKEN not in reply.text


def test_the_scheme_is_read_in_any_case(served: Served) -> None:
    with served.client(None) as http:
        assert http.get("/v1/health", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


def test_a_stranger_changes_nothing(served: Served) -> None:
    with served.client("wrong") as http:
        assert http.delete(f"/v1/links/{FIRST}").status_code == 401
        assert http.post("/v1/links", content="{not json").status_code == 401
    with served.client() as http:
        assert http.get(f"/v1/links/{FIRST}").status_code == 200


def test_an_empty_token_is_no_token(served: Served) -> None:
    app = make_app(served.network, "")
    with pytest.raises(ValueError, match="empty token"):
        app.build_middleware_stack()


# What goes through -----------------------------------------------------------------------------------------------------


async def test_every_view_is_what_the_network_says(served: Served) -> None:
    network = served.network
    said = [
        await network.nodes(),
        await network.node("Quiron"),
        await network.links(),
        await network.link(FIRST),
        await network.apps(),
        await network.app(KSID),
        await network.topology(),
        await network.health(),
    ]
    with served.client() as http:
        for path, value in zip(PATHS, said, strict=True):
            reply = http.get(f"/v1/{path}")
            assert reply.status_code == 200, path
            assert reply.json() == to_json(value), path


@pytest.mark.parametrize(("which", "name"), [("Quijote", "Quijote"), ("1111", "Quiron"), (NODES["Quinto"], "Quinto")])
def test_nodes_go_by_name_id_or_beginning(served: Served, which: str, name: str) -> None:
    with served.client() as http:
        assert http.get(f"/v1/nodes/{which}").json()["name"] == name


async def test_a_check_is_what_was_found_whether_good_or_bad(served: Served) -> None:
    with served.client() as http:
        for name, well in (("Quiron", True), ("Quijote", False)):
            reply = http.post(f"/v1/nodes/{name}/check")
            assert (reply.status_code, reply.json()["well"]) == (200, well)
            assert reply.json() == to_json(await served.network.check(name))
        assert http.get("/v1/nodes/Quiron/check").status_code == 405
        assert http.post("/v1/nodes/Nobody/check").status_code == 404


def test_a_link_is_made_and_taken_away(served: Served) -> None:
    wanted = {"type": "VIRT", "source": "Quiron", "destination": NODES["Quinto"]}
    with served.client() as http:
        made = http.post("/v1/links", json={**wanted, "bandwidth_bps": 2000})
        assert made.status_code == 201
        assert (made.json()["status"], made.json()["bandwidth_bps"]) == ("PENDING", 2000)
        place = made.headers["location"]
        assert http.get(place).json() == made.json()
        gone = http.delete(place)
        assert (gone.status_code, gone.content) == (204, b"")
        assert http.get(place).status_code == 404


def test_the_id_of_a_link_may_be_chosen(served: Served) -> None:
    link = "DDDDDDDD-0000-4000-8000-000000000001"
    with served.client() as http:
        made = http.post("/v1/links", json={"type": "PHYS", "source": "Quiron", "destination": "Quinto", "link": link})
    assert made.json()["link"] == link.lower()


def test_a_path_is_asked_for_with_a_rate(served: Served) -> None:
    ends = {"source": "Quiron", "destination": "Quinto"}
    with served.client() as http:
        assert http.get("/v1/path", params=ends).json()["names"] == list(NODES)
        refused = http.get("/v1/path", params={**ends, "bandwidth_bps": 900_000})
    assert (refused.status_code, refused.json()["error"]) == (409, "no-route")
    assert refused.json()["details"] == {
        "source": "Quiron",
        "destination": "Quinto",
        "reason": "no link has 900000 bit/s free",
    }


# How failures look -----------------------------------------------------------------------------------------------------

GOOD = {"type": "VIRT", "source": "Quiron", "destination": "Quinto"}
BAD_LINKS: list[tuple[dict[str, Any], str]] = [
    ({**GOOD, "type": "WISH"}, "type"),
    ({"type": "VIRT", "source": "Quiron"}, "destination"),
    ({**GOOD, "source": ""}, "source"),
    ({**GOOD, "source": ["Quiron"]}, "source"),
    ({**GOOD, "bandwidth_bps": 0}, "bandwidth_bps"),
    ({**GOOD, "bandwidth_bps": "10k"}, "bandwidth_bps"),
    ({**GOOD, "bandwidth_bps": 2**63}, "bandwidth_bps"),
    ({**GOOD, "link": "not-a-uuid"}, "link"),
    ({**GOOD, "disjoint_paths": 0}, "disjoint_paths"),
    ({**GOOD, "disjoint_paths": "2"}, "disjoint_paths"),
    ({**GOOD, "bandwith_bps": 10}, "bandwith_bps"),
]


@pytest.mark.parametrize(("body", "field"), BAD_LINKS)
def test_a_bad_member_is_named_with_its_rule(served: Served, body: dict[str, Any], field: str) -> None:
    with served.client() as http:
        reply = http.post("/v1/links", json=body)
    assert reply.status_code == 400
    problem = reply.json()
    assert set(problem) == {"error", "message", "details"}
    assert problem["error"] == "invalid-request"
    assert problem["details"]["field"] == field
    assert problem["details"]["rule"]
    assert problem["message"].startswith(f"{field}: ")


@pytest.mark.parametrize("body", ["", "{not json", "[]", '"VIRT"', "{}" + " " * 70_000])
def test_a_body_that_is_no_link_is_refused(served: Served, body: str) -> None:
    with served.client() as http:
        reply = http.post("/v1/links", content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid-request")


def test_a_body_of_unknown_length_is_refused(served: Served) -> None:
    with served.client() as http:
        reply = http.post("/v1/links", content=iter([b"{}"]))
    assert (reply.status_code, reply.json()["details"]["field"]) == (400, "Transfer-Encoding")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("source=Quiron", "destination"),
        ("source=Quiron&destination=Quinto&bandwidth_bps=-1", "bandwidth_bps"),
        ("source=Quiron&destination=Quinto&bandwidth_bps=x", "bandwidth_bps"),
    ],
)
def test_a_bad_parameter_is_named(served: Served, query: str, field: str) -> None:
    with served.client() as http:
        reply = http.get(f"/v1/path?{query}")
    assert (reply.status_code, reply.json()["details"]["field"]) == (400, field)


def test_clients_are_named_that_share_key(served: Served) -> None:
    with served.client() as http:
        named = http.put(f"/v1/apps/{KSID}/clients", json={"clients": ["qkd://x/a", "qkd://x/b"]})
        assert (named.json()["client_app_ids"], named.json()["qos"]["clients_shared_keys"]) == (
            ["qkd://x/a", "qkd://x/b"],
            True,
        )
        refused = http.put(f"/v1/apps/{KSID}/clients", json={"clients": ["nobody"]})
        assert (refused.status_code, refused.json()["details"]["field"]) == (400, "clients")
        for body in ({"clients": []}, {"clients": [""]}, {"clients": ["x"] * 65}, {}):
            assert http.put(f"/v1/apps/{KSID}/clients", json=body).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nodes/Nowhere", 404, "not-found"),
        ("GET", "/v1/nodes/2222", 409, "ambiguous"),
        ("GET", "/v1/links/ffff", 404, "not-found"),
        ("DELETE", "/v1/links/ffff", 404, "not-found"),
        ("DELETE", f"/v1/links/{VIRTUAL}", 409, "conflict"),
        ("GET", "/v1/apps/ffff", 404, "not-found"),
        ("GET", "/v1/nodes/", 404, "not-found"),
        ("GET", "/nothing", 404, "not-found"),
        ("PUT", "/v1/nodes", 405, "method-not-allowed"),
    ],
)
def test_refusals_have_one_shape(served: Served, method: str, path: str, status: int, code: str) -> None:
    with served.client() as http:
        reply = http.request(method, path)
    assert (reply.status_code, reply.json()["error"]) == (status, code)
    assert set(reply.json()) == {"error", "message", "details"}


@pytest.mark.parametrize("error", [NodeTimedOut("Quijote", "edit-config", 15), TransactionFailed("link", {"Quijote": "no"})])
def test_a_controller_error_keeps_its_data(served: Served, error: NodeTimedOut | TransactionFailed) -> None:
    served.network.failure = error
    with served.client() as http:
        reply = http.get("/v1/nodes")
    row = EDGES[type(error)]
    assert reply.status_code == row.http
    assert reply.json() == {"error": row.code, "message": str(error), "details": error.details()}


def test_a_defect_is_not_explained_to_the_caller(served: Served) -> None:
    served.network.failure = RuntimeError("inner secret")
    with served.client() as http:
        reply = http.get("/v1/nodes")
    assert (reply.status_code, reply.json()["error"]) == (500, "internal-error")
    assert "secret" not in reply.text


# Events ----------------------------------------------------------------------------------------------------------------


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line]


def test_events_so_far_are_one_line_each(served: Served) -> None:
    served.network.happen("link_down", link=FIRST)
    served.network.happen("link_up")
    with served.client() as http:
        reply = http.get("/v1/events")
        later = http.get("/v1/events?after=1")
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    down, up = _events(reply.text)
    assert down == {
        "seq": 1,
        "time": "2026-11-23T12:00:00Z",
        "node": "Quijote",
        "type": "link_down",
        "message": "it happened",
        "link": FIRST,
    }
    assert "link" not in up
    assert [one["seq"] for one in _events(later.text)] == [2]


def test_a_follower_hears_what_comes_and_that_the_controller_is_there(served: Served) -> None:
    served.network.happen("first")
    with served.client() as http, http.stream("GET", "/v1/events?follow=true") as reply:
        lines = reply.iter_lines()
        assert json.loads(next(lines))["type"] == "first"
        assert next(lines) == ""  # the heartbeat
        served.network.happen("second")
        assert json.loads(next(line for line in lines if line))["type"] == "second"
        assert next(lines) == ""
    assert served.network.left.wait(10), "the follower's events were not closed when it went"
    assert served.network.followers == 0


async def test_a_heartbeat_does_not_lose_the_event_being_waited_for(served: Served) -> None:
    """Many heartbeats pass while the iterator waits: it is asked once, and its event arrives."""
    with served.client() as http, http.stream("GET", "/v1/events?follow=true") as reply:
        lines = reply.iter_lines()
        assert [next(lines) for _ in range(4)] == [""] * 4
        await asyncio.to_thread(served.network.happen, "late")
        assert json.loads(next(line for line in lines if line))["type"] == "late"


# The description -------------------------------------------------------------------------------------------------------


def _operations(served: Served) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    with served.client(None) as http:
        api = http.get("/v1/openapi.json").json()
    return api, [(path, one) for path, methods in api["paths"].items() for one in methods.values()]


def test_the_description_says_what_each_operation_is(served: Served) -> None:
    _, operations = _operations(served)
    assert len(operations) == 14
    for path, one in operations:
        assert one["summary"] and one["tags"], path
        assert one["security"], path
        assert {"4XX", "5XX"} <= set(one["responses"]), path


def test_the_description_agrees_with_the_replies(served: Served) -> None:
    api, _ = _operations(served)
    schemas = api["components"]["schemas"]
    with served.client() as http:
        samples: dict[str, Any] = {
            "NodeView": http.get("/v1/nodes/Quiron").json(),
            "LinkView": http.get(f"/v1/links/{VIRTUAL}").json(),
            "AppView": http.get(f"/v1/apps/{KSID}").json(),
            "HealthView": http.get("/v1/health").json(),
        }
    for name, value in samples.items():
        described = set(schemas[name]["properties"])
        assert set(schemas[name].get("required", [])) <= set(value) <= described, name


def test_plain_http_is_not_spoken(served: Served) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(served.url.replace("https", "http") + "/v1/health", timeout=5)
