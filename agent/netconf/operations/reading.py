"""get, get-config (RFC 6241 clauses 7.1 and 7.7, RFC 6243) and get-schema (RFC 6022 clause 3.1)."""

import libyang
from lxml import etree

from qswitch.protocol.netconf import BASE, MONITORING

from ..datastore import Reading
from ..errors import refused
from ..schema import source
from .call import Call, datastore, parameter, selection, text, with_defaults


def get(call: Call) -> bytes:
    return _read(call, "operational")


def get_config(call: Call) -> bytes:
    return _read(call, datastore(call, "source"))


def _read(call: Call, where: str) -> bytes:
    found = call.user.read(where, selection(call), Reading(with_defaults(call)))
    return b'<data xmlns="%b">%b</data>' % (BASE.encode(), found)


def get_schema(call: Call) -> bytes:
    if parameter(call, "identifier") is None:
        raise refused("missing-element", "a schema must be named", ("bad-element", "identifier"))
    identifier = text(call, "identifier", "")
    version = text(call, "version", "")
    form = text(call, "format", "yang").rpartition(":")[2]
    found = [one for one in call.user.schema.modules if one.name == identifier and version in ("", one.revision)]
    if not found or form != "yang":
        raise refused("invalid-value", f"there is no schema '{identifier}' version '{version}' in format '{form}'")
    try:
        with call.user.session.get_ly_ctx() as context:
            yang = source(context, identifier)
    except libyang.LibyangError as error:
        raise refused("operation-failed", f"schema '{identifier}' cannot be printed: {error}") from error
    root = etree.Element(f"{{{MONITORING}}}data", nsmap={None: MONITORING})  # type: ignore[dict-item]
    root.text = yang
    return etree.tostring(root, encoding="UTF-8")
