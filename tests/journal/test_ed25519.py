"""The verifier's signatures against RFC 8032's vectors and against OpenSSL (through `cryptography`)."""

import hashlib
import random
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from inbounds.journal import ed25519

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
# RFC 8032, section 7.1: secret key, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
            "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"
        ),
    ),
]
# Every encoding of a point whose order divides 8, the non-canonical ones included.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def openssl(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(secret: str, public: str, message: str, signature: str) -> None:
    key, text, signed = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).sign(text) == signed
    assert ed25519.verify(key, text, signed)
    assert not ed25519.verify(key, text + b"x", signed)


def test_agrees_with_openssl_on_good_and_on_changed_signatures() -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for number in range(120):
        private = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
        public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        message = chance.randbytes(chance.randrange(200))
        parts = [public, message, private.sign(message)]
        if number % 3:
            at = chance.choice([0, 2, 2]) if not message else chance.choice([0, 1, 2])
            bit = chance.randrange(len(parts[at]) * 8)
            changed = bytearray(parts[at])
            changed[bit // 8] ^= 1 << bit % 8
            parts[at] = bytes(changed)
        found = ed25519.verify(*parts)
        assert found == openssl(*parts), f"seed {seed}, number {number}"
        outcomes[found] += 1
    assert outcomes == {True: 40, False: 80}, f"seed {seed}"


def test_a_second_form_of_a_good_signature_is_refused() -> None:
    public, message, signature = (bytes.fromhex(text) for text in VECTORS[2][1:])
    assert ed25519.verify(public, message, signature)
    s = int.from_bytes(signature[32:], "little")
    assert not ed25519.verify(public, message, signature[:32] + (s + ORDER).to_bytes(32, "little"))


@pytest.mark.parametrize("encoded", SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(encoded: str) -> None:
    """With such a key, R = S*B holds for (nearly) every message."""
    public = bytes.fromhex(encoded)
    base = "5866666666666666666666666666666666666666666666666666666666666666"
    signatures = [bytes.fromhex(base) + (1).to_bytes(32, "little")]
    signatures += [bytes.fromhex(other) + bytes(32) for other in SMALL_ORDER]
    for signature in signatures:
        for message in range(8):
            assert not ed25519.verify(public, bytes([message]), signature)


def test_an_r_of_small_order_is_refused() -> None:
    """S = k*a with R neutral satisfies the equation; only somebody with the key can make it, to be able to deny it."""
    secret, public = (bytes.fromhex(text) for text in VECTORS[0][:2])
    a = int.from_bytes(hashlib.sha512(secret).digest()[:32], "little") & (2**254 - 8) | 2**254
    neutral = bytes.fromhex(SMALL_ORDER[0])
    k = int.from_bytes(hashlib.sha512(neutral + public + b"text").digest(), "little")
    signature = neutral + (k * a % ORDER).to_bytes(32, "little")
    assert openssl(public, b"text", signature)  # the equation holds, so it is our rule that refuses
    assert not ed25519.verify(public, b"text", signature)


def test_what_is_no_point_or_has_another_length_is_refused() -> None:
    public, message, signature = (bytes.fromhex(text) for text in VECTORS[1][1:])
    assert not ed25519.verify((2).to_bytes(32, "little"), message, signature)  # no x for this y
    assert not ed25519.verify((P + 3).to_bytes(32, "little"), message, signature)
    for key, signed in ((public[:-1], signature), (public + b"\0", signature), (public, signature[:-1]), (b"", b"")):
        assert not ed25519.verify(key, message, signed)


def test_a_signature_takes_a_few_milliseconds() -> None:
    public, message, signature = (bytes.fromhex(text) for text in VECTORS[1][1:])
    assert ed25519.verify(public, message, signature)  # makes the tables
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        assert ed25519.verify(public, message, signature)
        best = min(best, time.process_time() - start)
    assert best < 0.02, f"{best * 1000:.1f} ms"
