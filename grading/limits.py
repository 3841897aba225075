"""Limits of a process and of what it starts: `python -m grading.limits MEMORY_GB COMMAND ...`."""

import os
import resource
import sys

LARGEST_FILE = 2**28  # bytes


def limit(memory_gb):
    """Sets the limits for this process, once and for all."""
    memory = int(memory_gb * 2**30)
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, LARGEST_FILE)):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    limit(float(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
