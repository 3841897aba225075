"""Which processes train together: TF_CONFIG, as TensorFlow's own tools and job schedulers set it.

    {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}

A `chief` may have an entry of its own, and then comes first. Imports no TensorFlow.
"""

import json
import re
from typing import NamedTuple

from support.errors import UserError

VARIABLE = "TF_CONFIG"
_EXAMPLE = '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
_ROLES = ("chief", "worker")  # in the order of the processes
_ADDRESS = re.compile(r"[^\s:/]+:([0-9]{1,5})")


class Cluster(NamedTuple):
    """addresses: `host:port` of all processes, the chief's first; index: of this one."""

    addresses: tuple
    index: int

    @property
    def size(self):
        return len(self.addresses)

    @property
    def is_chief(self):
        return self.index == 0

    def name(self, index):
        """`worker 1 (b:2222)`."""
        who = f"worker {index}" if index else "the chief"
        return f"{who} ({self.addresses[index]})"


ALONE = Cluster(("",), 0)


def environment_of(addresses, index):
    """-> {name: value} of the variable that makes a process worker `index` at these addresses."""
    task = {"type": "worker", "index": index}
    return {VARIABLE: json.dumps({"cluster": {"worker": addresses}, "task": task})}


def from_environment(environment):
    """The environment's variables -> the Cluster; ALONE where TF_CONFIG is not set or names one.

    UserError for anything else that TF_CONFIG says.
    """
    text = environment.get(VARIABLE, "")
    if not text.strip():
        return ALONE
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        _check_roles(cluster, task)
        addresses = [address for role in _ROLES for address in cluster.get(role, [])]
        _check_addresses(addresses)
        index = _index(cluster, task["type"], task["index"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise _wrong(f"{type(error).__name__} {error}", f"such as {_EXAMPLE}") from error
    return Cluster(tuple(addresses), index) if len(addresses) > 1 else ALONE


def check(cluster, recipe, precision):
    """UserError for what several processes cannot train: batches that do not divide, bfloat16."""
    if cluster.size == 1:
        return
    if precision != "float32":
        raise UserError(
            f"--precision={precision}: TensorFlow's servers have no such convolutions; leave it at "
            "float32 with several workers"
        )
    shared = {"batch_size": cluster.size * (2 if recipe.half_batches else 1)}
    if recipe.pretraining:
        shared["pretraining_batch"] = cluster.size
    for name, divisor in shared.items():
        given = getattr(recipe, name)
        if given % divisor:
            raise UserError(
                f"--{name}={given}: {cluster.size} workers share every batch evenly, wanted a "
                f"multiple of {divisor}"
            )


def _check_roles(cluster, task):
    for role in [*cluster, task["type"]]:
        if role not in _ROLES:
            raise _wrong(f"the role {role!r}", "chief or worker, which all train")
    if len(cluster.get("chief", [])) > 1:
        raise _wrong(f"{len(cluster['chief'])} chiefs", "one at most")


def _check_addresses(addresses):
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match[1]) < 2**16:
            raise _wrong(f"the address {address!r}", "host:port")
        if addresses.count(address) > 1:
            raise _wrong(f"{address} twice", "an address of its own for each process")


def _index(cluster, role, index):
    """-> the place of a task among all processes."""
    there = len(cluster.get(role, []))
    if type(index) is not int or not 0 <= index < there:
        raise _wrong(f"{role} {index!r}", f"an index below {there}, the number of {role} addresses")
    return index + (len(cluster.get("chief", [])) if role == "worker" else 0)


def _wrong(seen, wanted):
    return UserError(f"{VARIABLE}: {seen}, wanted {wanted}")
