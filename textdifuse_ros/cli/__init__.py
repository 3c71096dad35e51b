"""The command line: one verb a file, found by the list in :mod:`textdifuse_ros.cli.main`."""

from textdifuse_ros.interrupts import quiet_imports

quiet_imports(__name__, status=130, main="main")
