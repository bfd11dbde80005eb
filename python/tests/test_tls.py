"""Peers and registries with certificates."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
from pathlib import Path

import pytest

import p2pdi
from conftest import PATIENCE
from p2pdi import aio

if not os.environ.get("P2PDI_REQUIRE_TOOLS"):
    pytest.importorskip("cryptography", reason="the package cryptography, which makes the certificates, is not installed")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

# As the command line says it.
OTHER_CA = "its certificate is not signed by a CA of this network; compare its CA with that of --tls-ca here"
Files = tuple[str, str, str]


class Authority:
    """A certificate authority, and the files of what it signed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"the CA in {folder.name}")])
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), critical=True)
        (folder / "ca.pem").write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))

    def files(self, name: str) -> Files:
        """Certificate, key and CA of ``name`` on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = self._builder(x509.Name([]), key).add_extension(x509.SubjectAlternativeName(names), critical=True)
        cert, private = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        cert.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        private.chmod(0o600)
        return str(cert), str(private), str(self.folder / "ca.pem")


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "theirs")


def test_peers_with_certificates_meet_at_a_registry_with_one(ours: Authority, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "a.txt").write_bytes(b"hello")
    with p2pdi.Registry(tls=ours.files("registry")) as registry:
        assert registry.url.startswith("https://")
        url = registry.url
        with (
            p2pdi.Peer("alice", registry=url, lan=False, tls=ours.files("alice"), share=tmp_path / "shared") as alice,
            p2pdi.Peer("bob", registry=url, lan=False, tls=ours.files("bob")) as bob,
            p2pdi.RegistryClient(url, tls=ours.files("watcher")) as client,
        ):
            assert alice.registered and bob.get_peer_count(wait=PATIENCE, expect=1) == 1
            assert {peer.name for peer in client.pquery()} == {"alice", "bob"}
            assert {next(changes).name for changes in [client.watch(timeout=PATIENCE)] for _ in range(2)} == {"alice", "bob"}
            alice.on("TEST", lambda message: message.body.upper())
            assert bob.whisper("alice", "hello", kind="TEST").text == "HELLO"
            alice.share(tmp_path / "shared")
            assert bob.fetch("a.txt", tmp_path / "out").result()[0].read_bytes() == b"hello"
            assert bob.send_message_to_peers("x", wait=10) == 1


def test_certificates_of_another_ca_are_refused(ours: Authority, theirs: Authority) -> None:
    with p2pdi.Registry(tls=ours.files("registry")) as registry, p2pdi.Peer("alice", lan=False, tls=ours.files("alice")) as alice:
        stranger = theirs.files("stranger")
        with pytest.raises(p2pdi.NoRoute, match=OTHER_CA):
            p2pdi.RegistryClient(registry.url, tls=stranger).pquery()
        with p2pdi.Peer("stranger", lan=False, tls=stranger) as peer:
            with pytest.raises(p2pdi.NoRoute, match=OTHER_CA):
                peer.join(alice.endpoint, timeout=PATIENCE)
        with p2pdi.Peer("plain", lan=False) as plain:
            with pytest.raises(p2pdi.NoRoute, match="it speaks TLS, and this peer does not"):
                plain.join(alice.endpoint, timeout=PATIENCE)

        async def main() -> None:
            async with aio.RegistryClient(registry.url, tls=stranger) as client:
                with pytest.raises(p2pdi.NoRoute, match=OTHER_CA):
                    await client.pquery()

        asyncio.run(main())


def test_files_that_are_missing_or_swapped_are_named(ours: Authority, tmp_path: Path) -> None:
    cert, key, ca = ours.files("alice")
    absent = str(tmp_path / "absent.pem")
    for files in ((absent, key, ca), (cert, absent, ca), (cert, key, absent)):
        with pytest.raises(FileNotFoundError, match="absent.pem"):
            p2pdi.Peer("alice", lan=False, tls=files)
        with pytest.raises(p2pdi.NotFound):
            p2pdi.RegistryClient("https://127.0.0.1:1", tls=files)
        with pytest.raises(p2pdi.NotFound):
            p2pdi.Registry(tls=files)
    with pytest.raises(p2pdi.Invalid):
        p2pdi.Peer("alice", lan=False, tls=(key, cert, ca))
