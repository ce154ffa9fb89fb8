"""Says at the end of a test run how many crash images were opened."""

from __future__ import annotations

from typing import Any

from crash.explore import total


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if total.runs:
        terminalreporter.write_line(f"crashes: {total}")
