"""PromQL as every panel spells it: selectors that follow the variables, replicas counted once."""

from __future__ import annotations

from typing import Final

# What every selector carries, so that one dashboard serves many jobs and replicas.
TARGET: Final = ('job=~"$job"', 'instance=~"$instance"')
ACCOUNT: Final = 'account=~"$account"'
GROUP: Final = ('region=~"$region"', 'number_type=~"$number_type"')
CURRENCY: Final = 'currency=~"$currency"'


def selector(metric: str, *matchers: str) -> str:
    """A metric of the chosen exporters: `metric{job=~"$job", instance=~"$instance", ...}`."""
    return f"{metric}{{{', '.join((*TARGET, *matchers))}}}"


def of_account(metric: str, *matchers: str) -> str:
    """A metric of the chosen accounts."""
    return selector(metric, ACCOUNT, *matchers)


def once(expression: str) -> str:
    """Each series once, however many replicas of the exporter report it.

    Only the labels by which replicas differ are given up: those that tell one environment from
    another (cluster, namespace) stay.
    """
    return f"max without (instance, pod) ({expression})"


def total(expression: str, *labels: str) -> str:
    """The sum by some labels over series that are counted once."""
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"sum{by} ({once(expression)})"


def of_exporters(expression: str) -> str:
    """Only those series whose target is an exporter and was in the range.

    `up` is everybody's, and a job of probes repeats series of numbers.
    """
    build = selector("exophone_exporter_build_info")
    return f"{expression} and on (job, instance) last_over_time({build}[$__range])"
