"""Cached bytecode that never checks its source (PEP 552): the source is innocent, what is imported is not."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
import importlib.util, marshal
code = compile("open(" + repr(HOST["outside"] + "/ran") + ", 'w').close()", "app.py", "exec")
cached = importlib.util.cache_from_source(WORK + "/src/app.py")
os.makedirs(os.path.dirname(cached), exist_ok=True)
with open(cached, "wb") as file:
    file.write(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code))
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
subprocess.run([sys.executable, "-c", "import app"], env={**os.environ, "PYTHONPATH": WORK + "/src"}, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
