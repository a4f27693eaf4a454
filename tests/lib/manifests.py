"""Kubernetes resources, held against the schemas of what reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import kubernetes_validate
import pytest

from tests.lib.paths import ROOT
from tests.lib.processes import Ended, ended, environment

OLDEST_AND_NEWEST = ("1.28", "1.37")
# What kubectl apply keeps of a resource in an annotation of it.
LAST_APPLIED_MAX_BYTES = 262_144
_NODE = ROOT / "tests" / "lib" / "kubernetes"
_CUSTOM = ("monitoring.coreos.com/", "gateway.networking.k8s.io/")

Resource = dict[str, Any]


def check_fields(program: Callable[[str], str], resources: Iterable[Resource]) -> None:
    """Kubernetes, the Prometheus operator and the Gateway API know every field, with its type."""
    custom = []
    for resource in resources:
        assert len(json.dumps(resource)) < LAST_APPLIED_MAX_BYTES
        if resource["apiVersion"].startswith(_CUSTOM):
            custom.append(resource)
            continue
        for version in OLDEST_AND_NEWEST:
            kubernetes_validate.validate(resource, version, strict=True)
    if custom:
        said = _check_custom(program, custom)
        assert said == Ended(0, f"{len(custom)} resources checked, 0 problems\n", "")


def _check_custom(program: Callable[[str], str], resources: list[Resource]) -> Ended:
    if not (_NODE / "node_modules" / ".package-lock.json").exists():
        problem = "not installed; run: npm ci --prefix tests/lib/kubernetes"
        pytest.fail(problem) if os.environ.get("EXOPHONE_REQUIRE_END_TO_END") else pytest.skip(
            problem
        )
    checked = json.dumps(resources)
    return ended(program("node"), _NODE / "check.mjs", input=checked, env=environment())
