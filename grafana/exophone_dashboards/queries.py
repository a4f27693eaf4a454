"""PromQL as every panel spells it: selectors that follow the variables, replicas counted once."""

from __future__ import annotations

from typing import Final

# What every selector carries, so that one dashboard serves many jobs and replicas.
TARGET: Final = ('job=~"$job"', 'instance=~"$instance"')
ACCOUNT: Final = 'account=~"$account"'
GROUP: Final = ('region=~"$region"', 'number_type=~"$number_type"')
OWNER: Final = 'owner=~"$owner"'
CURRENCY: Final = 'currency=~"$currency"'
# The label whose values become the names of columns.
COLUMN: Final = "column"


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


def as_column(name: str, expression: str) -> str:
    """An expression whose values become a column with a name, by `columns_by(COLUMN, ...)`."""
    return f'label_replace({expression}, "{COLUMN}", "{name}", "", "")'


def of_exporters(expression: str) -> str:
    """Only those series whose target is an exporter and was in the range.

    `up` is everybody's, and a job of probes repeats series of numbers.
    """
    build = selector("exophone_exporter_build_info")
    return f"{expression} and on (job, instance) last_over_time({build}[$__range])"
