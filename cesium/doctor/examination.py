"""What every check of a directory works with.

Thread safety: used by one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cesium.doctor.machine import Drive, Machine
from cesium.doctor.verdicts import Check, failed
from cesium.doctor.workbench import Workbench
from cesium.errors import StorageFullError
from cesium.file_system import Mount


@dataclass(frozen=True, slots=True)
class Examination:
    files: Workbench
    directory: str
    machine: Machine
    mount: Mount | None
    drive: Drive | None

    def run(
        self,
        name: str,
        check: Callable[[Examination], Check],
        progress: Callable[[str], None] | None,
    ) -> Check:
        """One check; what the system refuses outright is a failure of it, but for a full drive."""
        if progress is not None:
            progress(name)
        try:
            return check(self)
        except StorageFullError:
            raise
        except OSError as error:
            said = error.strerror or str(error)
            advice = "A store could not be kept here: it would meet the same error."
            return failed(name, f"the system refused it: {said}", advice)
