"""One update of the discriminator and one of the generator.

They apply to any class of the article's shape.

Losses, penalties, gradients, Adam and the average of weights come together here and nowhere else.
A class needs `_generator`, `_discriminator`, `_discriminator_loss` and `_generator_loss`.
"""

import contextlib
import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from models import losses, passes, randomness
from models.gan import Gan
from models.passes import WHOLE, Shard
from support.data_sets import NUM_CLASSES
from support.errors import UserError
from support.tf import network_variables

_STREAM_STRIDE = 0x2545F49
_EXAMPLE_ROWS = 4
_MEAN_TOLERANCE = 1e-4


class Updates:
    """D's and G's updates as a recipe defines them, as functions of tensors."""

    def __init__(self, gan, recipe, seed, shard=WHOLE):
        """Creates the optimizers.

        Args:
          gan: Instance in the current default graph, with an open session.
          recipe: `Recipe`.
          seed: Integer below 2**31, from which dropout masks follow.
          shard: The part of each batch that the tensors are, if several processes train.

        Raises:
          UserError: If the class's losses cannot be trained as the recipe or the shards require.
        """
        self.gan = gan
        self._recipe = recipe
        self._shard = shard
        self._loss = training_loss(gan, recipe)
        # Different seeds, so that the networks' dropout masks are independent.
        self._d = _Optimizer(gan, "discriminator", recipe, seed ^ 0x5EED, shard)
        self._g = _Optimizer(gan, "generator", recipe, seed, shard)
        self._ema = None
        if recipe.ema_decay:
            self._ema = tf.train.ExponentialMovingAverage(
                recipe.ema_decay, num_updates=self._g.count
            )
        d_loss = functools.partial(self._loss_of_examples, self._loss.discriminator)
        if recipe.separate_updates and not _is_sum(gan.session, d_loss):
            raise UserError(
                "--separate_updates requires a loss of D that is one of real images plus one of "
                f"generated ones, unlike {type(gan).__name__}'s; use --noseparate_updates"
            )
        if shard.count > 1:
            self._check_learns_from_shards()
        # D's logits of a batch depend on one that is concatenated to it if D normalises by the
        # batch's statistics. Then real and generated images must pass separately; otherwise the
        # one would be normalised by the other.
        self._one_pass = not recipe.separate_updates and not self._mixes_rows(
            gan._discriminator, gan.x_placeholder, batches=2
        )

    def d_update(self, x, z, learning_rate, labels=None, z_labels=None):
        """Builds one update of the discriminator.

        Args:
          x: Real images [batch, ndims] in [0, 1].
          z: Latents [batch, nlatent].
          learning_rate: Scalar.
          labels: For a conditional Gan, one-hot labels [batch, 10] of the real images.
          z_labels: Likewise the labels to generate.

        Returns:
          D's loss before the update, a scalar; and the operation that updates D.
        """
        self._shard.begin_update()
        if self._loss.compares_pairs:
            z_labels = labels  # so that both images of a pair have one label
        with passes.sharding(self._shard), self._fed(x, z, learning_rate, labels, z_labels):
            real = _Examples(x, labels)
            # Like the articles, D learns from images that G generates in inference.
            generated = _Examples(_call(self.gan._generator, z, z_labels), z_labels)
            self.gan.x_hat = generated.images
            if self._recipe.separate_updates:
                return self._separate_updates(real, generated, learning_rate)
            y, y_hat, moving = self._logits_of_both(real, generated)
            loss = self._loss.discriminator(y, y_hat)
            penalty = self._penalty(real, generated, z)
            return self._d.minimize(loss, learning_rate, moving, penalty)

    def g_update(self, z, learning_rate, z_labels=None, x=None, labels=None):
        """Builds one update of the generator, and of the average of its weights.

        Args and returns: as for `d_update`. The real images, which a loss of pairs or of a custom
        class may read, are those of D's last update.
        """
        self._shard.begin_update()
        if self._loss.compares_pairs:
            z_labels = labels
        with passes.sharding(self._shard), self._fed(x, z, learning_rate, labels, z_labels):
            with self._g.training_pass() as through_g:
                x_hat = _call(self.gan._generator, z, z_labels)
            self.gan.x_hat = x_hat
            with self._g.training_pass(stream=1):
                y_hat = self._discriminate(_Examples(x_hat, z_labels))
            y = None
            if self._loss.compares_pairs:
                with self._g.training_pass(stream=2):
                    y = self._discriminate(_Examples(x, labels))
            loss = self._loss.generator(y, y_hat)
            loss, update = self._g.minimize(loss, learning_rate, through_g.updates)
        if self._ema is None:
            return loss, update
        with tf.control_dependencies([update]):
            return loss, self._ema.apply(self._g.variables)

    def install(self):
        """Replaces the Gan's losses and train ops by these, on its placeholders."""
        gan = self.gan
        x, z, rate = gan.x_placeholder, gan.z_placeholder, gan.learning_rate_placeholder
        labels = z_labels = None
        if self._recipe.conditional:
            labels, z_labels = gan.x_labels_placeholder, gan.labels_placeholder
        gan.d_loss, gan.d_optimizer = self.d_update(x, z, rate, labels, z_labels)
        gan.g_loss, gan.g_optimizer = self.g_update(z, rate, z_labels, x, labels)

    @contextlib.contextmanager
    def _fed(self, x, z, learning_rate, labels, z_labels):
        """Context manager in which the Gan's placeholders are these tensors.

        Losses may read them and x_hat, as penalties of the gradient do.
        """
        gan = self.gan
        values = {
            "x_placeholder": x,
            "z_placeholder": z,
            "learning_rate_placeholder": learning_rate,
            "x_labels_placeholder": labels,
            "labels_placeholder": z_labels,
            "x_hat": gan.x_hat,
        }
        with contextlib.ExitStack() as stack:
            for name, value in values.items():
                if value is not None:
                    stack.callback(setattr, gan, name, getattr(gan, name))
                    setattr(gan, name, value)
            yield

    def _separate_updates(self, real, generated, learning_rate):
        """Updates D by the loss's gradient at real images, then by that at generated ones.

        The reported loss is the sum of both halves, each before its own update.
        """
        y, moving = self._logits(real)
        at_real = self._loss.discriminator(y, tf.zeros_like(y))
        penalty = self._penalty(real, None)
        _, first = self._d.minimize(at_real, learning_rate, moving, penalty)
        with tf.control_dependencies([first]):
            y_hat, moving = self._logits(generated)
            loss = self._loss.discriminator(tf.stop_gradient(y), y_hat)
            penalty = self._penalty(None, generated)
            return self._d.minimize(loss, learning_rate, moving, penalty)

    def _logits(self, examples, **stream):
        """Returns D's logits in training mode, and what the update has to run."""
        with self._d.training_pass(**stream) as running:
            return self._discriminate(examples), running.updates

    def _logits_of_both(self, real, generated):
        """Returns D(x), D(x_hat) and what the update has to run.

        Both come from one pass if that is equal.
        """
        if not self._one_pass:
            (y, moving), (y_hat, also) = self._logits(real), self._logits(generated, stream=1)
            return y, y_hat, moving + also
        labels = None
        if real.labels is not None:
            labels = tf.concat([real.labels, generated.labels], axis=0)
        count = tf.shape(real.images)[0]
        both = _Examples(tf.concat([real.images, generated.images], axis=0), labels)
        logits, moving = self._logits(both, batches=2)
        return logits[:count], logits[count:], moving

    def _discriminate(self, examples):
        # The reshape sets the images' width if a class leaves it open.
        images = tf.reshape(examples.images, [-1, self.gan.x_placeholder.shape[1]])
        return _call(self.gan._discriminator, images, examples.labels)

    def _penalty(self, real, generated, z=None):
        """Returns a function that returns D's penalty, a scalar; None without any.

        Args:
          real, generated: The images that the update sees; None for none.
          z: The latents of the generated images.
        """
        recipe = self._recipe
        has_r1 = recipe.r1_gamma > 0 and real is not None
        has_r2 = recipe.r2_gamma > 0 and generated is not None
        if not (has_r1 or has_r2 or recipe.gradient_penalty):
            return None

        def term(weight, function, examples, stream):
            logits, _ = self._logits(examples, stream=stream)
            return recipe.penalty_every * weight * function(logits, examples.images)

        def penalty():
            terms = []
            if has_r1:
                terms.append(term(recipe.r1_gamma, losses.squared_gradient_penalty, real, 0))
            if has_r2:
                terms.append(term(recipe.r2_gamma, losses.squared_gradient_penalty, generated, 2))
            if recipe.gradient_penalty:
                between = self.points_between(*real, generated.images, z)
                terms.append(term(recipe.gradient_penalty, losses.gradient_penalty, between, 3))
            return tf.add_n(terms)

        return penalty

    def points_between(self, x, labels, x_hat, z):
        """Returns random points on the lines from generated to real images.

        Args:
          x: Real images [batch, ndims].
          labels: Their one-hot labels, with which the points' generated ends are made, or None.
          x_hat: Images generated from z without labels.
          z: Latents [batch, nlatent].
        """
        if labels is not None:
            x_hat = _call(self.gan._generator, z, labels)
        count = tf.shape(x)[0]
        with self._d.training_pass(stream=4) as running:
            seed = running.next_seed()
        bits = randomness.random_16_bits(count, seed, self._shard.index * count)
        position = tf.cast(bits, tf.float32)[:, None] / 2**16
        return _Examples(position * x + (1 - position) * x_hat, labels)

    def _mixes_rows(self, network, placeholder, batches=1, shard=WHOLE):
        """Returns whether a network's first batch, or first half, depends on the second."""
        values = np.random.default_rng(0).random([_EXAMPLE_ROWS, placeholder.shape[1]], np.float32)
        labels = tf.eye(_EXAMPLE_ROWS, NUM_CLASSES) if self._recipe.conditional else None
        x, half = tf.constant(values), _EXAMPLE_ROWS // 2
        with passes.sharding(shard), passes.training(tf.constant([0, 0]), batches):
            y = _call(network, x, labels)
        (gradient,) = tf.gradients(y[:half], x)
        return gradient is not None and self.gan.session.run(gradient)[half:].any()

    def _loss_of_examples(self, loss, y, y_hat):
        """Returns a loss of logits [n, 1] as those of black images, which it may read."""
        x, x_hat = (tf.zeros([y.shape[0], self.gan.x_placeholder.shape[1]]) for _ in range(2))
        z = tf.zeros([y.shape[0], self.gan.z_placeholder.shape[1]])
        with self._fed(x, z, tf.constant(0.0), None, None):
            self.gan.x_hat = x_hat
            y, y_hat = (
                a + 0 * tf.reduce_sum(b, 1, keepdims=True) for a, b in ((y, x), (y_hat, x_hat))
            )
            return loss(y, y_hat)

    def _check_learns_from_shards(self):
        """Checks that averaging over shards gives the whole batch's loss and gradients.

        It does if each loss is a mean over the batch, and if the results for an image depend on
        other images only through `Shard.mean`.

        Raises:
          UserError: If it does not.
        """
        gan, name = self.gan, type(self.gan).__name__
        for method, loss in [
            ("_discriminator_loss", self._loss.discriminator),
            ("_generator_loss", self._loss.generator),
        ]:
            if not _is_mean(gan.session, functools.partial(self._loss_of_examples, loss)):
                raise UserError(
                    f"{name}.{method} must be a mean over the batch to train with several "
                    "processes, each of which has a part of it; train with one process"
                )
        for network, placeholder in [
            (gan._generator, gan.z_placeholder),
            (gan._discriminator, gan.x_placeholder),
        ]:
            # Without a gradient, `mean` shows no dependence.
            if self._mixes_rows(network, placeholder, shard=Shard(0, 2, tf.stop_gradient)):
                raise UserError(
                    f"{name}.{network.__name__} mixes the images of a batch, of which each of "
                    "several processes has a part; use layers.batch_norm, or train with one process"
                )


class _Examples(NamedTuple):
    """Inputs of D: images [batch, ndims] and, if conditional, their one-hot labels."""

    images: tf.Tensor
    labels: tf.Tensor | None


class _Optimizer:
    """Adam on the variables of one network, and the number of its updates."""

    def __init__(self, gan, network, recipe, seed, shard):
        self.variables = network_variables(gan, tf.trainable_variables())[network]
        for variable in self.variables:  # reads and writes of reference variables have no order
            if variable.op.type != "VarHandleOp":
                raise UserError(
                    f"{variable.op.name} must be a resource variable, got a reference variable; "
                    "create it with use_resource=True, or train with --engine=step"
                )
        self._recipe = recipe
        self._weight_clip = recipe.weight_clip if network == "discriminator" else 0.0
        self._seed = seed
        self._shard = shard
        with tf.variable_scope(None, default_name=f"{network[0]}_adam") as own_scope:
            self._name = own_scope.name
        self._learning_rate = None
        self._adam = tf.train.AdamOptimizer(
            lambda: self._learning_rate, recipe.beta1, recipe.beta2, name=self._name
        )
        self.count = tf.get_variable(
            f"{self._name}/updates", [], tf.int32, trainable=False, use_resource=True
        )

    def training_pass(self, stream=0, batches=1):
        """Returns the context manager of a training pass.

        Its dropout follows from the seed and the updates so far.

        Args:
          stream: A different integer for each pass of one update.
          batches: Number of batches that are concatenated.
        """
        seed = self._seed ^ (stream * _STREAM_STRIDE)
        return passes.training(tf.stack([seed, self.count.read_value()]), batches)

    def minimize(self, loss, learning_rate, moving, penalty=None):
        """Builds one step of Adam.

        Args:
          loss: Scalar, a mean over this process's shard of the batch.
          learning_rate: Scalar.
          moving: Functions that each create an operation to run after the step.
          penalty: Function of a scalar to add to the loss in every `penalty_every`-th step.

        Returns:
          The loss of the whole batch before the step, and the operation.
        """

        def with_gradients(total):
            gradients = tf.gradients(
                total, self.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return [total, *gradients]

        self._learning_rate = learning_rate
        every = self._recipe.penalty_every
        if penalty is None:
            total, *gradients = with_gradients(loss)
        elif every == 1:
            total, *gradients = with_gradients(loss + penalty())
        else:
            # Both of two updates in a step have a penalty, each on its own images.
            step = self.count // 2 if self._recipe.separate_updates else self.count
            # All gradients within each branch: a value that leaves a branch is copied.
            total, *gradients = tf.cond(
                tf.equal(step % every, 0),
                lambda: with_gradients(loss + penalty()),
                lambda: with_gradients(loss),
            )
        # The total first: a penalty may read variables without a gradient in it, such as biases.
        with tf.name_scope(f"{self._name}/"), tf.control_dependencies([total]):
            if self._shard.count > 1:
                loss, *gradients = _of_whole_batch([loss, *gradients], self._shard)
            done = self._adam.apply_gradients(zip(gradients, self.variables, strict=True))
            clip = [self._clip] if self._weight_clip else []
            for create in [*clip, *moving, lambda: self.count.assign_add(1).op]:
                with tf.control_dependencies([done]):
                    done = create()
            return loss, done

    def _clip(self):
        """Clips all weights to [-weight_clip, weight_clip] (Arjovsky et al. 2017)."""
        limit = self._weight_clip
        values = [tf.clip_by_value(v.read_value(), -limit, limit) for v in self.variables]
        return tf.group(*[v.assign(x) for v, x in zip(self.variables, values, strict=True)])


def _call(network, inputs, labels):
    given = {} if labels is None else {"labels": labels}
    return network(inputs, reuse=True, **given)


def _is_mean(session, loss):
    """Returns whether a loss of (y, y_hat) is the mean of the losses of both halves."""
    logits = _example_logits()
    halves = np.split(logits, 2, axis=1)
    whole, *parts = session.run([loss(*map(tf.constant, each)) for each in (logits, *halves)])
    return np.allclose(whole, np.mean(parts), rtol=_MEAN_TOLERANCE, atol=_MEAN_TOLERANCE)


def _is_sum(session, loss):
    """Returns whether a loss of (y, y_hat) is a function of y plus one of y_hat."""
    y, y_hat, other_y, other_y_hat = np.split(_example_logits(4), 4)
    pairs = [(y, y_hat), (other_y, other_y_hat), (y, other_y_hat), (other_y, y_hat)]
    values = session.run([loss(tf.constant(a[0]), tf.constant(b[0])) for a, b in pairs])
    return np.isclose(values[0] + values[1], values[2] + values[3], rtol=_MEAN_TOLERANCE)


def _example_logits(count=2):
    logits = np.random.default_rng(0).normal(0, 3, [count, _EXAMPLE_ROWS, 1])
    return logits.astype(np.float32)


def _of_whole_batch(tensors, shard):
    """Averages tensors over the shards of a batch, in one sum."""
    rows = [tf.reshape(tensor, [-1]) for tensor in tensors]
    parts = tf.split(shard.mean(tf.concat(rows, axis=0)), [row.shape[0] for row in rows])
    return [tf.reshape(part, t.shape) for part, t in zip(parts, tensors, strict=True)]


def training_loss(gan, recipe):
    """Returns the `Loss` that trains a Gan: that of the recipe, or the class's own.

    Raises:
      UserError: If the class has its own, and the recipe's would replace it.
    """
    name = type(gan).__name__
    own_d = type(gan)._discriminator_loss is not Gan._discriminator_loss
    own_g = type(gan)._generator_loss is not Gan._generator_loss
    if own_d and recipe.label_smoothing:
        raise UserError(
            f"--label_smoothing={recipe.label_smoothing} would replace the _discriminator_loss of "
            f"{name}; smooth the labels there and set --label_smoothing=0"
        )
    if (own_d or own_g) and recipe.loss != "cross_entropy":
        raise UserError(f"--loss={recipe.loss} would replace the losses of {name}; omit it")
    loss = losses.LOSSES[recipe.loss]
    if own_d:
        loss = dataclasses.replace(loss, discriminator=gan._discriminator_loss)
    elif recipe.label_smoothing:
        smoothed = functools.partial(loss.discriminator, label_smoothing=recipe.label_smoothing)
        loss = dataclasses.replace(loss, discriminator=smoothed)
    if own_g:
        loss = dataclasses.replace(loss, generator=lambda y, y_hat: gan._generator_loss(y_hat))
    return loss
