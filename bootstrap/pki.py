"""The cluster's own certificate authorities, certificates and kubeconfigs.

Every server and every client of the node has a certificate of its own, so that RBAC tells them
apart; nothing is added to the machine's trust store, and private keys never leave `.mlhub`.
"""

import base64
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bootstrap.errors import BootstrapError
from bootstrap.files import write_if_changed, write_private
from bootstrap.paths import (
    API_PORT,
    API_SERVICE_ADDRESS,
    KUBE_CONTEXT,
    NODE_ADDRESS,
    NODE_NAME,
    Layout,
)

LIFETIME = timedelta(days=3650)
RENEW_BEFORE = timedelta(days=30)
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
TRUST_MARK = "\n# The registry of mlhub\n"


@dataclass(frozen=True)
class Leaf:
    """One certificate: who it names, and where it may be used.

    authority: `ca` for the cluster, `etcd-ca` for its store, `front-proxy-ca` for what stands
        before another API server, `registry-ca` for the image registry.
    organizations: Kubernetes reads them as groups.
    """

    name: str
    common_name: str
    authority: str = "ca"
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


API_DNS = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)
AUTHORITIES = ("ca", "etcd-ca", "front-proxy-ca", "registry-ca")
LEAVES = (
    Leaf(
        "apiserver",
        "kube-apiserver",
        dns=API_DNS,
        addresses=("127.0.0.1", NODE_ADDRESS, API_SERVICE_ADDRESS),
    ),
    Leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client"),
    Leaf("kubelet", NODE_NAME, dns=(NODE_NAME,), addresses=(NODE_ADDRESS, "127.0.0.1")),
    Leaf("etcd", "etcd", authority="etcd-ca", dns=("localhost",), addresses=("127.0.0.1",)),
    Leaf("apiserver-etcd-client", "kube-apiserver", authority="etcd-ca"),
    Leaf("front-proxy-client", "front-proxy-client", authority="front-proxy-ca"),
    Leaf(
        "registry",
        "registry",
        authority="registry-ca",
        dns=("localhost",),
        addresses=("127.0.0.1",),
    ),
    Leaf("admin", "mlhub-admin", organizations=("system:masters",)),
    Leaf("controller-manager", "system:kube-controller-manager"),
    Leaf("scheduler", "system:kube-scheduler"),
    Leaf("node", f"system:node:{NODE_NAME}", organizations=("system:nodes",)),
    Leaf("proxy", "system:kube-proxy"),
)
KUBECONFIGS: Mapping[str, str] = {
    "controller-manager": "controller-manager",
    "scheduler": "scheduler",
    "node": "node",
    "proxy": "proxy",
}
"""Kubeconfigs in the configuration folder, each by the certificate it carries."""


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _valid(path: Path, now: datetime) -> bool:
    """Whether the certificate is there, with its key, and lasts for a while yet."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return path.with_suffix(".key").exists() and certificate.not_valid_after_utc - now > (
        RENEW_BEFORE
    )


def _builder(subject: x509.Name, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def make_authority(folder: Path, name: str, now: datetime) -> bool:
    """Makes the authority where none is valid; returns whether it did."""
    path = folder / f"{name}.crt"
    if _valid(path, now):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mlhub-{name}")])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(subject, now)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(path.with_suffix(".key"), _pem(key))
    write_private(path, certificate.public_bytes(serialization.Encoding.PEM))
    return True


def make_leaf(folder: Path, leaf: Leaf, now: datetime) -> None:
    """Makes a certificate and its key, signed by the leaf's authority."""
    authority = folder / f"{leaf.authority}.crt"
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    issuer_key = serialization.load_pem_private_key(
        authority.with_suffix(".key").read_bytes(), password=None
    )
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - made above
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, o) for o in leaf.organizations]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)])
    builder = (
        _builder(subject, now)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                if leaf.dns
                else [ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
    )
    if leaf.dns:
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in leaf.dns]
        alternatives += [x509.IPAddress(ipaddress.ip_address(a)) for a in leaf.addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    path = folder / f"{leaf.name}.crt"
    write_private(path.with_suffix(".key"), _pem(key))
    write_private(path, certificate.public_bytes(serialization.Encoding.PEM))


def kubeconfig(folder: Path, certificate: str) -> str:
    """A kubeconfig for the holder of this certificate, with everything inside it."""

    def embedded(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    cluster = {
        "server": f"https://{NODE_ADDRESS}:{API_PORT}",
        "certificate-authority-data": embedded("ca.crt"),
    }
    user = {
        "client-certificate-data": embedded(f"{certificate}.crt"),
        "client-key-data": embedded(f"{certificate}.key"),
    }
    context = {"cluster": KUBE_CONTEXT, "user": certificate}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": KUBE_CONTEXT, "cluster": cluster}],
        "users": [{"name": certificate, "user": user}],
        "contexts": [{"name": KUBE_CONTEXT, "context": context}],
        "current-context": KUBE_CONTEXT,
    }
    return yaml.safe_dump(config, sort_keys=False)


def _make_service_account_key(folder: Path) -> None:
    if (folder / "sa.key").exists() and (folder / "sa.pub").exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_private(folder / "sa.key", _pem(key))
    write_private(folder / "sa.pub", public)


def trust_bundle(layout: Layout) -> str:
    """What the engine and its plug-ins trust: the machine's authorities, and the registry's.

    Raises `BootstrapError` where SSL_CERT_FILE names no bundle.
    """
    named = Path(os.environ.get("SSL_CERT_FILE") or SYSTEM_BUNDLE)
    # A shell with our environment still names ours after `down --purge-data` has removed it.
    if named == layout.trust and not named.exists():
        named = SYSTEM_BUNDLE
    if named == SYSTEM_BUNDLE and not named.exists():
        named = Path(certifi.where())
    try:
        machines = named.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BootstrapError(
            f"SSL_CERT_FILE names {named}, which cannot be read ({error}). Give it a bundle of "
            "certificates as PEM, or unset it."
        ) from error
    # Called in an environment of ours, the bundle is the one that is written here.
    machines = machines.partition(TRUST_MARK)[0]
    return f"{machines}{TRUST_MARK}{layout.registry_authority.read_text()}"


def ensure(layout: Layout, leaves: Sequence[Leaf] = LEAVES) -> None:
    """Everything that is missing or about to expire is made; what is valid is left alone."""
    now = datetime.now(UTC)
    renewed = {name: make_authority(layout.pki, name, now) for name in AUTHORITIES}
    for leaf in leaves:
        if renewed[leaf.authority] or not _valid(layout.pki / f"{leaf.name}.crt", now):
            make_leaf(layout.pki, leaf, now)
    _make_service_account_key(layout.pki)
    write_if_changed(layout.trust, trust_bundle(layout))
    for name, certificate in KUBECONFIGS.items():
        write_private(layout.config / f"{name}.kubeconfig", kubeconfig(layout.pki, certificate))
    write_private(layout.kubeconfig, kubeconfig(layout.pki, "admin"))
