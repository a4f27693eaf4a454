"""The alerts for Grafana's own alerting, from the rules for Prometheus.

Grafana neither has recorded series without a store that accepts writes, nor the template function
`query`, nor inhibition before version 13: expressions and texts are rewritten for that. The three
nodes of a rule are those that Grafana makes where it imports rules of Prometheus.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import promql_parser
import yaml

from exophone_dashboards.panels import Json

_HEADER: Final = """\
# Written by make generate from prometheus/exophone.rules.yml; edit that one.
# For Grafana 12.2 or newer, in /etc/grafana/provisioning/alerting; see docs/grafana-alerts.md.
"""
_DATASOURCE: Final = "exophone-prometheus"  # as in provisioning/datasources; users replace it
_EXPRESSION: Final = "__expr__"
_NUMBER: Final = "job, account, sid, exported_sid"
_NEWEST: Final = "instance_account:exophone_poll_last_success_timestamp_seconds:newest"
# A recorded series with what may come before and after its name.
_RECORDED: Final = re.compile(
    r"(?P<present>present_over_time\()?(?P<name>\w+:\w+:\w+)"
    r"(?:{(?P<by>.*?)})?(?:\[(?P<range>\w+)])?(?: offset (?P<offset>\w+))?"
)
# Within hours a dip of a minute counts. Further back, and for what lasts, fewer steps do.
_STEP: Final = "1m"
_COARSE_STEP: Final = "10m"
_FAR: Final = ("12h", "1d")
_ACTION: Final = re.compile(r"{{-? *(with|range|if|else|end)\b.*?}}")
_QUERY: Final = re.compile(r"{{-? with (query |((?!}}).)*\| query )((?!}}).)*}}")


def as_provisioning(rules: str) -> str:
    """Grafana's provisioning file of the alerts in a rule file."""
    groups = yaml.safe_load(rules)["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in every if "record" in rule}
    titles = _titles([rule for rule in every if "alert" in rule])
    made = [
        {
            "orgId": 1,
            "name": group["name"],
            "folder": "ExoPhones",
            "interval": "1m",
            "rules": [
                _rule(rule, next(titles), recorded) for rule in group["rules"] if "alert" in rule
            ],
        }
        for group in groups
    ]
    text: str = yaml.dump({"apiVersion": 1, "groups": made}, Dumper=_Dumper, **_AS_WRITTEN)
    return _HEADER + text


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as one, so that differences can be read."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)
_AS_WRITTEN: Final[Mapping[str, Any]] = {"sort_keys": False, "allow_unicode": True, "width": 1000}


def _titles(alerts: Iterable[Json]) -> Iterator[str]:
    """Names that are unique in a folder: with the labels that tell an alert from its namesakes."""
    alerts = [*alerts]
    for alert in alerts:
        namesakes = [other["labels"] for other in alerts if other["alert"] == alert["alert"]]
        common = Counter(pair for labels in namesakes for pair in labels.items())
        own = [pair[1] for pair in alert["labels"].items() if common[pair] < len(namesakes)]
        yield " ".join((alert["alert"], *own))


def _rule(alert: Json, title: str, recorded: Mapping[str, str]) -> Json:
    uid = re.sub(r"\W+", "-", title.removeprefix("ExoPhone")).lower()
    return {
        "uid": f"exo-{uid}",
        "title": title,
        "condition": "threshold",
        "data": [*_nodes(expression(alert, recorded))],
        "noDataState": "OK",
        "execErrState": "OK",
        "for": alert["for"],
        "keepFiringFor": alert.get("keep_firing_for", "0s"),
        "missing_series_evals_to_resolve": 1,
        "annotations": {name: _text(alert, text) for name, text in alert["annotations"].items()},
        "labels": alert["labels"],
    }


def _nodes(query: str) -> Iterator[Json]:
    """The query, whether it has a value, and the threshold that is the condition."""
    of_query = {"expr": query, "instant": True, "range": False}
    found = "is_number($query) || is_nan($query) || is_inf($query)"
    above = [{"evaluator": {"type": "gt", "params": [0]}}]
    for name, source, model in (
        ("query", _DATASOURCE, of_query),
        ("prometheus_math", _EXPRESSION, {"type": "math", "expression": found}),
        (
            "threshold",
            _EXPRESSION,
            {"type": "threshold", "expression": "prometheus_math", "conditions": above},
        ),
    ):
        yield {
            "refId": name,
            "relativeTimeRange": {"from": 600, "to": 0},
            "datasourceUid": source,
            "model": {"refId": name, **model},
        }


def expression(alert: Json, recorded: Mapping[str, str]) -> str:
    """What a rule asks, without recorded series; for the text, a number has its phone number."""
    query = alert["expr"]
    if alert["labels"].get("scope") == "number":
        info = f"exophone_number_info and on (job, instance, account) {_NEWEST}"
        one = f"topk by ({_NUMBER}) (1, {info})"
        query = f"({query}) + on ({_NUMBER}) group_left (phone_number) 0 * {one}"
    return f"{promql_parser.parse(_substituted(query, recorded)).prettify()}\n"


def _substituted(query: str, recorded: Mapping[str, str]) -> str:
    def inner(found: re.Match[str]) -> str:
        text = _having(f"({_substituted(recorded[found['name']], recorded)})", found["by"] or "")
        offset = f" offset {found['offset']}" if found["offset"] else ""
        if found["range"]:
            step = _COARSE_STEP if found["present"] or found["range"] in _FAR else _STEP
            return f"{found['present'] or ''}{text}[{found['range']}:{step}]{offset}"
        return f"last_over_time({text}[5m:1m]{offset})" if offset else text

    return _RECORDED.sub(inner, re.sub(r"\s#.*", "", query))


def _having(query: str, matchers: str) -> str:
    """The series of a query that have these labels: `flow="voice", problem="missing"`."""
    labels = re.findall(r'(\w+)="(.*?)"', matchers)
    only = "vector(1)"
    for name, value in labels:
        only = f'label_replace({only}, "{name}", "{value}", "", "")'
    by = ", ".join(name for name, _ in labels)
    return f"({query} and on ({by}) {only})" if labels else query


def _text(alert: Json, text: str) -> str:
    """A text without the function `query`, which finds nothing in Grafana."""
    text = _without_queries(text)
    text = text.replace("https://grafana.example.com/", "{{ externalURL }}")
    # Where nothing fires, Grafana fills in the texts as well, and has no value for them.
    text = text.replace("$value", '(index $values "query").Value')
    if alert["labels"].get("scope") == "number":
        phone = '{{ or (index $labels "phone_number") $labels.sid }}'
        text = re.sub(r"^{{ \$labels.sid }}", phone, text)
    return " ".join(text.split())


def _without_queries(text: str) -> str:
    """Leave out each block whose condition is a query, but for what it says where none is found."""
    while begin := _QUERY.search(text):
        depth, otherwise_at = 1, 0
        for action in _ACTION.finditer(text, begin.end()):
            depth += {"end": -1, "else": 0}.get(action[1], 1)
            if (action[1], depth) == ("else", 1):
                otherwise_at = action.end()
            if depth == 0:
                kept = text[otherwise_at or action.start() : action.start()]
                before = text[: begin.start()]
                before = before.rstrip() if begin[0].startswith("{{-") else before
                text = before + kept + text[action.end() :]
                break
    return text
