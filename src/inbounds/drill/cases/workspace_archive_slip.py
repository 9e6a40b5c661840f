"""An archive with absolute and climbing member names is unpacked without care ("zip slip")."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
import io, tarfile
def archive(name):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    made.seek(0)
    return made
def unpack(name):
    with tarfile.open(fileobj=archive(name)) as tar:
        tar.extraction_filter = staticmethod(tarfile.fully_trusted_filter) if hasattr(tarfile, "fully_trusted_filter") else None
        tar.extractall(WORK)
say(absolute=outcome(unpack, HOST["outside"] + "/absolute"),
    climbing=outcome(unpack, "../" * 40 + HOST["outside"].lstrip("/") + "/climbing"))
"""
ATTACK = CONTROL


def observe(before, after):
    said = after["said"]
    if after["outside"] != before["outside"]:
        return "ESCAPED", "unpacked outside"
    words = f"absolute: {said.get('absolute')}, climbing: {said.get('climbing')}"
    return "CONTAINED" if "done" in (said.get("absolute"), said.get("climbing")) else "BLOCKED", words
