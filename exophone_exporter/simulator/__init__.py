"""The documented ExoPhones API on a real socket, for the demo, the tests and the benchmarks.

Nobody should need a paid account, or risk one, to see the exporter work. This package imports
nothing else of the project: it was written from the vendor's page a second time, so that one
misreading of that page cannot stand on both sides and agree with itself.

`world` holds the numbers and how they change, `answers` what is said about them and how it fails,
`server` the socket.
"""

from exophone_exporter.simulator.answers import Fault
from exophone_exporter.simulator.server import RecordedRequest, Simulator
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
