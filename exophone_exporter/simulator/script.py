"""What happens in the demo, and when: a fire drill at fixed times, again in every round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from exophone_exporter.simulator.drill import Drill

ROUND_SECONDS: Final = 1800


class Step(NamedTuple):
    """What happens, in seconds after the start of a round, and what to expect then."""

    at: int
    what: str
    expect: str
    run: Callable[[], str]


class Script:
    """The steps, each run once a round. All times are seconds after the start."""

    def __init__(self, drill: Drill) -> None:
        voice = drill.attached("voice")
        lost, gone = voice[0], voice[-1]
        self.steps = (
            Step(
                60,
                f"{lost} loses its voice flow.",
                "ExoPhoneFlowDetached pages by 3:00.",
                lambda: drill.detach(lost.number["sid"]),
            ),
            Step(
                90,
                f"{gone} disappears.",
                "ExoPhoneNumbersDisappeared pages by 4:30.",
                lambda: drill.release(gone.number["sid"]),
            ),
            Step(240, "Both are right again.", "Both alerts resolve by 12:30.", drill.restore),
        )
        self._done = 0

    def advance(self, elapsed: float) -> list[str]:
        """Run the steps that are due; returns what happened."""
        happened = []
        while self._next_at() <= elapsed:
            step = self.steps[self._done % len(self.steps)]
            self._done += 1
            happened.append(step.run())
        return happened

    def timetable(self) -> str:
        """The steps as text of at most 80 columns."""
        lines = []
        for at, what, expect, _ in self.steps:
            lines += [f"  {at // 60}:{at % 60:02}  {what}", f"        {expect}"]
        return "\n".join(lines)

    def _next_at(self) -> int:
        rounds, index = divmod(self._done, len(self.steps))
        return rounds * ROUND_SECONDS + self.steps[index].at
