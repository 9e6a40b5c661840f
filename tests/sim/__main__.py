"""`python -m tests.sim`: many seeded runs, or one with its trace."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from simfigures import main  # noqa: E402 - its neighbours are found by the line above

if __name__ == "__main__":
    sys.exit(main())
