"""Ed25519 verification in the standard library (RFC 8032, section 5.1.7), so that a verifier needs nothing else.

Knows points and bytes: not whose key it is, nor what was signed. Verifies public data, so it need not be constant in
time; it never sees a private key.
"""

import hashlib
from functools import lru_cache

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493  # the base point's order
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_WINDOWS, _WIDTH = 64, 4  # a scalar below 2^256 is 64 digits of 4 bits

# A point as (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z (RFC 8032, section 5.1.4).
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)
_BASE: _Point = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
    1,
    46827403850823179245072216630277197565144205554125654976674165829533817101731,
)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) over `message` is by the private half of `public` (32 bytes).

    Without the cofactor, as OpenSSL and Go do it. Refused besides: other lengths, S not below the group order
    (malleable), coordinates not below the field's prime, and keys or R of small order, which sign anything.
    """
    if len(public) != 32 or len(signature) != 64:  # noqa: PLR2004 - RFC 8032's lengths
        return False
    s = int.from_bytes(signature[32:], "little")
    key = _decoded(public)
    if s >= _L or key is None or _is_small(key):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    found = _NEUTRAL  # S*B - k*A, which must be R
    x, y, z, t = key
    for times, table in ((s, _table(_BASE)), (k, _table((_P - x, y, z, _P - t)))):
        for window, row in enumerate(table):
            found = _add(found, row[times >> _WIDTH * window & 15])
    return not _is_small(found) and _encoded(found) == signature[:32]


@lru_cache(maxsize=8)  # the base point, and more keys than a run's checkpoints have
def _table(point: _Point) -> list[list[_Point]]:
    """`table[w][d]` = d * 16^w * point, so that a product is 64 additions; 5 ms, worth it from the second signature."""
    table: list[list[_Point]] = []
    for _ in range(_WINDOWS):
        row = [_NEUTRAL]
        for _ in range(2**_WIDTH):
            row.append(_add(row[-1], point))
        point = row.pop()
        table.append(row)
    return table


def _add(p: _Point, q: _Point) -> _Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _is_small(point: _Point) -> bool:
    """Whether eight times the point is the neutral one."""
    for _ in range(3):
        point = _add(point, point)
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0


def _decoded(encoded: bytes) -> _Point | None:
    """RFC 8032, section 5.1.3; None for what is no point."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encoded(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
