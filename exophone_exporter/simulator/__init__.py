"""The documented ExoPhones API on a real socket, for the demo, the tests and the benchmarks.

Trying the exporter must not need a paid account. This package imports nothing else of the project:
it is a second reading of the vendor's documentation, so one misreading cannot be on both sides.

`world` holds the numbers and changes them, `responses` has the bodies and the faults, `server` the
HTTP server.
"""

from exophone_exporter.simulator.responses import Fault, RecordedRequest
from exophone_exporter.simulator.server import Simulator
from exophone_exporter.simulator.world import Account, World, demo_world, make_account, make_number

__all__ = [
    "Account",
    "Fault",
    "RecordedRequest",
    "Simulator",
    "World",
    "demo_world",
    "make_account",
    "make_number",
]
