"""The webhook's certificate verifies under the registered CA, is renewed in time, and is one for all replicas."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from muster.kube.certificates import (
    CertificateLifetimes,
    ServingCertificates,
    make_authority,
    make_serving,
    renewed,
    service_names,
)
from muster.kube.errors import ApiError
from muster.kube.kinds import SECRETS

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


async def test_a_change_of_authority_is_told_and_keeps_trusting_the_old_one(memory_api, clock):
    lifetimes = CertificateLifetimes(authority=timedelta(hours=3), serving=timedelta(hours=1))
    certificates = ServingCertificates(memory_api, "muster-system", "muster", lifetimes=lifetimes)
    await certificates.ready()
    before, started = certificates.ca_pem, clock.now
    await certificates.changed()
    assert 2 * 3600 - 300 <= clock.now - started <= 2 * 3600 + 600, "two thirds of three hours, looked at every 10 min"
    assert certificates.ca_pem.endswith(before)
    assert len(x509.load_pem_x509_certificates(certificates.ca_pem)) == 2


async def test_an_api_failure_in_between_does_not_end_the_watch_over_the_certificate(memory_api, clock):
    lifetimes = CertificateLifetimes(authority=timedelta(hours=3), serving=timedelta(hours=1))
    certificates = ServingCertificates(memory_api, "muster-system", "muster", lifetimes=lifetimes)
    await certificates.ready()
    working = memory_api.get
    failures = iter(range(5))

    async def failing(*arguments):
        if next(failures, None) is not None:
            raise ApiError("GET", 500, "InternalError", "")
        return await working(*arguments)

    memory_api.get = failing
    await certificates.changed()
    assert next(failures, None) is None


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
