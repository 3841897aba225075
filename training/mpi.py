"""Several processes that train one GAN together, connected by MPI.

A launcher such as mpirun or srun starts the same command several times. Each process, called a
rank, trains on its shard of each batch; gradients and batch statistics are averaged over all ranks,
so that all weights stay equal. Only rank 0 prints, and writes the run folder.

Importing this file imports neither mpi4py nor TensorFlow: a single process needs no MPI.
"""

import contextlib
import os
import signal
import sys
import time
import traceback

import numpy as np

from models import passes
from support import errors
from support.errors import UserError
from support.tf import tf
from training.options import processor_cores
from training.run import digest

# How many processes a launcher has started, in Open MPI, MPICH and Slurm. SLURM_NTASKS is not one
# of them, because a batch script has it before it starts any.
_LAUNCHER_COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_THREADS = "TF_NUM_INTRAOP_THREADS"
_SECONDS_BETWEEN_POLLS = 0.005


def launched_count(environ):
    """Returns how many processes a launcher started; None if it does not say."""
    for name in _LAUNCHER_COUNTS:
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None if "PMIX_RANK" in environ else 1


def connect(environ=os.environ):
    """Connects this process with the others that a launcher started.

    Call it before TensorFlow is imported: it shares the cores of a host out among its ranks.

    Returns:
        A Ranks, or SINGLE if this process was not started as one of several.

    Raises:
        UserError: mpi4py is missing, or its MPI is not the launcher's.
    """
    expected = launched_count(environ)
    if expected == 1:
        return SINGLE
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        from mpi4py import MPI as mpi
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library.
        raise UserError(
            "a launcher started this process as one of several, which requires mpi4py and MPI "
            f"({errors.one_line(error)}); pip install -r requirements-mpi.txt"
        ) from error
    comm = mpi.COMM_WORLD
    if expected not in (None, comm.size):
        library = mpi.Get_library_version().partition(",")[0]
        raise UserError(
            f"the launcher started {expected} processes, but MPI connects {comm.size}: mpi4py uses "
            f"{errors.one_line(library)}; use the mpirun of that MPI, or install the launcher's"
        )
    if mpi.Query_thread() < mpi.THREAD_SERIALIZED:
        raise UserError("MPI must support MPI_THREAD_SERIALIZED; install a build that does")
    # The ranks on one host share its cores. A launcher may have bound each to cores of its own.
    host = comm.Split_type(mpi.COMM_TYPE_SHARED)
    cores = set().union(*host.allgather(processor_cores()))
    os.environ.setdefault(_THREADS, str(max(1, len(cores) // host.size)))
    return Ranks(comm)


class SingleProcess:
    """One process without MPI, with the interface of `Ranks`."""

    count = 1
    is_chief = True
    shard = passes.WHOLE
    together = staticmethod(contextlib.nullcontext)

    def check_run(self, configuration):
        pass

    def synchronise(self, engine, step):
        return step

    def broadcast(self, value):
        return value

    def agree_to_stop(self, received):
        return received[0] if received else None

    def finish(self, engine):
        pass


SINGLE = SingleProcess()


class Ranks:
    """The processes of an MPI communicator, of which this one is number `index`.

    Attributes:
      shard: The `passes.Shard` of each batch that this process trains on.
    """

    def __init__(self, comm):
        self._comm = comm
        self.index, self.count = comm.rank, comm.size
        self.is_chief = comm.rank == 0
        self._training = self._failed = False
        mean = Mean(comm)
        self.shard = passes.Shard(self.index, self.count, mean, mean.begin_update)

    @contextlib.contextmanager
    def together(self):
        """Context manager of a whole job: an error on one rank ends all of them.

        Until `synchronise` and after `finish` errors are gathered: rank 0 raises the first one, the
        others exit with code 1 without a line. In between a rank that fails prints its line and
        aborts all. No rank leaves before all have come to the end.
        """
        try:
            yield
            self._training = False
            self._exchange()
        except BaseException as error:
            if self._failed:  # All ranks know already.
                raise
            if self._training or not isinstance(error, Exception):
                self._abort(error)
            self._exchange(error=error)

    def check_run(self, configuration):
        """Checks that the ranks train the same run."""
        chief, *others = self._exchange(configuration.facts())
        for rank, theirs in enumerate(others, 1):
            differing = [
                f"{name} is {theirs[name]} on rank {rank} and {chief[name]} on rank 0"
                for name in sorted(chief)
                if chief[name] != theirs[name]
            ]
            if differing:
                raise UserError(f"all processes must train the same run: {', '.join(differing)}")

    def synchronise(self, engine, step):
        """Gives all ranks the variables of rank 0 before the first step; returns its step."""
        step, state = self.broadcast((step, engine.state()))
        engine.load(state)
        self._training = True
        return step

    def broadcast(self, value):
        """Returns rank 0's value; waits for it without using the processor."""
        return self._exchange(value if self.is_chief else None)[0]

    def agree_to_stop(self, received):
        """Returns a signal that any rank has received, or None; the same on all ranks.

        Args:
            received: list of the signals that this process has received.
        """
        return max(self._comm.allgather(max(received, default=0))) or None

    def finish(self, engine):
        """Ends the training.

        Raises:
            UserError: If the weights differ between the ranks.
        """
        self._training = False
        digests = self._exchange(digest(engine.state())[:12])
        if len(set(digests)) > 1:
            raise UserError(
                "the weights differ between the ranks after the last step; use the same processor "
                f"model and package versions on all hosts ({', '.join(digests)})"
            )

    def _exchange(self, value=None, error=None):
        """Returns the values of all ranks, in order; ends all of them if one has an error.

        All ranks make the same sequence of these calls until one fails. That one's next call says
        so in place of the value that the others expect, wherever they are.
        """
        message = None if error is None else errors.user_message(error)
        if error is not None and message is None:
            message = f"{type(error).__name__}: {error}"
            if not self.is_chief:  # Rank 0 raises its own.
                traceback.print_exception(error)
        # A blocking call would keep a core busy that rank 0 needs to draw, score and write.
        barrier = self._comm.Ibarrier()
        while not barrier.Test():
            time.sleep(_SECONDS_BETWEEN_POLLS)
        found = self._comm.allgather((value, message))
        failed = {rank: text for rank, (_, text) in enumerate(found) if text is not None}
        if not failed:
            return [value for value, _ in found]
        self._failed = True
        if not self.is_chief:
            raise SystemExit(1)
        if error is not None:
            raise error
        rank, text = next(iter(failed.items()))
        raise UserError(f"rank {rank}: {text}")

    def _abort(self, error):
        """Prints the error and ends all ranks at once."""
        code, message = 1, errors.user_message(error)
        if isinstance(error, KeyboardInterrupt):
            code = 128 + (error.args[0] if error.args else signal.SIGINT)
        elif message is None:
            traceback.print_exception(error)
        else:
            rank = "" if self.is_chief else f"rank {self.index}: "
            print(f"main.py: {rank}{errors.one_line(message)}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(code)


class Mean:
    """The mean of a tensor over all ranks, differentiable, in one MPI call.

    The ranks must make the same calls in the same order, one at a time, but TensorFlow runs
    operations in any order that their inputs allow, or several at once. So each call within an
    update waits for the one that was built before it.
    """

    def __init__(self, comm):
        self._comm = comm
        self._last = {}  # graph: the result of the last call that was built in it

    def begin_update(self):
        """Begins a chain, so that one network's update runs no call of the other's."""
        self._last = {}

    def __call__(self, x):
        """Returns the mean of a float32 tensor, of the same shape on all ranks.

        Its gradient is the mean of theirs, because each rank's loss is a term of the mean loss.
        """

        def all_ranks(x):
            total = np.empty_like(x)
            self._comm.Allreduce(x, total)
            total /= self._comm.size
            return total

        @tf.custom_gradient
        def mean(x):
            graph = tf.get_default_graph()
            with tf.control_dependencies(self._previous(graph)):
                y = tf.numpy_function(all_ranks, [x], tf.float32)
            y.set_shape(x.shape)
            self._last[graph] = y
            return y, self

        return mean(x)

    def _previous(self, graph):
        """Returns a list of what the next call in this graph has to wait for."""
        while graph is not None:
            if graph in self._last:
                # The first call in a branch of tf.cond follows those outside. Only an input says
                # so: branches are inlined, and control dependencies of tf.cond are lost with it.
                return [tf.identity(self._last[graph])]
            graph = getattr(graph, "outer_graph", None)
        return []
