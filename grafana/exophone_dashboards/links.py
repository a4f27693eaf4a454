"""Where a click leads: an account to the dashboards, a number to its history and its exporter."""

from __future__ import annotations

from typing import Final

from exophone_dashboards.panels import Json, link

# The panel that shows one number, alone on the screen.
HISTORY_ID: Final = 100
# How a browser reaches the exporter; docs/dashboards.md says how to have another address.
EXPORTER: Final = "http://${exporter}"
_KEPT: Final = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"


def to_dashboard(uid: str, chosen: str) -> str:
    """The address of a dashboard with a choice; data source, exporters and time stay."""
    return f"/d/{uid}?{_KEPT}&{chosen}&${{__url_time_range}}"


def account_links() -> list[Json]:
    """For a column of accounts."""
    of_account = "var-account=${__value.raw}"
    return [
        link("Only this account", to_dashboard("exophone-numbers", of_account)),
        link("Its rental", to_dashboard("exophone-rental", of_account)),
        link("Its polling", to_dashboard("exophone-exporter", of_account)),
    ]


def number_links(sid: str, account: str) -> list[Json]:
    """For a column of numbers; the arguments are the columns of the sid and the account."""
    chosen = f"var-number=${{__data.fields.{sid}}}&viewPanel={HISTORY_ID}"
    live = f"account=${{__data.fields.{account}}}&target=${{__data.fields.{sid}}}"
    return [
        link("Its history", to_dashboard("exophone-numbers", chosen)),
        link("At Exotel, now", f"{EXPORTER}/probe?{live}"),
        link("The exporter's page", f"{EXPORTER}/"),
    ]
