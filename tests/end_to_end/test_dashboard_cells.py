"""What a person reads in each panel: the answers of Prometheus through Grafana's own libraries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest

from tests.end_to_end.test_dashboard_values import DASHBOARDS, choices, crowd, slow
from tests.lib.dashboards.expectations import EXPECTED, View
from tests.lib.dashboards.grafana_node import read_cells
from tests.lib.dashboards.grafana_queries import panels, payload
from tests.lib.dashboards.scene import NONE_JOB, Scene
from tests.lib.queries import LABELS

pytestmark = pytest.mark.end_to_end

Json = dict[str, Any]
Screen = dict[str, Json]

# What a program prints for a case that its authors forgot.
GARBLED: Final = re.compile(
    r"NaN|undefined|null|Infinity|\[object|Invalid date|1970-|\b(Bil|Mil|Tri|K)$"
    r"|\$\{|\$__|\{\w+=|Value( #\w)?$|__name__"
)
DASH: Final = "-"
PROBLEMS: Final = "Numbers with a problem"
RED: Final = "#F2495C"  # of Grafana's dark theme


def screens(node: str, view: View) -> dict[str, Screen]:
    found = {}
    for uid in EXPECTED:
        asked = payload(DASHBOARDS[uid], view.server, choices(view, uid), view.span)
        read = read_cells(node, asked)
        found[uid] = {one["title"]: one for one in read if one["type"] != "row"}
    return found


@pytest.fixture(scope="module")
def seen(played_scene: Scene, program: Callable[[str], str]) -> dict[str, Screen]:
    return screens(program("node"), slow(played_scene))


@pytest.fixture(scope="module")
def seen_without_numbers(played_scene: Scene, program: Callable[[str], str]) -> dict[str, Screen]:
    return screens(program("node"), crowd(played_scene, NONE_JOB, "none"))


@pytest.fixture(scope="module", params=["all", "none"])
def either(
    request: pytest.FixtureRequest,
    seen: dict[str, Screen],
    seen_without_numbers: dict[str, Screen],
) -> dict[str, Screen]:
    return seen if request.param == "all" else seen_without_numbers


def texts(panel: Json) -> Iterator[str]:
    yield panel.get("message", "")
    for table in panel.get("tables", ()):
        yield from table["columns"]
        for row in table["rows"]:
            yield from row
    for kind in ("values", "series"):
        for one in panel.get(kind, ()):
            yield one["title"]
            yield one["text"]
            yield from (text for _, text in one.get("calcs", ()))
    for line in panel.get("timelines", ()):
        yield line["title"]
        yield from (state["text"] for state in line["states"])


def rows(panel: Json) -> list[dict[str, str]]:
    (table,) = panel["tables"]
    return [
        {name: text.strip() for name, text in zip(table["columns"], row, strict=True)}
        for row in table["rows"]
    ]


def values(panel: Json) -> dict[str, str]:
    return {one["title"]: one["text"].strip() for one in panel["values"]}


@pytest.mark.parametrize("uid", EXPECTED)
def test_no_text_is_garbled(either: Mapping[str, Screen], uid: str) -> None:
    for title, panel in either[uid].items():
        bad = [text for text in texts(panel) if GARBLED.search(text)]
        assert not bad, f"{title}: {bad}"


@pytest.mark.parametrize("uid", EXPECTED)
def test_every_panel_says_something(either: Mapping[str, Screen], uid: str) -> None:
    for title, panel in either[uid].items():
        assert any(texts(panel)), title
        assert panel.get("message") not in ("No data", ""), title


@pytest.mark.parametrize("uid", EXPECTED)
def test_columns_are_named_for_people(either: Mapping[str, Screen], uid: str) -> None:
    for title, panel in either[uid].items():
        for table in panel.get("tables", ()):
            names = table["columns"]
            assert len(set(names)) == len(names), f"{title}: {names}"
            bad = [name for name in names if name == "Time" or not name[:1].isupper()]
            assert not bad, f"{title}: {bad}"


@pytest.mark.parametrize("uid", EXPECTED)
def test_no_row_and_no_series_is_there_twice(either: Mapping[str, Screen], uid: str) -> None:
    """Two replicas are one row, and lines of a graph can be distinguished."""
    for title, panel in either[uid].items():
        for table in panel.get("tables", ()):
            assert len({*map(tuple, table["rows"])}) == len(table["rows"]), title
        for kind in ("values", "series", "timelines"):
            titles = [one["title"] for one in panel.get(kind, ())]
            assert len(set(titles)) == len(titles), f"{title}: {titles}"


def test_the_columns_that_overrides_name_exist(
    seen: dict[str, Screen], seen_without_numbers: dict[str, Screen]
) -> None:
    """All tables share their overrides. Grafana ignores one whose column has another name."""
    screens = (*seen.values(), *seen_without_numbers.values())
    tables = [
        table for one in screens for panel in one.values() for table in panel.get("tables", ())
    ]
    columns = {column for table in tables for column in table["columns"]}
    renamed = LABELS | {"Value", "circle"}
    for panel in (one for dashboard in DASHBOARDS.values() for one in panels(dashboard)):
        matchers = [one["matcher"] for one in panel["fieldConfig"]["overrides"]]
        named = {one["options"] for one in matchers if one["id"] == "byName"}
        assert panel["type"] != "table" or named <= columns | renamed, panel["title"]


def test_a_cell_has_its_colour_and_its_links(seen: Mapping[str, Screen]) -> None:
    """A missing flow is red; an account leads to the three dashboards."""
    (table,) = seen["exophone-numbers"][PROBLEMS]["tables"]
    voice, account = (table["columns"].index(name) for name in ("Voice", "Account"))
    read = {
        (row[voice], colors[voice])
        for row, colors in zip(table["rows"], table["colors"], strict=True)
    }
    assert ("Missing", RED) in read
    assert ("As expected", RED) not in read
    links = [link.partition("?")[0] for link in table["links"][0][account]]
    assert links == [f"/d/{uid}" for uid in EXPECTED]
    assert "&var-account=apac&" in table["links"][0][account][0]


@pytest.mark.parametrize(
    ("uid", "title"),
    [
        ("exophone-numbers", PROBLEMS),
        ("exophone-rental", "Most expensive idle numbers"),
    ],
)
def test_a_number_leads_to_its_history_and_its_exporter(
    played_scene: Scene, seen: Mapping[str, Screen], uid: str, title: str
) -> None:
    (table,) = seen[uid][title]["tables"]
    column = table["columns"].index("Number")
    (place,) = (i for i, row in enumerate(table["rows"]) if row[column] == "+912248901111")
    history, live, page = table["links"][place][column]
    assert history.startswith("/d/exophone-numbers?")
    assert "&var-number=912248901111&viewPanel=100&" in history
    address = f"http://{min(played_scene.instances)}/"
    assert live == f"{address}probe?account=support&target=912248901111"
    assert page == address
    shown = [one for one in panels(DASHBOARDS["exophone-numbers"]) if one["id"] == 100]
    assert [one["title"] for one in shown] == ["History of one number"]


# Between the menu of Grafana and the scroll bar, on a screen of 1280 pixels.
CONTENT_PIXELS: Final = 1280 - 300 - 32
PADDING_PIXELS: Final = 22


@pytest.mark.parametrize("uid", EXPECTED)
def test_no_table_is_cut_on_a_small_screen(either: Mapping[str, Screen], uid: str) -> None:
    """With the menu open. Columns without a width share what is left, but take their least."""
    grid = {one["title"]: one["gridPos"]["w"] for one in panels(DASHBOARDS[uid])}
    for title, panel in either[uid].items():
        for table in panel.get("tables", ()):
            space = grid[title] * CONTENT_PIXELS / 24 - PADDING_PIXELS
            left = space - sum(fixed or 0 for fixed, _ in table["widths"])
            least = [least for fixed, least in table["widths"] if not fixed]
            assert all(one <= left / len(least) for one in least), title
            assert left >= 0, title


def test_the_row_of_a_number_with_a_problem(seen: Mapping[str, Screen]) -> None:
    found = {row["Number"]: row for row in rows(seen["exophone-numbers"][PROBLEMS])}
    assert found["+912248901111"] == {
        "Number": "+912248901111",
        "Name": "02248901111",
        "Account": "support",
        "Circle": "Mumbai",
        "Voice": "Missing",
        "SMS": "Missing",
        "Expected": "A flow",
        "Owner": DASH,
        "Since": "Earlier",
    }
    rule = {key: found["+914449870004"][key] for key in ("Voice", "SMS", "Expected", "Owner")}
    assert rule == {
        "Voice": "Unwanted",
        "SMS": "Unchecked",
        "Expected": "No flow",
        "Owner": "sales",
    }


def test_the_rows_of_the_numbers_with_a_problem(seen: Mapping[str, Screen]) -> None:
    """Each number once, whatever it lacks; a channel that it is not capable of is a dash."""
    found = rows(seen["exophone-numbers"][PROBLEMS])
    read = [(one["Number"], one["Circle"], one["Voice"], one["SMS"]) for one in found]
    good = "As expected"
    assert sorted(read) == [
        ("+6531580016", "Singapore", "Missing", good),
        ("+6531580017", "Singapore", "Missing", "Missing"),
        ("+912240110007", "Mumbai", "Wrong flow", good),
        ("+912240110008", "Mumbai", "Missing", good),
        ("+912240990021", "Mumbai", good, "Missing"),
        ("+912248901111", "Mumbai", "Missing", "Missing"),
        ("+914449870004", "Tamil Nadu", "Unwanted", "Unchecked"),
        ("+918040110011", "Karnataka", "Missing", "Missing"),
        ("+918045670003", "Karnataka", "Missing", good),
        (DASH, DASH, DASH, DASH),
        (DASH, DASH, DASH, DASH),
        (DASH, "Unknown", good, "Missing"),
    ]
    assert [one["Voice"] for one in found[:6]] == ["Missing"] * 6


def test_problems_by_kind_and_rules_without_numbers(seen: Mapping[str, Screen]) -> None:
    numbers = seen["exophone-numbers"]
    assert values(numbers["Voice problems"]) == {"Voice problems": "8"}
    assert values(numbers["Problems by kind"]) == {"Missing": "11", "Wrong": "1", "Unwanted": "1"}
    assert values(numbers["Rules that match nothing"]) == {"closed": "0"}


def test_the_account_of_which_nothing_is_known(seen: Mapping[str, Screen]) -> None:
    found = rows(seen["exophone-numbers"][PROBLEMS])
    accounts = {row["Account"] for row in found if row["Name"] == "No fresh data"}
    assert accounts == {"refused", "stale"}
    assert values(seen["exophone-numbers"]["Age of the data"])["refused"] == "Never"


def test_without_series_per_number_the_table_counts(
    seen_without_numbers: Mapping[str, Screen],
) -> None:
    found = rows(seen_without_numbers["exophone-numbers"][PROBLEMS])
    read = {row["Account"]: row["Name"] for row in found}
    assert read["support"] == "6 more, not listed"
    assert read["apac"] == "3 more, not listed"
    timeline = seen_without_numbers["exophone-numbers"]["Attachment of the numbers that changed"]
    (bar,) = timeline["timelines"]
    texts_of_bar = [one["text"] for one in bar["states"]]
    said = "No flow changed, or per-number series are off"
    assert (bar["title"], texts_of_bar) == ("No number", [said])
    most_expensive = seen_without_numbers["exophone-rental"]["Most expensive idle numbers"]
    assert "per_number.series" in most_expensive["message"]


def test_the_states_of_the_timeline(seen: Mapping[str, Screen]) -> None:
    panel = seen["exophone-numbers"]["Attachment of the numbers that changed"]
    read = {line["title"]: [one["text"] for one in line["states"]] for line in panel["timelines"]}
    assert read == {
        "Delivery Mumbai 2 +912240110008 voice": ["Attached", "Unattached"],
        "Kolkata +913340110009 voice": ["Unattached", "Attached"],
        "New Bengaluru +918040110011 voice": ["Unattached"],
        "New Bengaluru +918040110011 sms": ["Unattached"],
        "Desk +6531580016 voice": ["Attached", "Unattached"],
        "Spare +6531580017 sms": ["Unattached", "Attached", "Unattached"],
    }


def test_circles_and_flows_by_name(seen: Mapping[str, Screen]) -> None:
    circles = rows(seen["exophone-numbers"]["Problems by circle and type"])
    assert {row["Circle"] for row in circles} >= {"Mumbai", "Karnataka", "Singapore", "Unknown"}
    flows = rows(seen["exophone-numbers"]["Numbers per flow"])
    external = {"Account": "support", "Channel": "Voice", "Flow": "external", "Numbers": "1"}
    assert external in flows
    assert {row["Channel"] for row in flows} == {"Voice", "SMS"}


def test_amounts_in_the_notation_of_their_currency(seen: Mapping[str, Screen]) -> None:
    rental = seen["exophone-rental"]
    read = {"INR": "₹12,34,567.89", "USD": "$47.25", "SGD": "37.50"}
    assert values(rental["Monthly rental"]) == read | {"Unpriced numbers": "1"}
    assert values(rental["Idle rental"]) == {"INR": "₹998.00", "SGD": "37.50", "USD": "$0.00"}
    assert values(rental["Yearly waste"])["INR"] == "₹11,976.00"
    assert values(rental["Change in the range"])["INR"] == "₹500.00"
    assert list(values(rental["Next charge"]).values()) == ["Today"]
    last = {one["title"]: one["text"] for one in rental["Rental over time"]["series"]}
    assert last["Rental INR"] == "₹12,34,567.89"


def test_tables_of_rental(seen: Mapping[str, Screen]) -> None:
    """A row for each currency in which an account pays."""
    found = rows(seen["exophone-rental"]["Rental by account"])
    read = {(row["Account"], row["Currency"]): row for row in found}
    assert read.keys() == {("support", "INR"), *(("apac", one) for one in ("INR", "SGD", "USD"))}
    support, apac = read["support", "INR"], read["apac", "SGD"]
    assert (support["Rental"], support["Idle"]) == ("12,34,467.89", "998.00")
    assert (apac["Rental"], apac["Share"]) == ("37.50", "100.0%")
    assert read["apac", "USD"]["Rental"] == "47.25"
    circles = rows(seen["exophone-rental"]["Rental by circle and type"])
    (toll_free,) = (row for row in circles if row["Type"] == "TollFree")
    assert (toll_free["Circle"], toll_free["Rental"]) == ("Delhi", "25,250.00")


def test_the_balance_of_each_account(seen: Mapping[str, Screen]) -> None:
    """A million each; what was spent, and what one more month of rental leaves: not enough today.

    A charge that is not covered is a whole number of days away, and red.
    """
    found = {row["Account"]: row for row in rows(seen["exophone-rental"]["Balance by account"])}
    support, apac = found["support"], found["apac"]
    assert (support["Currency"], support["Balance"]) == ("INR", "9,96,998.50")
    assert support["After the next charge"] == "-2,37,469.39"
    assert support["Days left"] == "0 days"
    assert (apac["Balance"], apac["Days left"]) == ("10,00,000.00", DASH)
    (soonest,) = values(seen["exophone-rental"]["Days left"]).items()
    assert soonest == ("support INR", support["Days left"])


def test_rental_by_owner(seen: Mapping[str, Screen]) -> None:
    found = rows(seen["exophone-rental"]["Rental by owner"])
    read = {(one["Owner"], one["Currency"]): (one["Numbers"], one["Rental"]) for one in found}
    assert read["logistics", "INR"] == ("2", "998.00")
    assert read["apac", "SGD"] == ("1", "12.50")
    assert len(found) == len(read) == 7
    assert read["No owner", "INR"] == ("9", "12,07,820.89")


def test_the_dearest_idle_numbers(seen: Mapping[str, Screen]) -> None:
    found = rows(seen["exophone-rental"]["Most expensive idle numbers"])
    read = [(row["Number"], row["Rental"], row["Currency"]) for row in found]
    assert read[-2:] == [("+6531580017", "25.00", "SGD"), ("+6531580016", "12.50", "SGD")]
    assert sorted(read) == [
        ("+6531580016", "12.50", "SGD"),
        ("+6531580017", "25.00", "SGD"),
        ("+912248901111", "499.00", "INR"),
        ("+918040110011", "499.00", "INR"),
    ]


def test_the_health_of_the_exporters(played_scene: Scene, seen: Mapping[str, Screen]) -> None:
    exporter = seen["exophone-exporter"]
    each = sorted(played_scene.instances)
    assert values(exporter["Exporters"]) == dict.fromkeys(each, "Up")
    assert values(exporter["Configuration"]) == dict.fromkeys(each, "Loaded")
    accounts = rows(exporter["Accounts"])
    polls = {(row["Account"], row["Last poll"]) for row in accounts}
    assert polls == {
        ("support", "Complete"),
        ("apac", "Complete"),
        ("empty", "Complete"),
        ("stale", "Failed"),
        ("refused", "Failed"),
    }
    limits = {(row["Account"], row["Stale after"]) for row in accounts}
    assert {("refused", "40 mins"), ("stale", "4 mins")} <= limits
    assert {row["Age"] for row in accounts if row["Account"] == "refused"} == {"Never complete"}
    assert [row["Version"] for row in rows(exporter["Build"])] == ["0.1.0", "0.1.0"]
