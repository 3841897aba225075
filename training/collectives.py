"""Sums over all processes of a Cluster, by TensorFlow's own runtime: a server each, rings between.

TensorFlow has no gradient for them; `Workers.mean` has one, so that statistics of a batch may be
taken over all processes (batch normalisation, minibatch deviation).
"""

import itertools
import time

import numpy as np
import tensorflow.compat.v1 as tf

from models.passes import WHOLE, Shard
from support.errors import TemporaryError
from training.group import Group

_JOB = "worker"
_GROUP_KEY = 1
# A run may take so many times as long as the longest so far, and the time to come together besides:
# between steps the chief draws pictures, takes scores and writes, and the others wait.
_TIMES_AS_LONG = 20
# What TensorFlow raises where another process is gone, hangs, or gives up.
_FAILED = (
    tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.CancelledError,
    tf.errors.AbortedError, tf.errors.InternalError,
)  # fmt: skip


class Alone:
    """The workers of a process that trains by itself."""

    share = WHOLE
    jit = True

    def open_session(self, graph, config):
        return tf.Session(graph=graph, config=config)

    def equalise(self, model):
        pass


ALONE = Alone()


def of(group):
    """A Group or Alone -> what computes with its processes."""
    return Workers(group) if isinstance(group, Group) else ALONE


class Workers:
    """This process's server, and the sums over all of them. One for each process.

    share: of each batch; jit: whether XLA may compile what it does, which knows no sums like these.
    """

    jit = False

    def __init__(self, group):
        """group: the formed Group. TemporaryError where the server's port is taken."""
        self.group = group
        cluster = group.cluster
        self.share = Shard(cluster.index, cluster.size, self.mean)
        self._keys = itertools.count(1)
        self._server = _server(cluster)

    def mean(self, x):
        """A float32 tensor, the same shape everywhere -> its mean over all processes.

        Its gradient is the mean of theirs.
        """

        @tf.custom_gradient
        def mean(x):
            return self._reduced(x, "Div"), self.mean

        return mean(x)

    def open_session(self, graph, config):
        """-> a session on this process's server, whose runs end in time whatever others do."""
        _configure(config, self.group.cluster.index)
        return _Session(self.group, self._server.target, graph, config)

    def equalise(self, model):
        """Gives a TrainingModel, of the same variables everywhere, the chief's values."""
        state = model.state()
        bits = _bits(state) * self.group.cluster.is_chief
        with model.graph.as_default():
            mine = tf.placeholder(tf.int32, bits.shape)
            # As whole numbers, of which a sum with zeros leaves every bit as it is.
            total = self._reduced(mine, "Id")
        model.load_state(_as(state, model.session.run(total, {mine: bits})))

    def _reduced(self, x, final):
        """-> the sum over all processes, or with `Div` as final operation the mean."""
        # Graphs are built in the same order everywhere, so that equal keys meet.
        with tf.device("/device:CPU:0"):
            y = tf.raw_ops.CollectiveReduceV2(
                input=tf.reshape(x, [-1]),
                group_size=self.group.cluster.size,
                group_key=_GROUP_KEY,
                instance_key=next(self._keys),
                ordering_token=[],
                merge_op="Add",
                final_op=final,
                communication_hint="ring",
            )
        y = tf.reshape(y, tf.shape(x))
        y.set_shape(x.shape)
        return y


class _Session(tf.Session):
    """A session of which no run waits for ever for another process."""

    def __init__(self, group, target, graph, config):
        super().__init__(target, graph, config)
        self._group = group
        self._longest = 0.0

    def run(self, fetches, feed_dict=None, options=None, run_metadata=None):
        """As tf.Session's; TemporaryError where another process fails or the deadline is over."""
        deadline = self._group.timeout + _TIMES_AS_LONG * self._longest
        options = tf.RunOptions(timeout_in_ms=round(1000 * deadline))
        began = time.monotonic()
        try:
            values = super().run(fetches, feed_dict, options)
        except _FAILED as error:
            self._group.wait_for_the_end()
            raise TemporaryError(
                f"a step failed on another worker, or took longer than {deadline:.0f} s "
                f"({type(error).__name__}); run the same command on all, and it goes on from the "
                "last checkpoint"
            ) from error
        self._longest = max(self._longest, time.monotonic() - began)
        return values


def _bits(state):
    """{name: ndarray of 4-byte numbers} -> int32 [n], all their bits in the order of the names."""
    arrays = [np.ascontiguousarray(state[name]) for name in sorted(state)]
    return np.concatenate([array.reshape(-1).view(np.int32) for array in arrays])


def _as(state, bits):
    """The same state with other bits."""
    stops = np.cumsum([state[name].size for name in sorted(state)])
    parts = zip(sorted(state), np.split(bits, stops[:-1]), strict=True)
    return {n: part.view(state[n].dtype).reshape(state[n].shape) for n, part in parts}


def _server(cluster):
    config = tf.ConfigProto()
    _configure(config, cluster.index)
    spec = tf.train.ClusterSpec({_JOB: list(cluster.addresses)})
    try:
        return tf.distribute.Server(spec, _JOB, cluster.index, config=config)
    except tf.errors.OpError as error:
        who = cluster.name(cluster.index)
        raise TemporaryError(f"{who} cannot listen there ({error.message}); try again") from error


def _configure(config, index):
    """A ConfigProto -> the same for rings that process 0 leads, and its own devices alone."""
    config.experimental.collective_group_leader = f"/job:{_JOB}/replica:0/task:0"
    config.device_filters.append(f"/job:{_JOB}/task:{index}")
