"""Speed and memory, as ratios measured in one run. `python -m benchmarks.run` measures and writes docs/performance.md."""
