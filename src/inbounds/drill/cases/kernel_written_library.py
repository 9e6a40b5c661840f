"""A library that was written is loaded into an approved program, by name or by LD_PRELOAD."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import glob, shutil
libraries = [path for pattern in ("/lib/*-linux-gnu/", "/usr/lib/*-linux-gnu/", "/usr/lib64/", "/lib64/", "/usr/lib/")
             for path in glob.glob(pattern + "libutil.so.1") + glob.glob(pattern + "libz.so.1") + glob.glob(pattern + "libm.so.6")]
copy = WORK + "/libcopied.so"
shutil.copy(os.path.realpath(libraries[0]), copy)
ran = subprocess.run([sys.executable, "-I", "-S", "-c", "print(sum('copied' in line and 'x' in line.split()[1] for line in open('/proc/self/maps')))"],
                     env={"LD_PRELOAD": copy}, capture_output=True, text=True)
say(loaded=outcome(ctypes.CDLL, copy), preloaded=ran.stdout.strip())
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said["loaded"] == "done" or said["preloaded"] != "0":
        return "ESCAPED", "code of the jail's own making was loaded"
    return "BLOCKED", f"dlopen: {said['loaded']}; preloaded: {said['preloaded']} executable mappings"
