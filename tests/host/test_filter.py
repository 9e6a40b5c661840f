"""The packet filter on the real kernel: a slot's user and group reach nobody and are reached by nobody, others are not.

In a table of this test's own, so that a service on the same host keeps its.
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest
from groups_rig import ended, group, needs_root, start, uid_of

from inbounds.host import filter as packet_filter
from inbounds.host.filter import drop, lift, mechanism, present, remove_all

SLOT, OTHER = 73, 74
UID = uid_of(SLOT)
TABLE = b"inbounds-test-%d" % os.getpid()

REACH = """
import json, socket, sys
told = {}
for family, host, port in json.loads(sys.argv[1]):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as one:
            one.settimeout(1)
            try:
                one.connect((host, port))
                one.send(b"x")
                told[f"{host} {kind.name}"] = one.recv(1).decode()
            except OSError as error:
                told[f"{host} {kind.name}"] = type(error).__name__
print(json.dumps(told))
"""
LISTEN = """
import json, socket
stream = socket.create_server(("127.0.0.1", 0))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 0))
print(json.dumps([stream.getsockname()[1], datagrams.getsockname()[1]]), flush=True)
datagrams.settimeout(20)
print(datagrams.recv(10).decode(), flush=True)
"""


@pytest.fixture(autouse=True)
def _table() -> Iterator[None]:
    if os.geteuid() == 0 and (told := mechanism()) != "enforced":
        pytest.skip(f"no packet filter here: {told}")
    yield
    if os.geteuid() == 0:
        remove_all(table=TABLE)
        assert present(SLOT, table=TABLE) is None


@pytest.fixture
def echo() -> Iterator[list[tuple[int, str, int]]]:
    """TCP and UDP services of root's on loopback, answering one byte: family, address, port."""
    code = """
import json, socket, threading
places = []
def streams(server):
    while True:
        with server.accept()[0] as one:
            one.sendall(one.recv(1))
def datagrams(server):
    while True:
        server.sendto(*server.recvfrom(1))
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        continue
    port = server.getsockname()[1]
    twin = socket.socket(family, socket.SOCK_DGRAM)
    twin.bind((host, port))
    threading.Thread(target=streams, args=(server,), daemon=True).start()
    threading.Thread(target=datagrams, args=(twin,), daemon=True).start()
    places.append((family, host, port))
print(json.dumps(places), flush=True)
threading.Event().wait()
"""
    with ended(start(None, code, uid=0)) as server:
        assert server.stdout
        yield json.loads(server.stdout.readline())


def _reach(uid: int, places: list[tuple[int, str, int]]) -> dict[str, str]:
    with ended(start(None, REACH, json.dumps(places), uid=uid)) as one:
        told: dict[str, str] = json.loads(one.communicate(timeout=60)[0])
    return told


@needs_root
@pytest.mark.req("F6", "C4")
def test_a_slots_user_reaches_nobody_not_even_on_loopback(echo: list[tuple[int, str, int]]) -> None:
    assert set(_reach(UID, echo).values()) == {"x"}, "the control: before, its user reaches everything"
    drop(SLOT, UID, table=TABLE)
    before = present(SLOT, table=TABLE)
    assert before == packet_filter.Dropped(UID, 0, 0)
    told = _reach(UID, echo)
    assert len(told) == 2 * len(echo)
    assert not {"x"} & set(told.values()), told
    after = present(SLOT, table=TABLE)
    assert after is not None
    assert after.packets >= len(told)
    assert after.octets > 20 * after.packets
    assert set(_reach(uid_of(OTHER), echo).values()) == {"x"}, "another user is not concerned"
    lift(SLOT, table=TABLE)
    assert present(SLOT, table=TABLE) is None
    assert set(_reach(UID, echo).values()) == {"x"}, "lifted"


@needs_root
@pytest.mark.req("F6")
@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "the control"])
def test_nobody_reaches_a_slot(dropped: bool) -> None:
    with group(SLOT) as made:
        if dropped and not drop(SLOT, UID, made.identity(), table=TABLE):
            pytest.skip("this kernel has no rule for a group of version 2, or mounts none")
        with ended(start(made, LISTEN, uid=UID)) as server:
            assert server.stdout
            stream, datagram = json.loads(server.stdout.readline())
            with socket.socket() as caller, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                caller.settimeout(2)
                if dropped:
                    with pytest.raises(TimeoutError):
                        caller.connect(("127.0.0.1", stream))
                    sender.sendto(b"hello", ("127.0.0.1", datagram))
                    assert server.poll() is None
                    held = present(SLOT, table=TABLE)
                    assert held is not None
                else:
                    caller.connect(("127.0.0.1", stream))
                    sender.sendto(b"hello", ("127.0.0.1", datagram))
                    assert server.stdout.readline() == b"hello\n"
            if dropped:
                with pytest.raises(subprocess.TimeoutExpired):
                    server.wait(1)  # it still waits for the datagram


@needs_root
@pytest.mark.req("F6")
def test_the_group_is_dropped_whatever_the_user(echo: list[tuple[int, str, int]]) -> None:
    with group(SLOT) as made:
        if not drop(SLOT, UID, made.identity(), table=TABLE):
            pytest.skip("this kernel has no rule for a group of version 2, or mounts none")
        with ended(start(made, REACH, json.dumps(echo), uid=uid_of(OTHER))) as one:
            told = json.loads(one.communicate(timeout=60)[0])
        assert not {"x"} & set(told.values()), told


@needs_root
def test_rules_are_replaced_lifted_one_by_one_and_read_back() -> None:
    for again in (UID, UID + 100, UID):
        drop(SLOT, again, table=TABLE)
        held = present(SLOT, table=TABLE)
        assert held is not None
        assert held.uid == again
    drop(OTHER, uid_of(OTHER), table=TABLE)
    lift(SLOT, table=TABLE)
    assert present(SLOT, table=TABLE) is None
    assert present(OTHER, table=TABLE) is not None
    for slot, uid in ((-1, UID), (80, UID), (SLOT, 0), (SLOT, 1 << 32)):
        with pytest.raises(ValueError, match="slot"):
            drop(slot, uid, table=TABLE)


@needs_root
def test_what_somebody_else_changed_is_no_filter_any_more() -> None:
    """A reload of the host's own rules empties ours: the service has to see that."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if nft is None:
        pytest.skip("no nft program here to change the rules with")
    name = TABLE.decode()
    for change in (f"flush chain inet {name} input", f"flush chain inet {name} output", f"delete table inet {name}"):
        drop(SLOT, UID, table=TABLE)
        assert present(SLOT, table=TABLE) is not None, "the control"
        subprocess.run([nft, "-f", "-"], input=change.encode(), check=True)
        assert present(SLOT, table=TABLE) is None, change
    drop(SLOT, UID, table=TABLE)
    subprocess.run([nft, "-f", "-"], input=f"flush chain inet {name} output".encode(), check=True)
    rule = f"add rule inet {name} output meta skuid {UID} counter accept comment inbounds-slot-{SLOT}"
    subprocess.run([nft, "-f", "-"], input=rule.encode(), check=True)
    assert present(SLOT, table=TABLE) is None, "a rule that looks like ours and accepts"


@needs_root
def test_no_other_table_is_touched_and_nothing_stays() -> None:
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if nft is None:
        pytest.skip("no nft program here to look with")
    own = f"inbounds-other-{os.getpid()}"
    subprocess.run(
        [nft, "-f", "-"],
        input=f"table inet {own} {{ chain c {{ meta skuid {UID} accept\n }}\n }}\n".encode(),
        check=True,
    )
    try:
        drop(SLOT, UID, table=TABLE)
        assert mechanism() == "enforced"
        remove_all(table=TABLE)
        remove_all(table=TABLE)  # none there is no error
        tables = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=True).stdout
        assert own in tables
        assert TABLE.decode() not in tables
        assert f"probe-{os.getpid()}" not in tables
    finally:
        subprocess.run([nft, "delete", "table", "inet", own], check=True)


@needs_root
def test_a_kernel_without_it_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> socket.socket:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(packet_filter, "_open", refused)
    assert mechanism() == "absent: Protocol not supported"
    monkeypatch.undo()
    monkeypatch.setattr(packet_filter, "_dropped", lambda _: False)
    assert mechanism() == "absent: packets pass the rule"
