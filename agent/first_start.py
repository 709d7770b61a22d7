"""What a node's datastore holds before anyone has configured it: the node, and its NETCONF server by the agent's file.

The server's part is standard YANG data in the forms that netopeer2 reads, too: host key and certificate by reference to the
keystore, authorities by reference to the truststore, users in place.
"""

import base64
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncssh
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs7,
)

from qswitch import yang

from .config import AgentConfig, NetconfTls
from .errors import ConfigurationError
from .model import Endpoint

HOST_KEY, TLS_KEY = "genkey", "tls"
CLIENT_AUTHORITIES = "clients"
SSH_ENDPOINT, TLS_ENDPOINT = "default-ssh", "default-tls"
_TYPES, _FORMATS, _MAP_TYPES = "ietf-crypto-types", "libnetconf2-netconf-server", "ietf-x509-cert-to-name"

Data = dict[str, Any]


def node(config: AgentConfig) -> Data:
    """The node before it knows its devices: those are the datastore's business at every start."""
    capabilities = {"key_relay_mode_enable": config.relay_mode}
    return {
        f"{yang.NODE}:qkd_node": {
            "qkdn_id": config.node,
            "qkdn_version": version("quantum-switch"),
            "qkdn_location_id": config.location,
            "qkdn_capabilities": capabilities,
        }
    }


def server(config: AgentConfig) -> Data:
    """Keystore, truststore and NETCONF server. Raises ConfigurationError naming the file or member that is no good."""
    netconf = config.netconf
    keys = [_host_key(_read_host_key(netconf.host_key))]
    endpoints = [{"name": SSH_ENDPOINT, "ssh": _bind(netconf.listen) | _ssh(config)}]
    data: Data = {}
    if netconf.tls is not None:
        keys.append(_identity(netconf.tls))
        data["ietf-truststore:truststore"] = {"certificate-bags": {"certificate-bag": [_authorities(netconf.tls.files.ca)]}}
        if netconf.tls.listen is not None:
            endpoints.append({"name": TLS_ENDPOINT, "tls": _bind(netconf.tls.listen) | _tls(config, netconf.tls)})
    content: Data = {"listen": {"endpoints": {"endpoint": endpoints}}}
    if netconf.call_home:
        content["call-home"] = {"netconf-client": _clients(config)}
    return data | {
        "ietf-keystore:keystore": {"asymmetric-keys": {"asymmetric-key": keys}},
        "ietf-netconf-server:netconf-server": content,
    }


def _bind(listen: Endpoint) -> Data:
    return {"tcp-server-parameters": {"local-bind": [{"local-address": listen.address, "local-port": listen.port}]}}


def _clients(config: AgentConfig) -> list[Data]:
    clients = []
    for one in config.netconf.call_home:
        tls = config.netconf.tls
        access = _tls(config, tls) if one.transport == "tls" and tls is not None else _ssh(config)
        remote = {"tcp-client-parameters": {"remote-address": one.remote.address, "remote-port": one.remote.port}}
        endpoint = {"name": one.name, one.transport: remote | access}
        persistent: Data = {"connection-type": {"persistent": {}}}
        clients.append({"name": one.name, "endpoints": {"endpoint": [endpoint]}} | persistent)
    return clients


# SSH -----------------------------------------------------------------------------------------------------------------


def _read_host_key(file: Path) -> asyncssh.SSHKey:
    """The node's SSH host key; made, for its owner's eyes only, when the file does not exist."""
    if not file.exists():
        key = asyncssh.generate_private_key("ssh-ed25519")
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(key.export_private_key("openssh"))
        file.with_name(f"{file.name}.pub").write_bytes(key.export_public_key("openssh"))
        return key
    try:
        return asyncssh.read_private_key(file)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise ConfigurationError(str(file), f"is no usable private key: {error}") from error


def _host_key(key: asyncssh.SSHKey) -> Data:
    """In the OpenSSH format: one that netopeer2 takes for every kind of key."""
    return {
        "name": HOST_KEY,
        "public-key-format": f"{_TYPES}:ssh-public-key-format",
        "public-key": _body(key.export_public_key("openssh").split()[1]),
        "private-key-format": f"{_FORMATS}:openssh-private-key-format",
        "cleartext-private-key": _body(b"".join(key.export_private_key("openssh").splitlines()[1:-1])),
    }


def _ssh(config: AgentConfig) -> Data:
    users = [_user(config, one.name, one.public_key) for one in config.netconf.users if one.public_key]
    reference = {"central-keystore-reference": HOST_KEY}
    parameters = {
        "server-identity": {"host-key": [{"name": "default", "public-key": reference}]},
        "client-authentication": {"users": {"user": users}},
    }
    return {"ssh-server-parameters": parameters}


def _user(config: AgentConfig, name: str, public_key: str) -> Data:
    try:
        key = asyncssh.import_public_key(public_key)
    except asyncssh.KeyImportError as error:
        raise ConfigurationError(str(config.file), f"[netconf.users] public_key of '{name}': {error}") from error
    entry = {
        "name": "first-start",
        "public-key-format": f"{_TYPES}:ssh-public-key-format",
        "public-key": _body(key.export_public_key("openssh").split()[1]),
    }
    return {"name": name, "public-keys": {"inline-definition": {"public-key": [entry]}}}


# TLS -----------------------------------------------------------------------------------------------------------------


def _identity(tls: NetconfTls) -> Data:
    """The certificate as it stands, which is what netopeer2 reads; a chain as CMS, which is what the models say."""
    file = tls.files.private_key
    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(str(file), f"is no usable private key: {error}") from error
    chain = _certificates(tls.files.certificate)
    spki = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if chain[0].public_key().public_bytes(*spki) != key.public_key().public_bytes(*spki):
        raise ConfigurationError(str(tls.files.certificate), f"does not begin with the certificate of {file.name}")
    certificate = (
        chain[0].public_bytes(Encoding.DER) if len(chain) == 1 else pkcs7.serialize_certificates(chain, Encoding.DER)
    )
    return {
        "name": TLS_KEY,
        "public-key-format": f"{_TYPES}:subject-public-key-info-format",
        "public-key": _text(key.public_key().public_bytes(*spki)),
        "private-key-format": f"{_FORMATS}:private-key-info-format",
        "cleartext-private-key": _text(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
        "certificates": {"certificate": [{"name": TLS_KEY, "cert-data": _text(certificate)}]},
    }


def _authorities(file: Path) -> Data:
    entries = [
        {"name": str(number), "cert-data": _text(one.public_bytes(Encoding.DER))}
        for number, one in enumerate(_certificates(file), 1)
    ]
    return {"name": CLIENT_AUTHORITIES, "certificate": entries}


def _certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(str(file), f"is no usable certificate: {error}") from error


def _tls(config: AgentConfig, tls: NetconfTls) -> Data:
    identity = {"central-keystore-reference": {"asymmetric-key": TLS_KEY, "certificate": TLS_KEY}}
    specified = [
        {
            "fingerprint": f"04:{bytes.fromhex(one.fingerprint).hex(':')}",
            "map-type": f"{_MAP_TYPES}:specified",
            "name": one.name,
        }
        for one in config.netconf.users
        if one.fingerprint
    ]
    named = [{"map-type": f"{_MAP_TYPES}:{tls.names}"}] if tls.names else []
    mappings = [{"id": number, **one} for number, one in enumerate([*specified, *named], 1)]
    parameters = {
        "server-identity": {"certificate": identity},
        "client-authentication": {"ca-certs": {"central-truststore-reference": CLIENT_AUTHORITIES}},
    }
    return {
        "tls-server-parameters": parameters,
        "netconf-server-parameters": {"client-identity-mappings": {"cert-to-name": mappings}},
    }


def _body(base64_text: bytes) -> str:
    return base64_text.decode("ascii")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
