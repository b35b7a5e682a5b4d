"""What the engine costs and how it compares: `python -m benchmarks.cpu`, `.loop`, `.memory`.

Each prints a table and writes `results/NAME-CPU.json` with the machine, versions and settings.
None of them asserts a time: on a shared machine figures drift, and only ratios within a run hold.
"""
