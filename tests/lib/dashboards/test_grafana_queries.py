"""Variables are filled into queries as Grafana's Prometheus data source does it."""

from __future__ import annotations

import pytest

from tests.lib.dashboards.grafana_queries import (
    ALL,
    RATE_INTERVAL,
    Range,
    Variable,
    interpolate,
)

HOUR = Range(0, 3600)


def chosen(*values: str, all_value: str = "") -> dict[str, Variable]:
    return {"account": Variable("account", ("support", "apac"), values, all_value)}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param(chosen("support"), "support", id="one"),
        pytest.param(chosen("support", "apac"), "(support|apac)", id="several"),
        pytest.param(chosen(ALL), "(support|apac)", id="all"),
        pytest.param(chosen(ALL, all_value=".+"), ".+", id="all as the dashboard says"),
        pytest.param(chosen("a.b"), r"a\\.b", id="a dot is not a pattern"),
    ],
)
def test_choices_become_a_regular_expression(variables: dict[str, Variable], expected: str) -> None:
    """Within a string of PromQL, so a backslash is doubled."""
    for spelling in ("$account", "${account}", "[[account]]"):
        filled = interpolate(f'm{{account=~"{spelling}"}}', variables, HOUR)
        assert filled == f'm{{account=~"{expected}"}}'


def test_an_unknown_variable_is_refused() -> None:
    """Grafana would send it as it stands, and nothing would be found."""
    with pytest.raises(AssertionError, match=r"unknown variable \$acount"):
        interpolate('m{account=~"$acount"}', chosen(ALL), HOUR)


def test_the_groups_of_a_replacement_stay() -> None:
    """`$1` is a group of label_replace, not a variable."""
    text = 'label_replace(m, "a", "$1", "b", "(.*)")'
    assert interpolate(text, {}, HOUR) == text


@pytest.mark.parametrize(
    ("least_step", "points", "step", "rate"),
    [
        pytest.param("", 600, "15000ms", "60000ms", id="four scrapes"),
        pytest.param("1m", 600, "60000ms", "240000ms", id="a least step counts four times"),
        pytest.param("", 6, "600000ms", "615000ms", id="few points"),
        pytest.param(RATE_INTERVAL, 6, "615000ms", "615000ms", id="steps as long as windows"),
    ],
)
def test_intervals(least_step: str, points: int, step: str, rate: str) -> None:
    """As Grafana computes them for a data source that scrapes every 15 seconds."""
    text = "$__interval $__rate_interval $__range"
    filled = interpolate(text, {}, HOUR, least_step, points)
    assert filled == f"{step} {rate} 3600s"
