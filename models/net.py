"""One of a GAN's two nets: its variable scope, its Adam, and the count of its updates."""

import tensorflow.compat.v1 as tf

from models.layers import TrainingPass

_STREAM_STRIDE = 0x2545F49


class Net:
    """Variables under one scope and the only optimizer that may move them."""

    def __init__(self, name, *, seed, beta1, beta2):
        """Takes the first free scope of `name`, `name_1`, ... and `<n>_optimizer` beside it.

        seed: whole number below 2**31 that the net's training passes draw from.
        """
        with tf.variable_scope(None, default_name=name) as self.scope:
            pass
        self._seed = seed
        self._learning_rate = None
        self._adam = tf.train.AdamOptimizer(
            lambda: self._learning_rate, beta1, beta2, name=f"{name[0]}_optimizer"
        )
        with tf.variable_scope(None, default_name=f"{name[0]}_optimizer") as self._adam_scope:
            self.updates = tf.get_variable(
                "updates",
                [],
                tf.int32,
                initializer=tf.zeros_initializer(),
                trainable=False,
                use_resource=True,
            )

    @property
    def trainable_variables(self):
        """The list of variables that the optimizer moves."""
        return tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, self.scope.name + "/")

    def training_pass(self, stream=0):
        """A pass whose randomness follows from the seed, the number of updates so far, the stream.

        stream: other whole numbers for passes that one update needs beside each other.
        """
        seed = self._seed ^ (stream * _STREAM_STRIDE)
        return TrainingPass(tf.stack([seed, self.updates.read_value()]))

    def minimize(self, loss, learning_rate, training, penalty=None, every=1):
        """Scalars and the pass behind the loss -> one Adam step on this net's variables alone.

        penalty: () -> scalar to add to the loss at the first of `every` so many updates.
        """
        self._learning_rate = learning_rate
        variables = self.trainable_variables
        total, *gradients = self._total_and_gradients(loss, penalty, every)
        # The total first: a penalty may read variables that it has no gradient for, such as biases.
        with (
            tf.name_scope(self._adam_scope.original_name_scope),
            tf.control_dependencies([total]),
        ):
            step = self._adam.apply_gradients(zip(gradients, variables, strict=True))
            with tf.control_dependencies([step]):
                return tf.group(
                    *(update() for update in training.updates), self.updates.assign_add(1)
                )

    def _total_and_gradients(self, loss, penalty, every):
        """All gradients within one branch: what leaves a branch is written and added up."""

        def of(total):
            return [total, *tf.gradients(total, self.trainable_variables)]

        if penalty is None:
            return of(loss)
        if every == 1:
            return of(loss + penalty())
        due = tf.equal(self.updates % every, 0)
        return tf.cond(due, lambda: of(loss + penalty()), lambda: of(loss))
