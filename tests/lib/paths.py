"""Where the tests find the repository and their data."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT / "tests" / "data"
TOOLS: Final = ROOT / ".cache" / "tools"  # `make tools` builds them
