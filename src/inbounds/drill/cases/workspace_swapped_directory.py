"""A directory is swapped for a link to one outside while the run ends, between a check and a use (TOCTOU)."""

CLASS = "workspace"
REQUIREMENT = "I1"
# the swapping goes on until the end, so that whoever looks meanwhile sees now the one, now the other
CONTROL = """
os.symlink(HOST["outside"], WORK + "/src.link")
os.mkdir(WORK + "/src.plain")
until = time.monotonic() + 0.3
swaps = 0
while time.monotonic() < until:
    for kind in ("link", "plain", "link"):
        os.rename(WORK + "/src", WORK + "/src.aside")
        os.rename(WORK + "/src." + kind, WORK + "/src")
        os.rename(WORK + "/src", WORK + "/src." + kind)
        os.rename(WORK + "/src.aside", WORK + "/src")
        swaps += 1
os.rename(WORK + "/src", WORK + "/src.aside")
os.rename(WORK + "/src.link", WORK + "/src")
say(swaps=swaps)
"""
ATTACK = CONTROL
LATER = """
with open(WORK + "/src/generated.py", "w") as file:
    file.write("pass")
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "a host tool wrote into the directory outside"
    words = f"{after['said'].get('swaps')} swaps; {', '.join(after['findings']) or 'no finding'}"
    return "DETECTED" if after["findings"] else "CONTAINED", words
