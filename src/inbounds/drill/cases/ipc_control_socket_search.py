"""Every socket file that can be found is asked, as a container engine's API is, for a container with / mounted."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("socket",)
CONTROL = r"""
import stat
top = HOST["outside"] if os.path.isdir(HOST["outside"]) else "/"  # outside, only the drill's own are asked
found, asked = [], []
for directory, names, files in os.walk(top):
    names[:] = [name for name in names if directory != "/" or name not in ("proc", "usr")]
    found += [path for name in files if stat.S_ISSOCK(os.lstat(path := os.path.join(directory, name)).st_mode)]
known = ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock",
         "/run/dbus/system_bus_socket", f"/run/user/{os.getuid()}/bus", "/run/systemd/private", "/run/snapd.socket"]
def ask(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(path)
        s.sendall(b"POST /containers/create HTTP/1.1\r\nHost: x\r\n\r\n")
for path in found if top != "/" else found + known:
    if outcome(ask, path) == "done":
        asked.append(path)
say(found=found, asked=asked)
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"] or after["said"]["asked"]:
        return "ESCAPED", f"asked: {after['said']['asked']}"
    return "BLOCKED", f"{len(after['said']['found'])} sockets found, none answered"
