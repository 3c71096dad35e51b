"""The command line: one verb a file, found by the list in :mod:`textdifuse_ros.cli.main`."""
