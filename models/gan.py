"""The GAN of article 003: two nets, two losses, one update of each, on placeholders.

Importing this module turns eager execution off: everything here is a TensorFlow 1 graph.
"""

import contextlib

import numpy as np
import tensorflow.compat.v1 as tf

from models import layers
from models.net import Net
from models.objective import Objective

tf.disable_eager_execution()

_WINDOWS_SLOPE = 0.2


def cross_entropy(label, logits):
    """A number in [0, 1] and logits [batch, 1] -> [batch, 1] sigmoid cross-entropy, in nats."""
    return tf.nn.sigmoid_cross_entropy_with_logits(
        labels=label * tf.ones_like(logits), logits=logits
    )


class Gan:
    """A generator z -> image and a discriminator image -> logit, trained against each other.

    The attributes are article 003's: `x_placeholder` float32 [None, ndims] in [0, 1],
    `z_placeholder` float32 [None, nlatent], `learning_rate_placeholder` float32 scalar,
    `x_hat` [None, ndims] in [0, 1], scalars `d_loss` and `g_loss` (values before the update),
    train ops `d_optimizer` and `g_optimizer` (each moves its own net alone) and `session`.

    A recipe is a subclass that overrides `_generator` and `_discriminator`. Both keep images in
    [0, 1] outside, whatever range the nets prefer inside.
    """

    # Whether D's logit for one image depends on the others in its batch.
    samples_mix = False

    def __init__(
        self,
        ndims=784,
        nlatent=2,
        *,
        objective=None,
        seed=None,
        open_session=tf.InteractiveSession,
    ):
        """Builds the graph in the default graph, opens a session, initialises the variables.

        ndims: pixels of an image.
        nlatent: dimensions of the latent space.
        objective: an `Objective`; None for article 003's.
        seed: whole number below 2**31 from which weights, dropout and noise follow; None for
            another one each time. It seeds the current graph.
        open_session: () -> the session, of the default graph; where and how it runs is the
            caller's choice.
        """
        self._ndims = ndims
        self._nlatent = nlatent
        self.objective = Objective() if objective is None else objective
        if seed is not None:
            tf.set_random_seed(seed)
        self.graph = tf.get_default_graph()
        earlier = _names(tf.global_variables())
        self._make_nets(seed)
        self._build()
        self.variables = [v for v in tf.global_variables() if v.name not in earlier]
        self._check_variables()
        self._initializers = [variable.initializer for variable in self.variables]
        self.session = open_session()
        self.session.run(self._initializers)

    # The two nets.

    def _generator(self, z, reuse=False, training=None):
        """[batch, nlatent] -> [batch, ndims] in [0, 1], 64 ReLU units between.

        reuse: use the variables there are instead of creating them.
        training: a `TrainingPass` while G is trained, else None.
        """
        with self._generator_scope(reuse):
            hidden = tf.nn.relu(layers.dense(z, 64, name="hidden"))
            return tf.nn.sigmoid(self._pixels(hidden))

    def _discriminator(self, x, reuse=False, training=None):
        """[batch, ndims] in [0, 1] -> logits [batch, 1] that the image is real; 512 ReLU units.

        reuse, training: as for `_generator`.
        """
        with self._discriminator_scope(reuse, training):
            hidden = tf.nn.relu(layers.dense(self._seen(x), 512, name="hidden"))
            return self._head(hidden, training)

    # The two losses.

    def _discriminator_loss(self, y, y_hat):
        """Logits [batch, 1] of real and of generated images -> scalar, in nats.

        mean(ce(1, y) + ce(0, y_hat)); with one-sided label smoothing s, 1 - s takes the 1's place.
        """
        return self._real_loss(y) + self._fake_loss(y_hat)

    def _generator_loss(self, y_hat):
        """Logits [batch, 1] of generated images -> scalar mean(ce(1, y_hat)), in nats."""
        return tf.reduce_mean(cross_entropy(1.0, y_hat))

    def _real_loss(self, y):
        return tf.reduce_mean(cross_entropy(1.0 - self.objective.label_smoothing, y))

    def _fake_loss(self, y_hat):
        return tf.reduce_mean(cross_entropy(0.0, y_hat))

    # One update of each net, as functions of tensors: the only definition of either.

    def d_update(self, x, x_hat, learning_rate):
        """Real and generated images [batch, ndims], a rate -> (loss before, operation)."""
        if self.objective.separate:
            return self._separate_d_update(x, x_hat, learning_rate)
        training = self._d.training_pass()
        loss = self._d_objective(*self._both_logits(x, x_hat, training))
        penalty = self._penalty(x, x_hat)
        every = self.objective.penalty_every
        return loss, self._d.minimize(loss, learning_rate, training, penalty, every)

    def sample_images(self, z):
        """Latents [batch, nlatent] -> the images [batch, ndims] in [0, 1] that D trains on."""
        return self._generator(z, reuse=True)

    def g_update(self, x, z, learning_rate):
        """Images, latents and a rate -> (loss before, operation).

        x: real images, which the relativistic loss alone looks at.
        """
        training, d_training = self._g.training_pass(), self._g.training_pass(stream=1)
        y_hat = self._logits(self._generator(z, reuse=True, training=training), d_training)
        if self.objective.relativistic:
            loss = tf.reduce_mean(tf.nn.softplus(self._logits(x, d_training) - y_hat))
        else:
            loss = self._generator_loss(y_hat)
        operation = self._g.minimize(loss, learning_rate, training)
        return loss, self._average(operation)

    def _separate_d_update(self, x, x_hat, learning_rate):
        real, fake = self._d.training_pass(), self._d.training_pass()
        real_loss = self._real_loss(self._logits(x, real))
        loss = real_loss + self._fake_loss(self._logits(x_hat, fake))
        penalty = self._penalty(x, x_hat)
        # Updates come in twos, of which the first alone has the real batch.
        every = 2 * self.objective.penalty_every if self.objective.penalty_every > 1 else 1
        with tf.control_dependencies([loss]):
            first = self._d.minimize(real_loss, learning_rate, real, penalty, every)
        with tf.control_dependencies([first]):
            again = self._d.training_pass()
            fake_loss = self._fake_loss(self._logits(x_hat, again))
            return loss, self._d.minimize(fake_loss, learning_rate, again)

    def _d_objective(self, y, y_hat):
        if self.objective.relativistic:
            return tf.reduce_mean(tf.nn.softplus(y_hat - y))
        return self._discriminator_loss(y, y_hat)

    def _penalty(self, x, x_hat):
        """Images of both kinds -> () -> scalar to add to D's loss where it is due, or None."""
        every = self.objective.penalty_every
        weights = [(self.objective.r1_gamma, x), (self.objective.r2_gamma, x_hat)]
        terms = [(every * gamma / 2, images) for gamma, images in weights if gamma]
        if not terms:
            return None
        return lambda: sum(weight * self._squared_slope(images) for weight, images in terms)

    def _squared_slope(self, images):
        """[batch, ndims] -> scalar, the batch mean of D's squared gradient at these images."""
        logits = self._logits(images, self._d.training_pass())
        (slope,) = tf.gradients(logits, images)
        return tf.reduce_mean(tf.reduce_sum(tf.square(slope), axis=1))

    def _average(self, operation):
        """Follows G's update by one of the average of its weights, if there is one."""
        if not self._ema:
            return operation
        with tf.control_dependencies([operation]):
            return self._ema.apply(self._g.trainable_variables)

    # What D sees, and how.

    def _logits(self, images, training):
        """[batch, ndims] in [0, 1] -> logits [batch / packing, 1], noise and packing included."""
        if self.objective.instance_noise:
            noise = layers.random_normal(tf.shape(images), training.next_seed())
            images = images + self.objective.instance_noise * noise
        return self._discriminator(self._packed(images), reuse=True, training=training)

    def _packed(self, images):
        """[batch, ndims] -> [batch / packing, packing * ndims]."""
        return tf.reshape(images, [-1, self.objective.packing * self._ndims])

    def _both_logits(self, x, x_hat, training):
        """D(x), D(x_hat); as one product where the mathematics is the same."""
        if self.samples_mix:
            return self._logits(x, training), self._logits(x_hat, training)
        count = tf.shape(x)[0] // self.objective.packing
        training.batches = 2
        logits = self._logits(tf.concat([x, x_hat], axis=0), training)
        return logits[:count], logits[count:]

    def _seen(self, x):
        """Pixels [batch, n] -> [batch, m]: those, or features of windows on them."""
        count = self.objective.windows
        if not count:
            return x
        features = layers.window_dense(layers.pictures(x), count, name="windows")
        features = layers.leaky_relu(features, _WINDOWS_SLOPE)
        features = layers.neighbours_dense(features, 3, 2 * count, name="neighbours")
        return layers.flat(layers.leaky_relu(features, _WINDOWS_SLOPE))

    def _pixels(self, hidden):
        """[batch, n] -> [batch, ndims], the end of every dense generator before its last function.

        One dense layer, or one to features of windows and from those another to pixels.
        """
        count = self.objective.g_windows
        if not count:
            return layers.dense(hidden, self._ndims, name="pixels")
        features = layers.dense(hidden, layers.NUM_WINDOWS * count, name="windows")
        cells = tf.reshape(layers.leaky_relu(features, _WINDOWS_SLOPE), [-1, 7, 7, count])
        return layers.flat(layers.window_dense_transpose(cells, name="pixels"))

    def _head(self, features, training, units=1):
        """[batch, n] -> [batch, units], the end of every discriminator."""
        if self.objective.minibatch_stddev:
            features = layers.minibatch_stddev(features, training)
        return layers.dense(features, units, name="logit")

    def _generator_scope(self, reuse):
        return tf.variable_scope(self._g.scope, reuse=reuse, custom_getter=self._getter)

    def _discriminator_scope(self, reuse, training=None):
        getter = layers.spectral_norm(training) if self.objective.spectral_norm else None
        return tf.variable_scope(self._d.scope, reuse=reuse, custom_getter=getter)

    # Building the graph.

    def _make_nets(self, seed):
        """Two seeds apart, so that the nets' dropout masks are independent."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        betas = {"beta1": self.objective.beta1, "beta2": self.objective.beta2}
        self._g = Net("generator", seed=seed, **betas)
        self._d = Net("discriminator", seed=seed ^ 0x5EED, **betas)
        self._getter = None
        self._ema = None
        if self.objective.ema_decay:
            self._ema = tf.train.ExponentialMovingAverage(
                self.objective.ema_decay, num_updates=self._g.updates
            )

    def _build(self):
        self.x_placeholder = tf.placeholder(tf.float32, [None, self._ndims], "x")
        self.z_placeholder = tf.placeholder(tf.float32, [None, self._nlatent], "z")
        self.learning_rate_placeholder = tf.placeholder(tf.float32, [], "learning_rate")
        self.x_hat = self._generator(self.z_placeholder)
        y = self._discriminator(self._packed(self.x_placeholder))
        self._check_shapes(y)
        self._judgements = y, self._discriminator(self._packed(self.x_hat), reuse=True)
        self.d_loss, self.d_optimizer = self.d_update(
            self.x_placeholder, self.x_hat, self.learning_rate_placeholder
        )
        self.g_loss, self.g_optimizer = self.g_update(
            self.x_placeholder, self.z_placeholder, self.learning_rate_placeholder
        )
        self.x_average = self._averaged_samples()

    def _averaged_samples(self):
        """G(z) by the average of its weights, or `x_hat` where no average is kept."""
        if not self._ema:
            return self.x_hat
        with self._averaged_weights():
            return self._generator(self.z_placeholder, reuse=True)

    @contextlib.contextmanager
    def _averaged_weights(self):
        def averaged(getter, name, *args, **kwargs):
            variable = getter(name, *args, **kwargs)
            average = self._ema.average(variable)
            return variable if average is None else average

        self._getter = averaged
        yield
        self._getter = None

    def _check_shapes(self, y):
        for name, tensor, width in [("x_hat", self.x_hat, self._ndims), ("logits", y, 1)]:
            if tensor.shape.as_list() != [None, width]:
                raise ValueError(f"{name} has shape {tensor.shape}, wanted (None, {width})")

    def _check_variables(self):
        """Every trainable variable belongs to exactly one net, and both nets have some."""
        g, d = (_names(net.trainable_variables) for net in (self._g, self._d))
        ours = _names(self.variables) & _names(tf.trainable_variables())
        if not g or not d or ours != g | d or g & d:
            raise ValueError(
                f"trainable variables {sorted(ours)} are not split into those of the "
                f"generator {sorted(g)} and of the discriminator {sorted(d)}"
            )

    # Using it.

    @property
    def nets(self):
        """The generator's and the discriminator's `Net`."""
        return self._g, self._d

    def generate_samples(self, z_np, averaged=True):
        """[n, nlatent] -> ndarray float32 [n, ndims] in [0, 1].

        averaged: from the average of G's weights, where one is kept.
        Raises ValueError, naming both shapes, unless z_np has that shape.
        """
        shape = np.shape(z_np)
        if len(shape) != 2 or shape[1] != self._nlatent:
            raise ValueError(f"latents have shape {shape}, wanted (n, {self._nlatent})")
        if not shape[0]:  # an empty batch leaves TensorFlow's convolutions with a wrong shape
            return np.empty([0, self._ndims], np.float32)
        images = self.x_average if averaged else self.x_hat
        return self.session.run(images, {self.z_placeholder: z_np})

    def judge(self, x_np, z_np):
        """Images [n, ndims] in [0, 1], latents [m, nlatent] -> D's logits of them and of G's.

        Two float32 ndarrays [n / packing, 1] and [m / packing, 1], both nets in inference, G's
        weights themselves.
        """
        feed = {self.x_placeholder: x_np, self.z_placeholder: z_np}
        return self.session.run(self._judgements, feed)

    def state(self):
        """-> {variable's name: ndarray}: all that training has changed or will go on from."""
        return self.session.run({variable.op.name: variable for variable in self.variables})

    def load_state(self, state):
        """Sets every variable to what `state` returned; ValueError if it is of other nets."""
        shapes = {variable.op.name: tuple(variable.shape) for variable in self.variables}
        seen = {name: array.shape for name, array in state.items()}
        if seen != shapes:
            odd = sorted(set(seen.items()) ^ set(shapes.items()))[0]
            raise ValueError(f"state of other nets: {odd[0]} {odd[1]} is in one of the two only")
        # An initializer assigns its second input, which a feed may replace.
        feed = {v.initializer.inputs[1]: state[v.op.name] for v in self.variables}
        self.session.run(self._initializers, feed)


def _names(variables):
    return {variable.name for variable in variables}
