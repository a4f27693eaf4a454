"""What `make drill` prepares and says before it begins; the drill itself takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.lib import drill
from tests.lib.paths import ROOT
from tests.lib.processes import LOOPBACK, started


def test_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert drill.main() == 1
    said = capsys.readouterr().out
    assert "not installed: Prometheus and Alertmanager.\n" in said
    assert "apt install prometheus prometheus-alertmanager" in said


def test_it_changes_only_addresses_of_the_shipped_configuration() -> None:
    shipped = (ROOT / "prometheus" / "prometheus.yml").read_text("utf-8")
    used = drill.with_targets("http://127.0.0.1:1", "http://127.0.0.1:2")
    changed = [
        (before.strip(), after.strip())
        for before, after in zip(shipped.splitlines(), used.splitlines(), strict=True)
        if before != after
    ]
    assert changed == [
        ('- targets: ["localhost:9093"]', '- targets: ["127.0.0.1:2"]'),
        ('- targets: ["localhost:10396"]', '- targets: ["127.0.0.1:1"]'),
    ]


def test_the_exporter_has_its_defaults() -> None:
    """Of what the simulator prints it takes the accounts alone."""
    with started("simulate", LOOPBACK, "--numbers=1") as api:
        api.wait_for("Press Ctrl-C", "stdout")
        assert list(yaml.safe_load(drill.accounts(api.stdout))) == ["accounts"]
