"""Help for tests of projects: apps and workers inside the test process; see also :mod:`pyceleryc.contrib.pytest`."""
