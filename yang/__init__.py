"""Which YANG modules a node implements, with which features, and where their files are.

Every user of the modules (the repository of a node, tests, tools) reads this list; nobody keeps a second one. The
modules of ETSI and of this project lie beside this file, those of the IETF come with the libraries of the runtime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from types import MappingProxyType

TYPES = "etsi-qkd-node-types"
NODE = "etsi-qkd-sdn-node"
EXTENSIONS = "qkd-node-extensions"

NAMESPACES: Mapping[str, str] = MappingProxyType(
    {
        TYPES: "urn:etsi:qkd:yang:etsi-qkd-node-types",
        NODE: "urn:etsi:qkd:yang:etsi-qkd-node",
        EXTENSIONS: "urn:quantum-switch:yang:qkd-node-extensions",
    }
)

FOLDER = Path(__file__).resolve().parent
_SYSTEM = Path("/usr/share/yang/modules")
# pyang installs the IETF's modules beside its package; of them, only those that no library has are wanted.
_PYANG = Path(str(distribution("pyang").locate_file("../../../share/yang/modules/ietf"))).resolve()
# In this order: libnetconf2 brings the newer revision where it and sysrepo bring the same module.
SEARCH: tuple[Path, ...] = (FOLDER, _SYSTEM / "libnetconf2", _SYSTEM / "sysrepo", _SYSTEM / "libyang", _PYANG)


@dataclass(frozen=True, slots=True)
class Module:
    """A module that a node implements, and the features of it that are on."""

    name: str
    features: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """The newest revision within the first folder that has the module. Raises FileNotFoundError."""
        for folder in SEARCH:
            if found := sorted((*folder.glob(f"{self.name}.yang"), *folder.glob(f"{self.name}@*.yang"))):
                return found[-1]
        raise FileNotFoundError(f"{self.name}.yang is in none of {', '.join(map(str, SEARCH))}")


# What the NETCONF server is configured with. libnetconf2-netconf-server names formats of private keys that
# ietf-crypto-types lacks, and lets netopeer2 take the same data.
SERVER: tuple[Module, ...] = (
    Module("iana-ssh-encryption-algs"),
    Module("iana-ssh-key-exchange-algs"),
    Module("iana-ssh-mac-algs"),
    Module("iana-ssh-public-key-algs"),
    Module("iana-tls-cipher-suite-algs"),
    Module("iana-crypt-hash"),
    Module("ietf-crypto-types", ("cleartext-passwords", "cleartext-private-keys")),
    Module(
        "ietf-truststore", ("central-truststore-supported", "inline-definitions-supported", "certificates", "public-keys")
    ),
    Module("ietf-keystore", ("central-keystore-supported", "inline-definitions-supported", "asymmetric-keys")),
    Module("ietf-tcp-common", ("keepalives-supported",)),
    Module("ietf-tcp-client", ("tcp-client-keepalives",)),
    Module("ietf-tcp-server", ("tcp-server-keepalives",)),
    Module("ietf-ssh-common", ("transport-params",)),
    Module("ietf-ssh-server", ("local-users-supported", "local-user-auth-publickey")),
    Module("ietf-tls-common", ("tls12", "tls13", "hello-params")),
    Module("ietf-tls-server", ("server-ident-x509-cert", "client-auth-supported", "client-auth-x509-cert")),
    Module("ietf-x509-cert-to-name"),
    Module(
        "ietf-netconf-server",
        ("ssh-listen", "tls-listen", "ssh-call-home", "tls-call-home", "central-netconf-server-supported"),
    ),
    Module("qkd-netconf-server"),
    Module("libnetconf2-netconf-server"),
    Module("ietf-netconf-monitoring"),
    Module("ietf-netconf-nmda", ("origin", "with-defaults")),
    Module("notifications"),
    Module("nc-notifications"),
)

# Their events are stored for replay. ietf-netconf-notifications is none of them: sysrepo would make and store a
# netconf-config-change for every edit, and fail edits that bring more than 1 MiB of those within a second.
REPLAY: tuple[str, ...] = (NODE,)

# The types module too must be implemented: identities of a module that is only imported are no usable values.
QKD: tuple[Module, ...] = (Module(TYPES), Module(NODE), Module(EXTENSIONS))

# Sysrepo brings ietf-netconf with all of its features off; these are what `qkd-netconf` offers as capabilities.
NETCONF_FEATURES: tuple[str, ...] = (
    "writable-running",
    "candidate",
    "confirmed-commit",
    "rollback-on-error",
    "startup",
    "validate",
    "xpath",
)
