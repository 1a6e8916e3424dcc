"""The webhook's certificate verifies under the registered CA, is renewed in time, and is one for all replicas."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from muster.kube.certificate_files import CertificateFiles
from muster.kube.certificates import (
    CertificateLifetimes,
    KeyPair,
    ServingCertificates,
    make_authority,
    make_serving,
    renewed,
    service_names,
)
from muster.kube.credentials import AccessError
from muster.kube.kinds import SECRETS
from muster.kube.objects import ObjectMeta, Secret

NOW = datetime(2026, 11, 25, tzinfo=UTC)
NAMES = service_names("muster", "muster-system")
YEAR = timedelta(days=365)
LIFETIMES = CertificateLifetimes()


async def shake_hands(serving: ssl.SSLContext, ca_pem: bytes, name: str) -> bytes:
    """The certificate (DER) shown to a client who trusts ``ca_pem`` alone; ``ssl.SSLError`` if it must not."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cadata=ca_pem.decode())
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=name)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
    return shown


def today(clock) -> None:
    """Certificates are verified against the real date."""
    clock.now = datetime.now(UTC).timestamp()


@pytest.mark.parametrize("name", ["muster.muster-system.svc", "muster.muster-system.svc.cluster.local", "127.0.0.1"])
async def test_the_api_server_can_verify_what_is_served(memory_api, clock, name):
    today(clock)
    certificates = ServingCertificates(memory_api, "muster-system", "muster", "127.0.0.1")
    serving = await certificates.ready()
    assert await shake_hands(serving, certificates.ca_pem, name)


async def test_a_name_that_is_not_ours_does_not_verify(memory_api, clock):
    today(clock)
    certificates = ServingCertificates(memory_api, "muster-system", "muster")
    serving = await certificates.ready()
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(serving, certificates.ca_pem, "other.muster-system.svc")


async def test_another_authority_does_not_verify(memory_api, clock):
    today(clock)
    serving = await ServingCertificates(memory_api, "muster-system", "muster").ready()
    stranger = make_authority(datetime.now(UTC), YEAR)
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(serving, stranger.certificate, NAMES[0])


async def test_a_second_replica_adopts_what_the_first_has_written(memory_api):
    first = ServingCertificates(memory_api, "muster-system", "muster")
    second = ServingCertificates(memory_api, "muster-system", "muster")
    await first.ready()
    await second.ready()
    assert first.ca_pem == second.ca_pem
    assert memory_api.writes == ["create"]


async def test_two_replicas_that_begin_at_once_end_with_one_authority(memory_api_type, clock):
    api = memory_api_type(clock, before=lambda: asyncio.sleep(0), after=lambda: asyncio.sleep(0))
    replicas = [ServingCertificates(api, "muster-system", "muster") for _ in range(3)]
    await asyncio.gather(*(replica.ready() for replica in replicas))
    assert len({replica.ca_pem for replica in replicas}) == 1
    assert api.writes == ["create"]


async def test_a_running_listener_serves_the_renewed_certificate_to_new_connections(memory_api, clock):
    today(clock)
    start = clock.now
    certificates = ServingCertificates(memory_api, "muster-system", "muster")
    serving = await certificates.ready()
    await shake_hands(serving, certificates.ca_pem, NAMES[0])
    authority = certificates.ca_pem
    clock.now = start + 0.7 * YEAR.total_seconds()
    await certificates.check()
    assert certificates.ca_pem == authority
    # the client lives in the present, where the certificate of the future is shown but not valid yet
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        await shake_hands(serving, certificates.ca_pem, NAMES[0])


SHORT = CertificateLifetimes(authority=timedelta(hours=9), serving=timedelta(hours=3), settling=timedelta(minutes=20))


def authorities(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


async def test_at_every_moment_of_three_days_what_is_served_was_trusted_twenty_minutes_before(memory_api, clock):
    replicas = [ServingCertificates(memory_api, "muster-system", "muster", lifetimes=SHORT) for _ in range(2)]
    for replica in replicas:
        await replica.ready()
    known, served = [set(authorities(replicas[0].ca_pem))], set()
    for minute in range(3 * 24 * 60):
        clock.now += 60
        await replicas[minute % 2].check()
        shown = await memory_api.get(SECRETS, "muster-webhook-tls", "muster-system")
        [certificate] = authorities(shown.data["tls.crt"])
        now = datetime.fromtimestamp(clock.now, UTC)
        assert certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
        trusted_then = known[max(0, len(known) - 20)]
        [issuer] = [one for one in authorities(shown.data["ca.crt"]) if one.subject == certificate.issuer]
        certificate.verify_directly_issued_by(issuer)
        assert issuer in trusted_then
        served.add(certificate)
        known.append(set(authorities(replicas[minute % 2].ca_pem)))
    assert len(set().union(*known)) > 10, "authorities were renewed every six hours"
    assert len(served) > 30


async def test_the_earlier_authority_is_trusted_until_it_expires_and_longer_than_what_it_signed(memory_api, clock):
    certificates = ServingCertificates(memory_api, "muster-system", "muster", lifetimes=SHORT)
    await certificates.ready()
    [first] = authorities(certificates.ca_pem)
    clock.now += 6.1 * 3600
    await certificates.check()
    second, kept = authorities(certificates.ca_pem)
    assert kept == first != second
    clock.now += 2.8 * 3600
    await certificates.check()
    assert first in authorities(certificates.ca_pem)
    clock.now += 3.4 * 3600
    await certificates.check()
    third, kept = authorities(certificates.ca_pem)
    assert kept == second
    assert third not in (first, second)


@pytest.mark.parametrize(
    "lifetimes",
    [
        {"settling": timedelta(0)},
        {"serving": timedelta(hours=1)},
        {"authority": timedelta(days=300)},
    ],
)
def test_lifetimes_that_do_not_go_together_are_refused(lifetimes):
    with pytest.raises(ValueError, match="settling"):
        CertificateLifetimes(**lifetimes)


def test_a_certificate_of_an_earlier_authority_is_not_waited_for_when_it_has_expired():
    bundle = renewed(None, NAMES, NOW, SHORT)
    later = renewed(bundle, NAMES, NOW + timedelta(hours=6, minutes=10), SHORT)
    assert later.authority != bundle.authority
    assert later.serving != bundle.serving


async def test_a_certificate_that_somebody_else_put_into_the_secret_is_neither_used_nor_overwritten(memory_api):
    pair = make_serving(make_authority(NOW, YEAR), NAMES, NOW, YEAR)
    theirs = Secret(
        metadata=ObjectMeta(name="muster-webhook-tls", namespace="muster-system"),
        data={"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": b"theirs"},
    )
    await memory_api.create(SECRETS, theirs, "muster-system")
    with pytest.raises(AccessError, match="muster-system/muster-webhook-tls holds a certificate that is not Muster's"):
        await ServingCertificates(memory_api, "muster-system", "muster").ready()
    assert memory_api.writes == ["create"]


async def test_a_damaged_secret_is_replaced(memory_api):
    certificates = ServingCertificates(memory_api, "muster-system", "muster")
    await certificates.ready()
    [path] = memory_api.stored
    memory_api.stored[path]["data"]["tls.key"] = "bm90IGEga2V5"
    await certificates.check()
    assert memory_api.writes == ["create", "update"]


@pytest.mark.parametrize(("passed", "is_new"), [(0.0, False), (0.6, False), (0.7, True), (1.5, True)])
def test_a_certificate_is_renewed_when_two_thirds_of_its_life_have_passed(passed, is_new):
    bundle = renewed(None, NAMES, NOW, LIFETIMES)
    later = renewed(bundle, NAMES, NOW + passed * YEAR, LIFETIMES)
    assert (later.serving != bundle.serving) is is_new
    assert later.authority == bundle.authority


def test_a_bundle_that_is_good_is_left_as_it_is():
    bundle = renewed(None, NAMES, NOW, LIFETIMES)
    assert renewed(bundle, NAMES, NOW, LIFETIMES) is bundle


def test_a_certificate_for_other_names_is_made_anew():
    bundle = renewed(None, NAMES, NOW, LIFETIMES)
    assert renewed(bundle, [*NAMES, "10.0.0.1"], NOW, LIFETIMES).serving != bundle.serving


def test_a_certificate_of_another_authority_is_made_anew():
    bundle, stranger = renewed(None, NAMES, NOW, LIFETIMES), renewed(None, NAMES, NOW, LIFETIMES)
    mixed = type(bundle)(stranger.authority, bundle.serving)
    assert renewed(mixed, NAMES, NOW, LIFETIMES).serving not in (bundle.serving, stranger.serving)


def test_an_expired_authority_is_forgotten():
    old = make_authority(NOW, timedelta(days=1))
    new = make_authority(NOW + timedelta(days=2), YEAR, old.certificate)
    assert len(x509.load_pem_x509_certificates(new.certificate)) == 1


def test_a_certificate_never_outlives_its_authority():
    authority = make_authority(NOW, timedelta(days=10))
    serving = make_serving(authority, NAMES, NOW, YEAR)
    end = x509.load_pem_x509_certificate(serving.certificate).not_valid_after_utc
    assert end == NOW + timedelta(days=10)


async def test_no_repr_shows_a_key(memory_api):
    await ServingCertificates(memory_api, "muster-system", "muster").ready()
    bundle = renewed(None, NAMES, NOW, LIFETIMES)
    stored = await memory_api.get(SECRETS, "muster-webhook-tls", "muster-system")
    for text in (repr(bundle), repr(bundle.serving), repr(stored)):
        assert "PRIVATE" not in text and "LS0t" not in text


# Files that somebody else keeps


def write_pair(folder: Path, authority: KeyPair, name: str) -> KeyPair:
    pair = make_serving(authority, [name], datetime.now(UTC), YEAR)
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    return pair


async def test_a_replaced_file_is_served_to_new_connections(tmp_path):
    authority = make_authority(datetime.now(UTC), YEAR)
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    write_pair(tmp_path, authority, "first")
    serving = await files.ready()
    assert await shake_hands(serving, authority.certificate, "first")
    write_pair(tmp_path, authority, "second")
    await files.check()
    assert await shake_hands(serving, authority.certificate, "second")


async def test_a_pair_that_does_not_match_leaves_what_is_served(tmp_path):
    authority = make_authority(datetime.now(UTC), YEAR)
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    pair = write_pair(tmp_path, authority, "first")
    serving = await files.ready()
    write_pair(tmp_path, authority, "second")
    (tmp_path / "tls.key").write_bytes(pair.key)
    with pytest.raises(AccessError, match="matching pair"):
        await files.check()
    assert await shake_hands(serving, authority.certificate, "first")


async def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AccessError, match=r"tls\.crt cannot be read: No such file"):
        await CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key").ready()


async def test_the_authority_of_files_is_registered_only_where_it_is_given(tmp_path):
    authority = make_authority(datetime.now(UTC), YEAR)
    write_pair(tmp_path, authority, "first")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    silent = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    telling = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    await silent.ready()
    await telling.ready()
    assert (silent.ca_pem, telling.ca_pem) == (b"", authority.certificate)
