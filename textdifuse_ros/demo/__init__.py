"""The demo and the endurance run, apart from ROS.

``textdifuse demo`` and ``textdifuse endurance`` prepare the input (:mod:`.output`, :mod:`.drive`), start the program of
the same name in :mod:`textdifuse_ros.nodes` with a plan (:mod:`.plans`, :mod:`.launch`), which runs the nodes as child
processes (:mod:`.children`, :mod:`.domain`), and report the results (:mod:`.report`, :mod:`.endurance`).
"""
