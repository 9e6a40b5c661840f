"""What is left to a sealed broker: the connections and listeners that it has or is handed, and nothing to open more."""

from inbounds.program.seal import Rights

# Descriptors: the connections that server.py allows, the listeners of a run, and the event loop's own.
RIGHTS = Rights(descriptors_max=256)
