"""`python -m inbounds` is the command line."""

from inbounds.cli.entry import main

if __name__ == "__main__":
    main()
