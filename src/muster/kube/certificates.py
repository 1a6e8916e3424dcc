"""A certificate authority of our own and the webhook's serving certificate, shared by all replicas in a Secret.

The API server trusts what the webhook configuration's ``caBundle`` says, so no public authority is needed. Whoever
finds the Secret missing or due writes it; the others adopt what they find (a conflict means: look again).

An authority is renewed in two steps, so that at no moment anything is served that the API server does not trust yet:
the new one joins the bundle at once, but signs what is served only when everybody has had time to learn of it. The old
one stays in the bundle until it expires.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from muster.kube.client import Client
from muster.kube.credentials import AccessError, load_client_certificate
from muster.kube.errors import ApiError
from muster.kube.kinds import SECRETS
from muster.kube.objects import ObjectMeta, Secret

SECRET_NAME = "muster-webhook-tls"
CHECK_SECONDS = 600.0
"""How often a replica looks whether another one has renewed the certificate."""
_EARLIER = timedelta(minutes=5)
"""Certificates begin this long before they are made: clocks differ."""


class CertificateLifetimes(msgspec.Struct, frozen=True):
    """Both are renewed when two thirds of their life have passed."""

    authority: timedelta = timedelta(days=3650)
    serving: timedelta = timedelta(days=365)
    settling: timedelta = timedelta(minutes=20)
    """From a new authority's joining the trusted bundle until it signs what is served."""

    def __post_init__(self) -> None:
        if not timedelta(0) < 3 * self.settling < self.serving <= self.authority:
            raise ValueError(
                "lifetimes must be 0 < 3 × settling < serving <= authority, "
                f"got {self.settling}, {self.serving}, {self.authority}"
            )


class KeyPair(msgspec.Struct, frozen=True):
    """PEM texts. ``certificate`` may be a bundle; the first one belongs to ``key``."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "KeyPair(…)"


class CertificateBundle(msgspec.Struct, frozen=True):
    """What the Secret holds. ``authority.certificate`` also lists earlier authorities until they expire."""

    authority: KeyPair
    serving: KeyPair

    def __repr__(self) -> str:
        return "CertificateBundle(…)"


def make_authority(now: datetime, lifetime: timedelta, earlier: bytes = b"") -> KeyPair:
    """A new authority; ``earlier`` authorities stay trusted while they are valid, so nothing breaks in between."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"muster-webhook-ca-{now:%Y%m%d%H%M%S}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _begun(name, name, key.public_key(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    kept = [one for one in _certificates(earlier) if one.not_valid_after_utc > now]
    bundle = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in [certificate, *kept])
    return KeyPair(bundle, _private_pem(key))


def make_serving(authority: KeyPair, names: Sequence[str], now: datetime, lifetime: timedelta) -> KeyPair:
    """A serving certificate for ``names`` (DNS names or IP addresses), signed by ``authority``."""
    issuer = _certificates(authority.certificate)[0]
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key of the certificate authority is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "muster-webhook")])
    end = min(now + lifetime, issuer.not_valid_after_utc)
    certificate = (
        _begun(subject, issuer.subject, key.public_key(), now, end - now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def renewed(
    bundle: CertificateBundle | None, names: Sequence[str], now: datetime, lifetimes: CertificateLifetimes
) -> CertificateBundle:
    """``bundle`` itself while it is good; otherwise with what is missing, due, damaged or for other names made new."""
    authority = bundle.authority if bundle is not None else None
    if authority is None or not _is_good(authority, now):
        authority = make_authority(now, lifetimes.authority, authority.certificate if authority is not None else b"")
    serving = bundle.serving if bundle is not None else None
    if serving is None or not _may_be_served(serving, authority, names, now, lifetimes.settling):
        serving = make_serving(authority, names, now, lifetimes.serving)
    fresh = CertificateBundle(authority, serving)
    return bundle if bundle == fresh else fresh


def service_names(service: str, namespace: str) -> list[str]:
    """How the API server (``<service>.<namespace>.svc``) and others in the cluster reach a service."""
    return [f"{service}.{namespace}.svc", f"{service}.{namespace}", f"{service}.{namespace}.svc.cluster.local"]


def serving_context() -> ssl.SSLContext:
    """For a listener; ``load_pair`` gives it what it serves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load_pair(context: ssl.SSLContext, pair: KeyPair, source: str) -> float:
    """Serve ``pair`` to new connections; returns the Unix time at which it ends.

    Raises ``AccessError``; what was served before then still is.
    """
    for each in (serving_context(), context):  # OpenSSL would keep half of a bad pair
        load_client_certificate(each, pair.certificate, pair.key, source)
    return _certificates(pair.certificate)[0].not_valid_after_utc.timestamp()


class ServingCertificates:
    """Our own: keeps the Secret, and a TLS context that always serves the newest certificate to new connections."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        service: str,
        host: str = "",
        *,
        lifetimes: CertificateLifetimes | None = None,
        secret_name: str = SECRET_NAME,
    ) -> None:
        """``host``: a further name or address the webhook is reached by (outside a cluster)."""
        self._client = client
        self._namespace = namespace
        self._secret_name = secret_name
        self._lifetimes = lifetimes or CertificateLifetimes()
        wanted = [*service_names(service, namespace), host]
        self._names = [name for name in wanted if name and not _is_wildcard(name)]
        self._bundle: CertificateBundle | None = None
        self._context = serving_context()
        self.expires = 0.0
        """Unix time at which what is served ends."""

    @property
    def ca_pem(self) -> bytes:
        """The ``caBundle`` by which the certificate is verified. Only after ``ready``."""
        if self._bundle is None:
            raise RuntimeError("no certificate yet; await ready() first")
        return self._bundle.authority.certificate

    async def ready(self) -> ssl.SSLContext:
        """The context to serve with. Raises ``ApiError`` when the Secret cannot be had, else as ``check``."""
        await self.check()
        return self._context

    async def check(self) -> None:
        """Adopt what the Secret holds, renewing it first when it is missing or due.

        Raises ``AccessError`` when the Secret is one that somebody else has made: it is not overwritten.
        """
        while True:
            now = datetime.fromtimestamp(self._client.clock.time(), UTC)
            found = await self._read()
            if found is not None and found.data.get("tls.crt") and "ca.key" not in found.data:
                raise AccessError(
                    f"Secret {self._namespace}/{self._secret_name} holds a certificate that is not Muster's (there is "
                    "no ca.key): mount it and name the files in webhook.certificates.{certFile, keyFile}, or delete it"
                )
            stored = _bundle_of(found) if found is not None else None
            wanted = renewed(stored, self._names, now, self._lifetimes)
            if wanted is stored:
                break
            try:
                await self._write(found, wanted)
                break
            except ApiError as error:
                # another replica was faster, or deleted it: its word counts
                if not (error.conflict or error.already_exists or (error.not_found and found is not None)):
                    raise
        if wanted != self._bundle:
            self.expires = load_pair(self._context, wanted.serving, f"Secret {self._secret_name}")
            self._bundle = wanted

    async def _read(self) -> Secret | None:
        try:
            return await self._client.get(SECRETS, self._secret_name, self._namespace)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def _write(self, found: Secret | None, bundle: CertificateBundle) -> None:
        data = {
            "ca.crt": bundle.authority.certificate,
            "ca.key": bundle.authority.key,
            "tls.crt": bundle.serving.certificate,
            "tls.key": bundle.serving.key,
        }
        version = found.metadata.resource_version if found is not None else ""
        metadata = ObjectMeta(name=self._secret_name, namespace=self._namespace, resource_version=version)
        secret = Secret(metadata=metadata, data=data, type=found.type if found is not None else "kubernetes.io/tls")
        if found is None:
            await self._client.create(SECRETS, secret, self._namespace)
        else:
            await self._client.replace(SECRETS, self._secret_name, secret, self._namespace)


def _bundle_of(secret: Secret) -> CertificateBundle | None:
    data = secret.data
    if not all(data.get(key) for key in ("ca.crt", "ca.key", "tls.crt", "tls.key")):
        return None
    return CertificateBundle(KeyPair(data["ca.crt"], data["ca.key"]), KeyPair(data["tls.crt"], data["tls.key"]))


def _is_good(pair: KeyPair, now: datetime) -> bool:
    """Readable, matching its key, begun, and with a third of its life ahead."""
    certificate = _matching(pair)
    if certificate is None:
        return False
    made, end = certificate.not_valid_before_utc + _EARLIER, certificate.not_valid_after_utc
    return certificate.not_valid_before_utc <= now < made + (end - made) * 2 / 3


def _may_be_served(
    serving: KeyPair, authority: KeyPair, names: Sequence[str], now: datetime, settling: timedelta
) -> bool:
    """Covers all ``names``, and is good and of the newest authority; or that one is too new to be known to everybody,
    and this is valid and of an earlier one."""
    certificate, trusted = _matching(serving), _certificates(authority.certificate)
    if certificate is None or not _covers(certificate, names):
        return False
    if _is_issued_by(certificate, trusted[0]):
        return _is_good(serving, now)
    settled = now >= trusted[0].not_valid_before_utc + _EARLIER + settling
    valid = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
    return not settled and valid and any(_is_issued_by(certificate, earlier) for earlier in trusted[1:])


def _matching(pair: KeyPair) -> x509.Certificate | None:
    """The certificate; ``None`` when it cannot be read or is not that of the key."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
    except ValueError:
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def _covers(certificate: x509.Certificate, names: Sequence[str]) -> bool:
    try:
        covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return set(covered) >= {_alternative_name(name) for name in names}


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _certificates(bundle: bytes) -> list[x509.Certificate]:
    """Those of a PEM bundle; none when it is empty or damaged."""
    try:
        return x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return []


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_wildcard(host: str) -> bool:
    """``0.0.0.0`` and ``::`` say where to listen, not how to be reached."""
    return host in ("0.0.0.0", "::")


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
