"""What Grafana's own libraries make of a panel: the facts that the dashboards are built on."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.lib.dashboards.grafana_node import FOLDER, Json, packages_problem, read_cells, run_script
from tests.lib.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
NOW = 1_760_000_000
NUMBER = "+912248901111"
BLUE, GREEN, RED = "#5794F2", "#73BF69", "#F2495C"  # of Grafana's dark theme
GREEN_THEN_RED = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
ATTACHED = {
    "0": {"text": "Unattached", "color": "red", "index": 0},
    "1": {"text": "Attached", "color": "green", "index": 1},
}
CIRCLES = {"MU": {"text": "Mumbai", "index": 0}, "UW": {"text": "Uttar Pradesh West", "index": 1}}


def by_value(texts: Json) -> list[Json]:
    return [{"type": "value", "options": texts}]


def fields(unit: str, *overrides: Json, **more: Any) -> Json:
    steps = more.pop("steps", [{"color": "blue", "value": None}])
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}, "mappings": []}
    return {"defaults": defaults | more, "overrides": list(overrides)}


def column(name: str, **properties: Any) -> Json:
    listed = [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": listed}


def vector(*series: tuple[dict[str, str], float]) -> Json:
    result = [{"metric": labels, "value": [NOW, str(value)]} for labels, value in series]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def matrix(*series: tuple[dict[str, str], list[float]]) -> Json:
    result = [
        {"metric": labels, "values": [[NOW + 60 * i, str(v)] for i, v in enumerate(values)]}
        for labels, values in series
    ]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


class Scene:
    """A dashboard that a test fills with panels and the answers to their queries."""

    def __init__(self) -> None:
        self.panels: list[Json] = []
        self.answers: list[Json] = []

    def add(
        self,
        kind: str,
        title: str,
        config: Json,
        *answers: Json,
        legend: str = "__auto",
        **more: Any,
    ) -> None:
        panel_id = len(self.panels) + 1
        shape = "table" if kind == "table" else "time_series"
        targets = []
        for ref_id, answer in zip("ABC", answers, strict=False):
            target = {"refId": ref_id, "expr": "a_query", "format": shape, "legendFormat": legend}
            targets.append(target)
            self.answers.append({"panelId": panel_id, "refId": ref_id, "response": answer})
        panel = {"id": panel_id, "type": kind, "title": title, "targets": targets}
        row, column_of_two = divmod(panel_id - 1, 2)
        place = {"gridPos": {"x": 12 * column_of_two, "y": 6 * row, "w": 12, "h": 6}}
        self.panels.append(panel | place | {"fieldConfig": config} | more)

    def payload(self) -> Json:
        return {
            "dashboard": {"uid": "scene", "title": "Scene", "panels": self.panels},
            "range": {"from": NOW * 1000, "to": (NOW + 600) * 1000},
            "variables": {"account": ["support", "sales"]},
            "answers": self.answers,
        }


LAST = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
ONE = vector(({"account": "support", "phone_number": NUMBER, "region": "MU", "sid": "s1"}, 1))
NUMBERS = vector(({"sid": "s1", "phone_number": NUMBER}, 1), ({"sid": "s2", "phone_number": ""}, 1))
ATTACHMENTS = vector(({"sid": "s1"}, 0), ({"sid": "s2"}, 1))
RENTALS = vector(({"sid": "s1"}, 1234567.89), ({"sid": "s2"}, 499))
NOTHING = vector()


def scene() -> Scene:
    made = Scene()
    made.add("table", "a numeric unit", fields("short"), ONE)
    whole = column("phone_number", unit="string")
    made.add("table", "the unit string", fields("short", whole), ONE)
    region = column("region", mappings=by_value(CIRCLES))
    made.add("table", "a circle", fields("string", region), ONE)
    _add_rentals(made)
    _add_joins(made)
    _add_states(made)
    made.add("stat", "no series", fields("none", noValue="No account yet"), NOTHING, options=LAST)
    made.add("table", "no rows", fields("none", noValue="Every number has a flow"), NOTHING)
    made.add("timeseries", "no lines", fields("none", noValue="No polls yet"), NOTHING)
    _add_legends(made)
    return made


def _add_rentals(made: Scene) -> None:
    units = ("currency:financial:₹", "currencyINR", "currency:financial:$")
    rental = vector(({}, 1234567.89))
    for unit in units:
        made.add("stat", unit, fields(unit, decimals=2), rental, options=LAST)
    made.add("stat", "no decimals set", fields("currency:financial:₹"), rental, options=LAST)


def _add_joins(made: Scene) -> None:
    join: Json = {"transformations": [{"id": "merge", "options": {}}]}
    overrides = (
        column("Value #B", mappings=by_value(ATTACHED), custom__cellOptions={"type": "color-text"}),
        column("Value #C", unit="currency:financial:₹", decimals=2, displayName="Rental"),
        column(
            "sid",
            links=[
                {
                    "title": "",
                    "url": "/d/x?sid=${__value.raw}&${account:queryparam}",
                }
            ],
        ),
    )
    config = fields("string", *overrides)
    order: Json = {"options": {"sortBy": [{"displayName": "Rental", "desc": True}]}}
    made.add("table", "merged", config, NUMBERS, ATTACHMENTS, RENTALS, **join, **order)
    by_sid: Json = {"transformations": [{"id": "joinByField", "options": {"byField": "sid"}}]}
    made.add("table", "joined", config, NUMBERS, ATTACHMENTS, RENTALS, **by_sid)


def _add_states(made: Scene) -> None:
    mapped = {"mappings": by_value(ATTACHED), "steps": GREEN_THEN_RED}
    flow = matrix(({"flow": "voice"}, [1, 1, 0, 0, 1]))
    for mode in ("fixed", "thresholds"):
        config = fields("none", color={"mode": mode, "fixedColor": "blue"}, **mapped)
        made.add("state-timeline", f"states by {mode}", config, flow)
    apart: Json = {"options": {"mergeValues": False}}
    made.add("state-timeline", "states apart", config, flow, **apart)


def _add_legends(made: Scene) -> None:
    two = matrix(({"account": "a", "job": "j"}, [1, 2]), ({"account": "b", "job": "j"}, [3, 90]))
    steps = {"steps": GREEN_THEN_RED, "color": {"mode": "thresholds"}}
    legend: Json = {"options": {"legend": {"calcs": ["max"]}}}
    made.add("timeseries", "auto", fields("s"), two, **legend)
    made.add("timeseries", "named", fields("none", **steps), two, legend="{{account}} ({{none}})")
    made.add("timeseries", "without labels", fields("none"), matrix(({}, [1, 2])))
    whole = {"resultType": "scalar", "result": [NOW, "+Inf"]}
    scalar = {"status": "success", "data": whole}
    made.add("stat", "a scalar", fields("none"), scalar, options=LAST)
    titled = fields("none", displayName="${__field.labels.account} of $job")
    made.add("stat", "of $account", titled, two, options=LAST)
    made.add("timeseries", "titled", titled, two)


@functools.cache
def _read(node: str, locale: str) -> dict[str, Json]:
    return {panel["title"]: panel for panel in read_cells(node, scene().payload(), locale)}


@pytest.fixture
def read(program: Callable[[str], str]) -> Callable[..., Json]:
    """A panel of the scene as a person reads it, by its title; all are read in one go."""
    node = program("node")
    return lambda title, locale="en_IN": _read(node, locale)[title]


def only(panel: Json, what: str) -> Json:
    """The only table, value, series or timeline of a panel."""
    (found,) = panel[what]
    return dict(found)


def records(table: Json) -> list[dict[str, str]]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


@pytest.mark.end_to_end
def test_a_numeric_unit_ruins_a_phone_number(read: Callable[..., Json]) -> None:
    """A table whose default unit is a number's shows +912248901111 as 912 Bil."""
    (row,) = records(only(read("a numeric unit"), "tables"))
    assert row["phone_number"] == "912 Bil"


@pytest.mark.end_to_end
def test_the_unit_string_keeps_a_phone_number_whole(read: Callable[..., Json]) -> None:
    """A column of its own unit is not touched by the default."""
    (row,) = records(only(read("the unit string"), "tables"))
    assert row["phone_number"] == NUMBER


@pytest.mark.end_to_end
def test_a_circle_has_its_name(read: Callable[..., Json]) -> None:
    """A value mapping turns the vendor's code into what a person calls the circle."""
    (row,) = records(only(read("a circle"), "tables"))
    assert row["region"] == "Mumbai"


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("unit", "locale", "expected"),
    [
        pytest.param("currency:financial:₹", "en_IN", "₹12,34,567.89", id="India"),
        pytest.param("currency:financial:₹", "en_US", "₹1,234,567.89", id="America"),
        pytest.param("currency:financial:$", "en_US", "$1,234,567.89", id="dollars"),
        pytest.param("currencyINR", "en_IN", "₹1.23M", id="the unit of the menu"),
        pytest.param("no decimals set", "en_IN", "₹12,34,567.9", id="without decimals"),
    ],
)
def test_money_is_written_out(
    read: Callable[..., Json], unit: str, locale: str, expected: str
) -> None:
    """The financial unit has every digit, in the groups of the reader's browser."""
    assert only(read(unit, locale), "values")["text"] == expected


@pytest.mark.end_to_end
def test_merge_gives_one_row_a_number(read: Callable[..., Json]) -> None:
    """Three queries become one table: each label once, each value beside it, sorted as asked."""
    table = only(read("merged"), "tables")
    assert [list(row.values())[1:] for row in records(table)] == [
        [NUMBER, "s1", "1", "Unattached", "₹12,34,567.89"],
        ["", "s2", "1", "Attached", "₹499.00"],
    ]
    assert table["columns"] == ["Time", "phone_number", "sid", "Value #A", "Value #B", "Rental"]


@pytest.mark.end_to_end
def test_join_by_field_repeats_columns(read: Callable[..., Json]) -> None:
    """The other way to one table has a time for each query."""
    columns = only(read("joined"), "tables")["columns"]
    assert [name for name in columns if name.startswith("Time")] == ["Time 1", "Time 2", "Time 3"]


@pytest.mark.end_to_end
def test_a_cell_has_its_colour_and_its_link(read: Callable[..., Json]) -> None:
    """The colour is that of the mapping, and only where the column asks for one."""
    table = only(read("merged"), "tables")
    assert [row[4] for row in table["colors"]] == [RED, GREEN]
    assert {row[3] for row in table["colors"]} == {None}
    link = "/d/x?sid=s1&var-account=support&var-account=sales"
    assert table["links"][0][2] == [link]


@pytest.mark.end_to_end
def test_states_have_the_names_of_the_mapping(read: Callable[..., Json]) -> None:
    """A state timeline shows each change once."""
    states = only(read("states by fixed"), "timelines")["states"]
    assert [state["text"] for state in states] == ["Attached", "Unattached", "Attached"]
    assert [state["color"] for state in states] == [GREEN, RED, GREEN]
    assert states[1]["from"] == (NOW + 120) * 1000


@pytest.mark.end_to_end
def test_states_coloured_by_thresholds_lose_their_names(read: Callable[..., Json]) -> None:
    """A state timeline that merges values and colours by thresholds ignores the mappings."""
    states = only(read("states by thresholds"), "timelines")["states"]
    assert [state["text"] for state in states] == ["1+", "< 1", "1+"]
    apart = only(read("states apart"), "timelines")["states"]
    assert [state["text"] for state in apart] == ["Attached", "Unattached", "Attached"]


@pytest.mark.end_to_end
def test_an_empty_panel_says_why(read: Callable[..., Json]) -> None:
    """The noValue text stands in the panel where an answer has no series."""
    assert only(read("no series"), "values")["text"] == "No account yet"
    assert read("no rows")["message"] == "Every number has a flow"
    assert read("no lines")["message"] == "No polls yet"


@pytest.mark.end_to_end
def test_series_have_names(read: Callable[..., Json]) -> None:
    """The automatic legend has what tells the series apart; a format has the labels it names."""
    auto = read("auto")["series"]
    assert [series["title"] for series in auto] == [
        '{account="a", job="j"}',
        '{account="b", job="j"}',
    ]
    assert [series["calcs"] for series in auto] == [[["Max", "2 s"]], [["Max", "1.50 mins"]]]
    named = read("named")["series"]
    assert [(s["title"], s["text"]) for s in named] == [("a ()", "2"), ("b ()", "90")]
    assert [s["color"] for s in named] == [RED, RED]


@pytest.mark.end_to_end
def test_a_series_without_labels_has_the_name_of_its_query(read: Callable[..., Json]) -> None:
    """A sum of everything, or a number that Prometheus makes up, has nothing else to be called."""
    assert only(read("without labels"), "series")["title"] == "a_query"
    value = only(read("a scalar"), "values")
    assert (value["title"], value["text"]) == ("a_query", "∞")


@pytest.mark.end_to_end
def test_a_title_may_have_variables_and_labels(read: Callable[..., Json]) -> None:
    """What is set is put in; what nobody has set stays, so that it is seen."""
    values = read("of {support,sales}")["values"]
    assert [value["title"] for value in values] == ["a of $job", "b of $job"]
    assert [s["title"] for s in read("titled")["series"]] == ["a of $job", "b of $job"]


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda made: made.answers.pop(), "no answer to query A of panel", id="no answer"
        ),
        pytest.param(
            lambda made: made.answers[0].update(response={"status": "error", "error": "bad_data"}),
            "query A of panel 1: bad_data",
            id="an error",
        ),
        pytest.param(
            lambda made: made.panels[0].update(transformations=[{"id": "merg", "options": {}}]),
            "has no transformation merg",
            id="a transformation that is none",
        ),
        pytest.param(
            lambda made: made.panels[0].update(options={"sortBy": [{"displayName": "Rent"}]}),
            "sorted by Rent, which is none of Time,",
            id="a column that is none",
        ),
        pytest.param(
            lambda made: made.panels[0].update(title="${account:csv}"),
            "no format csv of variable account",
            id="a format that we do not know",
        ),
        pytest.param(
            lambda made: made.panels[0].update(type="heatmap"),
            "nobody reads panels of type heatmap",
            id="a panel that we do not know",
        ),
    ],
)
def test_what_cannot_be_read_is_said(
    program: Callable[[str], str], spoil: Callable[[Scene], Any], message: str
) -> None:
    """A panel that Grafana would draw wrongly, or we could not read, is no silent success."""
    made = scene()
    spoil(made)
    with pytest.raises(AssertionError, match=message):
        read_cells(program("node"), made.payload())


@pytest.mark.end_to_end
def test_the_dashboards_have_the_types_of_grafana(program: Callable[[str], str]) -> None:
    """Each option of each panel, field, override, variable and query is one that Grafana knows."""
    done = run_script(program("node"), "check_types.mjs", *map(str, DASHBOARDS))
    assert done.returncode == 0, done.stdout + done.stderr


def of_type(dashboard: Json, kind: str) -> Json:
    return next(panel for panel in dashboard["panels"] if panel["type"] == kind)


WRONG: dict[str, tuple[Callable[[Json], Any], str]] = {
    "an option that is none": (
        lambda d: of_type(d, "stat")["options"].update(graphmode="area"),
        "'\"graphmode\"' does not exist",
    ),
    "a value that is none": (
        lambda d: of_type(d, "stat")["options"].update(graphMode="areas"),
        "Type '\"areas\"' is not assignable",
    ),
    "a field's option that is none": (
        lambda d: of_type(d, "timeseries")["fieldConfig"]["defaults"]["custom"].update(fill=1),
        "'\"fill\"' does not exist",
    ),
    "an override of nothing": (
        lambda d: of_type(d, "table")["fieldConfig"]["overrides"].append(
            column("Number", custom__widht=150)
        ),
        "custom.widht",
    ),
    "an override of another type": (
        lambda d: of_type(d, "table")["fieldConfig"]["overrides"].append(
            column("Number", custom__width="150")
        ),
        "Type 'string' is not assignable to type 'number'",
    ),
    "a format that is none": (
        lambda d: of_type(d, "table")["targets"][0].update(format="tables"),
        "'\"tables\"' is not assignable to type 'PromQueryFormat",
    ),
    "no place": (lambda d: of_type(d, "stat").pop("gridPos"), "Property 'gridPos' is missing"),
    "a panel that is none": (
        lambda d: of_type(d, "stat").update(type="singlestat"),
        "Property 'singlestat' does not exist on type 'Panels'",
    ),
    "a variable's choice that is none": (
        lambda d: d["templating"]["list"][1].update(refresh=3),
        "Type '3' is not assignable",
    ),
    "a key that is none": (lambda d: d.update(tag=["exophone"]), "'\"tag\"' does not exist"),
}


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A dashboard spoiled in each way; one run of the compiler checks them all."""
    folder = tmp_path_factory.mktemp("spoiled")
    files = []
    for name, (spoil, _) in WRONG.items():
        dashboard = json.loads(DASHBOARDS[1].read_text("utf-8"))
        spoil(dashboard)
        files.append(folder / f"{name.replace(' ', '-')}.json")
        files[-1].write_text(json.dumps(dashboard), encoding="utf-8")
    return files


@functools.cache
def _said_of_types(node: str, files: tuple[Path, ...]) -> str:
    done = run_script(node, "check_types.mjs", *map(str, files))
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", WRONG)
def test_what_grafana_does_not_know_is_found(
    program: Callable[[str], str], spoiled: list[Path], name: str
) -> None:
    """The compiler names the dashboard and what is wrong in it."""
    said = _said_of_types(program("node"), tuple(spoiled))
    of_each = re.split(r"^(?=\S+\.json)", said, flags=re.MULTILINE)
    own = [problem for problem in of_each if problem.startswith(f"{name.replace(' ', '-')}.json")]
    assert WRONG[name][1] in "\n".join(own)


@pytest.mark.end_to_end
def test_our_sources_have_types(program: Callable[[str], str]) -> None:
    """The programs that read and draw use Grafana's libraries as those say."""
    done = run_script(program("node"), "node_modules/typescript/bin/tsc", "-p", str(FOLDER))
    assert done.returncode == 0, done.stdout


@pytest.mark.end_to_end
def test_a_dashboard_can_be_drawn(program: Callable[[str], str], tmp_path: Path) -> None:
    """A picture 1600 pixels wide comes out, of a size that a page of documentation can bear."""
    payload, out = tmp_path / "payload.json", tmp_path / "out.png"
    payload.write_text(json.dumps(scene().payload()), encoding="utf-8")
    words = (str(payload), str(out), program("chromium"))
    done = run_script(program("node"), "picture.mjs", *words)
    assert done.returncode == 0, done.stderr
    picture = out.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") == 1600
    assert 50_000 < len(picture) < 400_000


@pytest.mark.end_to_end
def test_a_panel_that_cannot_be_drawn_is_said(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    """An error of the page is an error of the program, not an empty picture."""
    made = scene()
    made.panels[0]["type"] = "heatmap"
    payload = tmp_path / "payload.json"
    payload.write_text(json.dumps(made.payload()), encoding="utf-8")
    words = (str(payload), str(tmp_path / "out.png"), program("chromium"))
    done = run_script(program("node"), "picture.mjs", *words)
    assert done.returncode == 1
    assert "no view of panels of type heatmap" in done.stderr


def test_missing_packages_are_explained(tmp_path: Path) -> None:
    """Without npm's packages, or with others than the lock's, the message says what to run."""
    assert "not installed; run: npm ci --prefix tests/lib/grafana" in packages_problem(tmp_path)
    (tmp_path / "node_modules").mkdir()
    for folder, version in ((tmp_path, "2"), (tmp_path / "node_modules", "1")):
        lock = {"packages": {"node_modules/a": {"version": version}}}
        name = "package-lock.json" if folder == tmp_path else ".package-lock.json"
        (folder / name).write_text(json.dumps(lock), encoding="utf-8")
    assert "not those of package-lock.json" in packages_problem(tmp_path)
