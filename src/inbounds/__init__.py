"""inbounds runs autonomous coding agents inside bounds that the operating system enforces."""

__version__ = "0.1.0"
