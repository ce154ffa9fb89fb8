"""Settings that all tests share.

Hypothesis profiles, chosen by HYPOTHESIS_PROFILE:

- `default`: fresh examples on every run, no deadline (the machine may be busy);
- `ci`: the same examples on every run;
- `short`: few and fixed, for the slow sanitizer builds;
- `fuzz`: many and fresh, for `make fuzz`; a failure prints what repeats it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

# A child of a test imports what the test imports, not sources that lie in its directory.
os.environ["PYTHONSAFEPATH"] = "1"

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]

settings.register_profile("default", deadline=None, suppress_health_check=QUIET)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile(
    "short", deadline=None, derandomize=True, max_examples=15, suppress_health_check=QUIET
)
settings.register_profile(
    "fuzz", deadline=None, max_examples=3000, print_blob=True, suppress_health_check=QUIET
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """On a slow drive a test looks idle long before it is: what it wrote stays in the journal."""
    with mock.patch("cesium.background.IDLE_SECONDS", 30.0):
        yield


@pytest.fixture(scope="module")
def foreground() -> Iterator[None]:
    """Stores without threads of their own: their directory changes only when they are called."""
    with mock.patch("cesium.opening.Background", lambda *arguments: None):
        yield
