"""A tunnel inside of tests: the pytest plugin, and what its fixtures give."""
