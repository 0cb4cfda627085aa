"""What PySyTFF costs: ``python -m benchmarks`` (``make bench``). The table and what limits each figure: README.md."""
