"""The dynamic loader is an approved program, and told to run a binary that was written."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import glob, shutil
loaders = glob.glob("/lib64/ld-linux*") + glob.glob("/lib/ld-linux*") + glob.glob("/lib/ld-musl*")
copy = WORK + "/copied"
shutil.copy("/bin/true", copy)
codes = {loader: subprocess.run([loader, copy], stderr=subprocess.DEVNULL).returncode for loader in loaders}
say(codes=list(codes.values()))
"""
ATTACK = CONTROL


def observe(_, after):
    codes = after["said"]["codes"]
    return ("ESCAPED", "the loader ran it") if 0 in codes else ("BLOCKED", f"the loader ends with {codes}")
