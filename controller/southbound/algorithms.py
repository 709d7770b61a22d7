"""Which algorithms two sides of SSH offer each other, and which they agree on (RFC 4253 clause 7.1). Pure."""

from collections.abc import Mapping

# The name-lists of SSH_MSG_KEXINIT, in their order; those of languages, which nobody uses, left out.
KINDS = (
    "key exchange",
    "host key",
    "cipher to the node",
    "cipher from the node",
    "MAC to the node",
    "MAC from the node",
    "compression to the node",
    "compression from the node",
)
_MESSAGE = 20
_COOKIE = 16
# Names in the list of key exchanges that announce extensions and are no algorithms (RFC 8308, OpenSSH's strict exchange).
_MARKERS = ("ext-info-", "kex-strict-")

type Offer = Mapping[str, tuple[str, ...]]


def parse_kexinit(payload: bytes) -> Offer:
    """The algorithms that one side offers, by kind. Empty when the message is not there, or is no SSH_MSG_KEXINIT."""
    if payload[:1] != bytes([_MESSAGE]):
        return {}
    lists, position = [], 1 + _COOKIE
    for _ in KINDS:
        length = int.from_bytes(payload[position : position + 4])
        text = payload[position + 4 : position + 4 + length].decode("ascii", "replace")
        lists.append(tuple(one for one in text.split(",") if one and not one.startswith(_MARKERS)))
        position += 4 + length
    return dict(zip(KINDS, lists, strict=True))


def agreed(client: Offer, server: Offer) -> Mapping[str, str | None]:
    """The first of the client's that the server has too; None where there is none."""
    return {kind: next((one for one in client.get(kind, ()) if one in server.get(kind, ())), None) for kind in KINDS}


def without_mac(cipher: str | None) -> bool:
    """Whether a cipher authenticates by itself, so that no MAC is needed (RFC 5647, OpenSSH's)."""
    return cipher is not None and ("gcm" in cipher or "poly1305" in cipher)


def missing(client: Offer, server: Offer) -> str | None:
    """The first kind of algorithm that the two sides have nothing of in common; None when there is no such kind."""
    chosen = agreed(client, server)
    for kind in KINDS if client and server else ():
        direction = kind.removeprefix("MAC ")
        if chosen[kind] is None and not (direction != kind and without_mac(chosen[f"cipher {direction}"])):
            return kind
    return None
