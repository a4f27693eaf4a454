"""`python -m exophone_exporter` is the command `exophone-exporter`."""

import sys

from exophone_exporter.cli.main import main

sys.exit(main())
