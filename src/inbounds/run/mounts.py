"""What a dependency layer looks like in a jail: the layer itself, and the directories that tools look for by place.

node_modules is the one there is: node resolves packages beside the importing file only. Read-only, like the layer.
"""

import json
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.contracts.job import LAYER, WORK
from inbounds.sandbox.spec import Bind

META = "layer.json"


def layer_binds(layer: Path | None) -> tuple[Bind, ...]:
    """The binds of a built layer's `env` directory; none where there is no layer. HostError if its facts are gone."""
    if layer is None:
        return ()
    meta = layer.parent / META
    try:
        mounts = json.loads(meta.read_bytes())["mounts"]
    except (OSError, ValueError, KeyError) as error:
        raise HostError(
            f"the layer's facts cannot be read: {error}", where=str(meta), fix="inbounds env build"
        ) from error
    return (
        Bind(str(layer), LAYER, executable=True),
        *(Bind(str(layer / inside), f"{WORK}/{place}", executable=True) for place, inside in mounts.items()),
    )
