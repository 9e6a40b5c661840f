"""No device of the host is in a jail, a GPU's least of all, unless it is granted (test_gpu.py)."""

import os
from pathlib import Path

import pytest
from jailrig import Rig

from inbounds.contracts.documents import Policy
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.load import load

# What bubblewrap makes: nodes without state of the host, a terminal file system and a tmpfs of the jail's own.
HARMLESS = frozenset(
    [
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "pts",
        "ptmx",
        "shm",
        "fd",
        "stdin",
        "stdout",
        "stderr",
        "core",
        "console",
    ]
)
GPU = [
    "nvidia0",
    "nvidiactl",
    "nvidia-uvm",
    "nvidia-modeset",
    "nvidia-caps",
    "dri",
    "dri/card0",
    "dri/renderD128",
    "kfd",
]


def test_a_jail_has_the_harmless_nodes_and_no_other(rig: Rig) -> None:
    code = f"""
        print(*sorted(os.listdir("/dev")))
        print(*[name for name in {GPU} if os.path.lexists("/dev/" + name)], "end")
        print(outcome(os.mknod, "/tmp/gpu", 0o020666, os.makedev(195, 0)))
    """
    listed, gpu, made = rig.python(code).lines
    assert set(listed.split()) <= HARMLESS
    assert gpu == "end"
    assert made in {"EPERM", "EACCES"}, "nor can it be made (195 is the major number of GPUs)"
    assert set(os.listdir("/dev")) - HARMLESS, "the control: this host has more"


def test_a_policy_that_grants_a_gpu_in_words_nobody_enforces_is_refused(tmp_path: Path) -> None:
    """Anywhere but in resources.gpu, or there without a ceiling: what nobody enforces would be a promise."""
    policy = tmp_path / "policy.yaml"
    plain = "version: 1\noperators: []\n"
    policy.write_text(plain)
    load(policy, Policy)  # the control
    for more in ("gpu: {memory: 1G, utilisation: 50}\n", "enforcement: {gpu: {memory: 1G}}\n", "limits: {gpu: 1}\n"):
        policy.write_text(plain + more)
        with pytest.raises(OperatorError, match="gpu"):
            load(policy, Policy)
