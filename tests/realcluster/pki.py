"""Keys and certificates for a control plane that lives for minutes: P-256, X.509, nothing installed.

Good enough for TLS between processes of one test run, and for nothing else: the arithmetic is not constant-time.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

Point = tuple[int, int]

# The curve P-256 (FIPS 186-4, D.1.2.3).
PRIME = 0xFFFFFFFF_00000001_00000000_00000000_00000000_FFFFFFFF_FFFFFFFF_FFFFFFFF
ORDER = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551
BASE: Point = (
    0x6B17D1F2_E12C4247_F8BCE6E5_63A440F2_77037D81_2DEB33A0_F4A13945_D898C296,
    0x4FE342E2_FE1A7F9B_8EE7EB4A_7C0F9E16_2BCE3357_6B315ECE_CBB64068_37BF51F5,
)

# Object identifiers, already encoded.
EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")
PRIME256V1 = bytes.fromhex("06082a8648ce3d030107")
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
COMMON_NAME, ORGANIZATION = bytes.fromhex("0603550403"), bytes.fromhex("060355040a")
BASIC_CONSTRAINTS, KEY_USAGE = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d0f")
EXTENDED_KEY_USAGE, ALTERNATIVE_NAMES = bytes.fromhex("0603551d25"), bytes.fromhex("0603551d11")
SUBJECT_KEY, AUTHORITY_KEY = bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d23")
SERVER_AND_CLIENT = bytes.fromhex("06082b06010505070301" + "06082b06010505070302")
VALIDITY = (b"250101000000Z", b"491231235959Z")


@dataclass(frozen=True, slots=True)
class Key:
    """A private key; `public` is its point on the curve."""

    secret: int
    public: Point

    def pem(self) -> str:
        body = _der(0x02, b"\x01") + _der(0x04, self.secret.to_bytes(32)) + _der(0xA0, PRIME256V1)
        return _pem("EC PRIVATE KEY", _der(0x30, body + _der(0xA1, _bits(self.point()))))

    def point(self) -> bytes:
        return b"\x04" + self.public[0].to_bytes(32) + self.public[1].to_bytes(32)

    def identifier(self) -> bytes:
        return hashlib.sha1(self.point(), usedforsecurity=False).digest()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key."""

    name: str
    key: Key
    pem: str

    def write(self, directory: Path, stem: str) -> tuple[Path, Path]:
        """Write `stem`.crt and `stem`.key; returns both paths."""
        certificate, key = directory / f"{stem}.crt", directory / f"{stem}.key"
        certificate.write_text(self.pem)
        key.touch(mode=0o600)
        key.write_text(self.key.pem())
        return certificate, key


def new_key() -> Key:
    secret = 1 + secrets.randbelow(ORDER - 1)
    return Key(secret, _times(secret, BASE))


def new_authority(name: str) -> Certificate:
    """A self-signed certificate authority."""
    key = new_key()
    extensions = _extension(BASIC_CONSTRAINTS, _der(0x30, b"\x01\x01\xff"), critical=True)
    extensions += _extension(KEY_USAGE, b"\x03\x02\x01\x06", critical=True)  # keyCertSign, cRLSign
    return Certificate(name, key, _certificate(name, "", key, name, key, extensions))


def issue(authority: Certificate, name: str, *, organization: str = "", hosts: tuple[str, ...] = ()) -> Certificate:
    """A certificate for serving as `hosts` (names or IP addresses) and for the client `name` (of `organization`)."""
    key = new_key()
    extensions = _extension(KEY_USAGE, b"\x03\x02\x07\x80", critical=True)  # digitalSignature
    extensions += _extension(EXTENDED_KEY_USAGE, _der(0x30, SERVER_AND_CLIENT))
    extensions += _extension(AUTHORITY_KEY, _der(0x30, _der(0x80, authority.key.identifier())))
    if hosts:
        extensions += _extension(ALTERNATIVE_NAMES, _der(0x30, b"".join(map(_alternative_name, hosts))))
    return Certificate(name, key, _certificate(name, organization, key, authority.name, authority.key, extensions))


def _certificate(name: str, organization: str, key: Key, issuer: str, signer: Key, extensions: bytes) -> str:
    extensions += _extension(SUBJECT_KEY, _der(0x04, key.identifier()))
    public = _der(0x30, _der(0x30, EC_PUBLIC_KEY + PRIME256V1) + _bits(key.point()))
    content = _der(
        0x30,
        _der(0xA0, b"\x02\x01\x02")  # version 3
        + _integer(secrets.randbits(120) + 1)
        + ECDSA_WITH_SHA256
        + _distinguished_name(issuer, "")
        + _der(0x30, b"".join(_der(0x17, instant) for instant in VALIDITY))
        + _distinguished_name(name, organization)
        + public
        + _der(0xA3, _der(0x30, extensions)),
    )
    return _pem("CERTIFICATE", _der(0x30, content + ECDSA_WITH_SHA256 + _bits(_sign(signer, content))))


def _distinguished_name(name: str, organization: str) -> bytes:
    parts = [(ORGANIZATION, organization)] if organization else []
    parts.append((COMMON_NAME, name))
    return _der(0x30, b"".join(_der(0x31, _der(0x30, kind + _der(0x0C, text.encode()))) for kind, text in parts))


def _extension(identifier: bytes, value: bytes, *, critical: bool = False) -> bytes:
    return _der(0x30, identifier + (b"\x01\x01\xff" if critical else b"") + _der(0x04, value))


def _alternative_name(host: str) -> bytes:
    try:
        return _der(0x87, ipaddress.ip_address(host).packed)
    except ValueError:
        return _der(0x82, host.encode())


def _sign(key: Key, message: bytes) -> bytes:
    """ECDSA with SHA-256, as SEQUENCE { r, s }."""
    digest = int.from_bytes(hashlib.sha256(message).digest())
    while True:
        nonce = 1 + secrets.randbelow(ORDER - 1)
        r = _times(nonce, BASE)[0] % ORDER
        s = pow(nonce, -1, ORDER) * (digest + r * key.secret) % ORDER
        if r and s:
            return _der(0x30, _integer(r) + _integer(s))


def _times(factor: int, point: Point) -> Point:
    """factor × point, by doubling and adding; `factor` is at least 1."""
    result: Point | None = None
    while factor:
        if factor & 1:
            result = point if result is None else _add(result, point)
        point = _add(point, point)
        factor >>= 1
    if result is None:
        raise ValueError("factor must be at least 1")
    return result


def _add(a: Point, b: Point) -> Point:
    """a + b. The point at infinity cannot occur for the factors used here, all below the curve's order."""
    if a == b:
        slope = 3 * (a[0] * a[0] - 1) * pow(2 * a[1], -1, PRIME) % PRIME  # 3x² + A, with A = -3
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, PRIME) % PRIME
    x = (slope * slope - a[0] - b[0]) % PRIME
    return x, (slope * (a[0] - x) - a[1]) % PRIME


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _bits(content: bytes) -> bytes:
    return _der(0x03, b"\0" + content)


def _pem(kind: str, content: bytes) -> str:
    text = base64.b64encode(content).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""))
