"""A ROS domain of one's own."""

from __future__ import annotations

import random
import socket

from textdifuse_ros.errors import InputError

LAST_DOMAIN = 101  # the ports of later ones may be taken by outgoing connections on Linux
# Of the RTPS standard: where participants listen, from 7400 + 250 * domain on. All of a domain share the first port for
# discovery; the first participant has the one at 10, the next at 12.
FIRST_PORT, PORTS_PER_DOMAIN = 7400, 250
OFFSETS = (0, 10, 12)


def free_domain() -> int:
    """A domain, chosen by chance, in which nobody on this machine listens.

    A robot's node in the same domain would answer in place of ours, or obey us.

    :raises InputError: somebody is in each of them
    """
    for domain in random.SystemRandom().sample(range(1, LAST_DOMAIN + 1), LAST_DOMAIN):
        if not is_taken(domain):
            return domain
    remedy = "end some of the ROS programs that run here"
    raise InputError("the ROS domain", f"one of 1 to {LAST_DOMAIN} without a node", "nodes in each of them", remedy)


def is_taken(domain: int) -> bool:
    """Whether somebody on this machine listens in a domain; a port that could be shared counts as well."""
    for offset in OFFSETS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", FIRST_PORT + PORTS_PER_DOMAIN * domain + offset))
            except OSError:
                return True
    return False
