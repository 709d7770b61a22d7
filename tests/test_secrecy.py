"""No class shows the key that it holds: a log line or a traceback may quote any value."""

import dataclasses
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator

import msgspec

import qswitch.agent
import qswitch.app
import qswitch.protocol
from qswitch.agent.lkms.keys import Key

HARMLESS = {
    "qswitch.protocol.etsi004.GetKeyReply": {"metadata"},  # age and hops
    "qswitch.protocol.lkms.Hello": {"nonce"},
    "qswitch.protocol.lkms.Tagged": {"body", "tag"},  # state; a one-time tag
    "qswitch.protocol.lkms.KeyAlloc": {"sealed", "tag"},  # under a one-time pad
    "qswitch.protocol.lkms.Relay": {"ciphertext", "tag", "marks"},
    "qswitch.agent.lkms.lines.Parcel": {"marks"},
    "qswitch.agent.lkms.shares.Sum": {"mark"},
    "qswitch.agent.service.etsi014._Request": {"url", "body"},  # who asks sends no key
    "qswitch.agent.netconf.config.Ssh": {"users"},  # public keys, certificates
    "qswitch.agent.netconf.config.CertToName": {"fingerprint"},
    "qswitch.agent.netconf.config.Identity": {"certificates"},
    "qswitch.agent.netconf.config.Tls": {"ca_certs", "ee_certs"},
}
"""Octets that a class shows, and that are no key."""


def _classes() -> Iterator[type]:
    for package in (qswitch.agent, qswitch.app, qswitch.protocol):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            found = vars(importlib.import_module(module.name)).values()
            yield from (one for one in found if inspect.isclass(one) and one.__module__ == module.name)


def _shown(one: type) -> set[str]:
    """Fields of octets that the `repr` of a class contains."""
    if "__repr__" in vars(one) and not dataclasses.is_dataclass(one):
        return set()
    if dataclasses.is_dataclass(one):
        fields = {field.name: field.type for field in dataclasses.fields(one) if field.repr}
    elif issubclass(one, msgspec.Struct):
        fields = {field.name: field.type for field in msgspec.structs.fields(one)}
    else:
        return set()
    texts = {name: str(kind) for name, kind in fields.items() if "Callable" not in str(kind)}
    return {name for name, text in texts.items() if any(kind in text for kind in ("bytes", "bytearray", "memoryview"))}


def test_no_class_shows_octets_but_those_that_are_no_key() -> None:
    shown = {f"{one.__module__}.{one.__qualname__}": fields for one in _classes() if (fields := _shown(one))}
    assert shown == HARMLESS


def test_key_does_not_show_itself() -> None:
    octets = os.urandom(32)
    said = f"{[Key(octets)]} {Key(octets)}"
    assert octets.hex() not in said and repr(octets)[2:-1] not in said
