"""What is derived in the Helm chart: version, rules, dashboards, schema and table of values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from exophone_exporter import __version__
from exophone_exporter.config import loader

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "deploy" / "helm" / "exophone-exporter"
_RULES: Final = ROOT / "prometheus" / "exophone.rules.yml"
_COLUMN_MAX: Final = 60

Json = dict[str, Any]

_TYPES: Final = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
_TEXT: Final[Json] = {"$ref": "#/$defs/Text"}
_TEXTS: Final[Json] = {"additionalProperties": _TEXT}
_DURATION: Final[Json] = {"pattern": "^([0-9]+(ms|s|m|h|d))+$"}
_PORT: Final[Json] = {"minimum": 1, "maximum": 65535}
# A number where a text belongs: Helm's error is `value must be '...'` with the constant.
_DEFINITIONS: Final[Json] = {
    "Text": {
        "if": {"type": ["number", "boolean"]},
        "then": {"const": 'text in quotes, such as "0123456789"'},
        "else": {"type": "string"},
    }
}
# What the defaults in values.yaml do not show. A name that starts with a dot is the end of a path.
_MORE: Final[dict[str, Json]] = {
    "image.digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "configReload": {"enum": ["checksum", "watch"]},
    "shards": {"minimum": 0, "maximum": 1000},
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": _PORT,
    "ingress.path": {"pattern": "^/"},
    "extraArgs": {"items": _TEXT},
    "ingress.hosts": {"items": _TEXT},
    "route.hostnames": {"items": _TEXT},
    "nodeSelector": _TEXTS,
    ".commonLabels": _TEXTS,
    ".podLabels": _TEXTS,
    ".podAnnotations": _TEXTS,
    ".labels": _TEXTS,
    ".annotations": _TEXTS,
    ".interval": _DURATION,
    ".scrapeTimeout": _DURATION,
    ".scheme": {"enum": ["", "http", "https"]},
}


def generated() -> dict[Path, str]:
    """Every derived file of the chart, as it should be."""
    about, readme = ((CHART / name).read_text("utf-8") for name in ("Chart.yaml", "README.md"))
    text = (CHART / "values.yaml").read_text("utf-8")
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows(text))
    before, mark, _ = readme.partition("| value | default | meaning |\n|---|---|---|\n")
    dashboards = (ROOT / "grafana" / "dashboards").glob("*.json")
    return {
        CHART / "Chart.yaml": re.sub(
            r'(?m)^(version: |appVersion: ").*?("?)$', rf"\g<1>{__version__}\2", about
        ),
        CHART / "README.md": before + mark + rows,
        CHART / "values.schema.json": json.dumps(_schema(text), indent=2) + "\n",
        CHART / "rules" / _RULES.name: _RULES.read_text("utf-8"),
        **{CHART / "dashboards" / path.name: path.read_text("utf-8") for path in dashboards},
    }


def _described(text: str) -> dict[str, tuple[Any, str]]:
    """The default and the comment of each value that has one, by its path."""
    found: dict[str, tuple[Any, str]] = {}
    lines = text.splitlines()

    def walk(node: Any, values: Json, path: str) -> None:
        for key, value in node.value:
            name = f"{path}{key.value}"
            said = _comment_above(lines, key.start_mark.line)
            if said:
                found[name] = (values[key.value], said)
            elif isinstance(value, yaml.MappingNode):
                walk(value, values[key.value], f"{name}.")
            else:
                raise SystemExit(f"values.yaml: {name} has no comment that starts with --")

    walk(yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text), "")
    return found


def _comment_above(lines: list[str], line: int) -> str:
    """The comment that ends above a line, from its last line that starts with --."""
    above: list[str] = []
    while line > 0 and lines[line - 1].strip().startswith("#"):
        line -= 1
        above.insert(0, lines[line].strip("# "))
        if above[0].startswith("-- "):
            return " ".join(above).removeprefix("-- ")
    return ""


def _rows(text: str) -> list[tuple[str, str, str]]:
    rows = []
    for name, (default, said) in _described(text).items():
        shown = json.dumps(default)
        rows.append(
            (f"`{name}`", f"`{shown}`" if len(shown) <= _COLUMN_MAX else "see values.yaml", said)
        )
    return rows


def _schema(text: str) -> Json:
    """Strict for what the chart names; maps of the user are free."""
    config, definitions = _config_schema()
    alerts = sorted(set(re.findall(r"- alert: (\w+)", _RULES.read_text("utf-8"))))
    more = _MORE | {
        "config": config,
        "prometheusRule.disabled": {"items": {"enum": alerts}},
        "prometheusRule.severities": {
            "additionalProperties": False,
            "properties": dict.fromkeys(alerts, _TEXT),
        },
    }
    root: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart exophone-exporter",
        "$defs": _DEFINITIONS | definitions,
        **_strict(
            {
                "global": {
                    "type": "object",
                    "description": "Values that Helm gives to charts in a chart.",
                }
            }
        ),
    }
    for name, (default, said) in _described(text).items():
        *parents, key = name.split(".")
        place = root
        for parent in parents:
            place = place["properties"].setdefault(parent, _strict({}))
        own = _TEXT if isinstance(default, str) else {"type": _TYPES[type(default)]}
        place["properties"][key] = {
            **own,
            "description": said,
            **more.get(f".{key}", {}),
            **more.get(name, {}),
        }
    return root


def _strict(properties: Json) -> Json:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _config_schema() -> tuple[Json, Json]:
    """The schema of the configuration file for `config`, and its definitions.

    Empty is right as well. Credentials would be in a ConfigMap, so they are not keys here. Helm
    reads a text without quotes that looks like a number as a number, which loses its zeros.
    """
    schema = _of_texts(loader.json_schema())
    account = schema["$defs"]["AccountSection"]
    for secret in ("api_key", "api_token"):
        del account["properties"][secret]
    for choice in account["allOf"]:
        choice["oneOf"] = [
            way for way in choice["oneOf"] if set(way["required"]) <= set(account["properties"])
        ]
    kept = {key: schema[key] for key in ("additionalProperties", "properties")}
    return kept | {"if": {"minProperties": 1}, "then": {"required": schema["required"]}}, schema[
        "$defs"
    ]


def _of_texts(schema: Any) -> Any:
    """The same schema, in which what may be a text or a number must be a text."""
    if isinstance(schema, list):
        return [_of_texts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    types = schema.get("type")
    if isinstance(types, list) and {"string", "number"} <= {*types}:
        others = [each for each in types if each not in ("string", "number", "boolean")]
        text = {"if": {"type": others}, "else": _TEXT} if others else _TEXT
        schema = {key: value for key, value in schema.items() if key != "type"} | text
    return {key: _of_texts(value) for key, value in schema.items()}
