"""`python -m tests.sim`: many seeded runs, or one with its trace."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from simfigures import main

if __name__ == "__main__":
    sys.exit(main())
