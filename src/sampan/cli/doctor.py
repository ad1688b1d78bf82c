"""`sampan doctor`: what this machine lacks for a full cluster, and what that costs."""

from __future__ import annotations

import argparse

from sampan.cluster.doctor import examine

_MARKS = {"ok": "ok     ", "lacking": "lacking", "missing": "MISSING"}


def doctor(arguments: argparse.Namespace) -> int:
    """Exit code 1 when something is missing without which no cluster stands."""
    findings = examine()
    for finding in findings:
        print(f"{_MARKS[finding.state]}  {finding.what}: {finding.detail}")
        if finding.cost:
            print(f"{'':9}cost: {finding.cost}")
        if finding.remedy:
            print(f"{'':9}remedy: {finding.remedy}")
    return any(finding.state == "missing" for finding in findings)
