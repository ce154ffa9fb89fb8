"""Processes that do the work: one a job, forked from one that has its modules loaded already.

A worker, `serve`, reads jobs, a line of JSON each, from standard input, and answers each with a
line: {"outcome": ...}, {"not_offered": why} or {"error": what}.  A job has a process of its own, so
that no engine finds another's threads, caches or memory; forking one takes milliseconds where
starting an interpreter takes half a second.  The parent has no threads and opens no store.

`Workers` is the other end.  A job that takes too long is killed, and so is everything when the
benchmark is left: a worker is in a session of its own, so that Ctrl-C reaches the benchmark alone.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, Self

from cesium.benchmark import engines
from cesium.benchmark.engines import NotOffered
from cesium.benchmark.job import Context, Job
from cesium.benchmark.workloads import WORKLOADS
from cesium.benchmark.workloads.loads import prepare

PREPARE = "prepare"
# Finds modules where this process does, wherever either was started.
PROGRAM = "import sys; sys.path = sys.argv[1:]; from cesium.benchmark import worker; worker.serve()"


def perform(job: Job) -> dict[str, Any]:
    """Does a job in this process: the answer to be sent."""
    work = prepare if job.workload == PREPARE else WORKLOADS[job.workload].run
    try:
        return {"outcome": work(Context(job)).as_dict()}
    except NotOffered as reason:
        return {"not_offered": str(reason)}
    except Exception as error:
        if os.environ.get("CESIUM_TRACEBACK") == "1":
            raise
        return {"error": f"{type(error).__name__}: {error}"}


def serve() -> None:
    """Answers jobs until standard input ends, or nobody reads the answers any more."""
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        job = Job(**asked["job"])
        with suppress(ImportError):  # which the job then tells
            engines.engine(job.engine)
        answer = in_process_of_its_own(job, asked["timeout"])
        try:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the benchmark was killed; what is left goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


def in_process_of_its_own(job: Job, timeout: float) -> dict[str, Any]:
    """The answer of a forked process, which is killed after so many seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)  # what it forks goes with it
        try:
            with open(writing, "w") as answer:
                json.dump(perform(job), answer)
            sys.stderr.flush()
        finally:
            os._exit(0)  # no exit handlers: they are the parent's
    os.close(writing)
    pieces: list[bytes] = []
    with suppress(OSError):
        os.setpgid(child, child)
    with open(reading, "rb", buffering=0) as answer:
        while select.select([answer], [], [], timeout)[0]:
            piece = answer.read(1 << 16)
            if not piece:
                break
            pieces.append(piece)
        else:
            kill_group(child)
            os.waitpid(child, 0)
            return {"error": f"took longer than {timeout:.0f} s"}
    _, status = os.waitpid(child, 0)
    kill_group(child)  # nothing of it goes on
    code = os.waitstatus_to_exitcode(status)
    if not pieces:
        died = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return {"error": f"the process was {died}" if code < 0 else f"the process {died}"}
    found: dict[str, Any] = json.loads(b"".join(pieces))
    return found


def kill_group(leader: int) -> None:
    """Ends a process and those that it started; none of them may be left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


class Workers:
    """A worker for jobs, until the end of a with statement."""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        return self

    def perform(self, job: Job, timeout: float) -> dict[str, Any]:
        """Has a job done; the answer, an error in it when there was one."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"job": job.as_dict(), "timeout": timeout}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise OSError("the worker process is gone")
        found: dict[str, Any] = json.loads(line)
        return found

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # it ends by itself when it is idle
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        self._kill()
        self.process.stdout.close()

    def _kill(self) -> None:
        for child in children_of(self.process.pid):
            kill_group(child)
        self.process.kill()
        self.process.wait()


def children_of(process: int) -> list[int]:
    """The processes that a process has started and that still run."""
    with suppress(OSError), open(f"/proc/{process}/task/{process}/children") as file:
        return [int(child) for child in file.read().split()]
    return []
