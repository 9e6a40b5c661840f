"""Another thread's files, out of the repository's own objects: what a checkout leaves away is still in its history."""

CLASS = "secrets"
REQUIREMENT = "B6"
CONTROL = """
import glob, zlib
WORDS = b"another thread"
found = []
def look(path):
    if WORDS in open(path, "rb").read():
        found.append(path)
outcome(look, HOST["other"] + "/plan.txt")
for directory, names, files in os.walk(HOST["root"] if os.path.isdir(HOST["root"] + "/.git") else WORK):
    for name in files:
        path = os.path.join(directory, name)
        try:
            raw = open(path, "rb").read(1 << 20)
            if WORDS in raw or (len(name) == 38 and WORDS in zlib.decompress(raw)):
                found.append(path)
        except (OSError, zlib.error):
            pass
listed = subprocess.run(["git", "cat-file", "--batch-all-objects", "--batch"], cwd=WORK, capture_output=True)
if WORDS in listed.stdout:
    found.append("git cat-file")
say(found=found, objects=listed.stdout.count(b" blob "))
"""
ATTACK = CONTROL


def observe(_, after):
    found = after["said"]["found"]
    return (
        ("ESCAPED", f"read: {', '.join(found[:5])}")
        if found
        else ("BLOCKED", f"{after['said']['objects']} objects, none of another thread's")
    )
