"""`cesium bench`: what a drive can do, what cesium gets out of it, and what other engines do.

    from cesium.benchmark.plan import Plan
    from cesium.benchmark.runner import Run
    report = Run(Plan.of("quick"), directory).go()

One idea a module: `machine` describes where it runs, `drive` measures the drive, `shapes` makes
keys and values, `engines` put every engine behind one interface, `workloads` say what is done with
it and know no engine, `worker` does one workload with one engine in a process of its own, `plan`
says what is done, `runner` in which order, `shares` compares with the drive. What comes of it is a
report: `reading` checks one, `report` is the table on the terminal, `html` the page, `compare` lays
two beside each other, `keeping` writes files. docs/benchmarks.md argues the settings.

Everything is written below one directory of its own (`workspace`), which is removed in the end.
"""
