"""Makes what several directories of tests share importable: pytest's importlib mode adds none of them to the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
