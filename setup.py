"""Builds the compiled modules.

`CESIUM_DEBUG=1` is the one switch: assertions, bounds checks and symbols on, optimisation low.
`CESIUM_SANITIZE=address,undefined` (or `thread`) adds those sanitizers to a debug build;
`fuzzer-no-link` among them (clang) tells a fuzzer which branches ran.  `CESIUM_COVERAGE=1` is a
debug build that tells coverage.py which lines ran, made in a copy of the sources.  Each other kind
has a directory of its own under build/, generated C included, so switching between them never mixes
objects and re-running one compiles only what changed.
"""

import multiprocessing
import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

sanitize = os.environ.get("CESIUM_SANITIZE", "")
coverage = os.environ.get("CESIUM_COVERAGE") == "1"
debug = os.environ.get("CESIUM_DEBUG") == "1" or bool(sanitize) or coverage
kind = "-".join(["debug" if debug else "release", *filter(None, sanitize.split(","))])
kind += "-coverage" if coverage else ""

# Never -march: SIMD is chosen per function at run time (cesium/_native.h): a wheel runs anywhere.
compile_args = ["-std=gnu11", "-Wall", "-Wno-unused-function", "-Wno-unused-variable", "-pthread"]
compile_args += ["-O1", "-g", "-UNDEBUG"] if debug else ["-O3", "-g1"]
link_args = ["-pthread"]
if sanitize:
    compile_args += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    # Copying no bytes from or to a null pointer is harmless, and lawful in the next C standard.
    compile_args += ["-fno-sanitize-recover=all", "-fno-sanitize=nonnull-attribute"]
    link_args += [f"-fsanitize={sanitize}"]
    # Fences mean nothing to ThreadSanitizer; ours stand between a thread and its own faults.
    compile_args += ["-Wno-tsan"] if "thread" in sanitize else []

macros = [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
macros += [("CESIUM_DEBUG", "1")] if debug else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if coverage else []

# cythonize follows the .pxd files itself.
headers = [str(path) for path in sorted(Path("cesium").glob("*.h"))]
modules = [
    Extension(
        f"cesium.{path.stem}",
        [str(path)],
        include_dirs=["cesium"],
        depends=headers,
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for path in sorted(Path("cesium").glob("_*.pyx"))
]

# Cython's workers need fork: with another start method they would run this script again.
processors = len(os.sched_getaffinity(0))
forks = multiprocessing.get_start_method() == "fork"

setup(
    options={
        "build": {"build_base": f"build/{kind}"},
        "build_ext": {"parallel": processors},
    },
    ext_modules=cythonize(
        modules,
        # Cython's plugin for coverage.py looks for generated C beside its source.
        build_dir=None if coverage else f"build/{kind}/c",
        nthreads=processors if forks else 0,
        compiler_directives={
            "language_level": 3,
            "boundscheck": debug,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": True,
            "linetrace": coverage,
        },
    ),
)
