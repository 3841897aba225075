"""One update of the discriminator and one of the generator, on any class of the article's shape.

Loss, penalty, gradients, Adam and the average of weights are defined here and nowhere else. Of a
class they ask `_generator`, `_discriminator`, `_discriminator_loss`, `_generator_loss`, and that
its variables are under the scopes `generator` and `discriminator`.
"""

import contextlib
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from input_data import NUM_CLASSES
from models import losses, passes
from models.gan import Gan
from models.passes import WHOLE
from support.errors import UserError
from training import shares

_STREAM_STRIDE = 0x2545F49


class Updates:
    """D's and G's updates by a recipe, as functions of tensors."""

    def __init__(self, gan, recipe, seed, share=WHOLE):
        """gan: in its graph, which is the default one, with an open session.

        seed: whole number below 2**31 that the training passes' randomness follows from.
        share: the part of each batch that the tensors here will be, where several processes train.
        UserError for a class that does not learn from shares what it learns from whole batches.
        """
        self._gan = gan
        self._recipe = recipe
        self._share = share
        # Seeds apart, so that the networks' dropout masks are independent.
        self._d = _Optimizer("discriminator", recipe, seed ^ 0x5EED, share)
        self._g = _Optimizer("generator", recipe, seed, share)
        self._ema = _moving_average(recipe.ema_decay, self._g.count)
        self._d_loss = _discriminator_loss(gan, recipe.label_smoothing)
        if share.count > 1:
            shares.check(gan, self._with_any_labels, self._d_loss)
        self._one_pass = not recipe.separate_updates and not self._logits_depend_on_other_batch()

    def d_update(self, x, z, learning_rate, labels=None, z_labels=None):
        """Real images [batch, ndims], latents, a rate -> (loss before the update, operation).

        labels, z_labels: one-hot [batch, 10], of the images and for G, of a conditional Gan.
        """
        real = _Examples(x, labels)
        generated = _Examples(self._through(self._gan._generator, z, z_labels), z_labels)
        if self._recipe.separate_updates:
            return self._separate_updates(real, generated, learning_rate)
        y, y_hat, moving = self._logits_of_both(real, generated)
        loss = self._d_loss(y, y_hat)
        return self._d.minimize(
            loss, learning_rate, moving, self._r1_penalty(real), self._recipe.penalty_every
        )

    def g_update(self, z, learning_rate, z_labels=None):
        """Latents [batch, nlatent], a rate -> (loss before the update, operation)."""
        with self._g.training_pass() as through_g:
            x_hat = self._through(self._gan._generator, z, z_labels)
        with self._g.training_pass(stream=1):
            y_hat = self._discriminate(_Examples(x_hat, z_labels))
        loss = self._gan._generator_loss(y_hat)
        loss, update = self._g.minimize(loss, learning_rate, through_g.updates)
        if self._ema is None:
            return loss, update
        with tf.control_dependencies([update]):
            return loss, self._ema.apply(self._g.variables)

    def install(self):
        """Puts these losses and train ops, on its placeholders, in the place of the class's own."""
        gan = self._gan
        x, z, rate = gan.x_placeholder, gan.z_placeholder, gan.learning_rate_placeholder
        labels = z_labels = None
        if self._recipe.conditional:
            labels, z_labels = gan.x_labels_placeholder, gan.labels_placeholder
        gan.d_loss, gan.d_optimizer = self.d_update(x, z, rate, labels, z_labels)
        gan.g_loss, gan.g_optimizer = self.g_update(z, rate, z_labels)

    def averages(self):
        """-> {name of a variable of G: the variable of its average}, empty where none is kept."""
        if self._ema is None:
            return {}
        return {v.op.name: self._ema.average(v) for v in self._g.variables}

    def _separate_updates(self, real, generated, learning_rate):
        """D is updated by the loss's gradient at real images, then by that at generated ones."""
        y, moving = self._logits(real)
        y_hat, _ = self._logits(generated)
        loss = self._d_loss(y, y_hat)
        # Updates come in twos, of which the first alone has the real batch.
        every = self._recipe.penalty_every
        with tf.control_dependencies([loss]):
            loss, first = self._d.minimize(
                loss,
                learning_rate,
                moving,
                self._r1_penalty(real),
                2 * every if every > 1 else 1,
                constants=[y_hat],
            )
        with tf.control_dependencies([first]):
            y_hat, moving = self._logits(generated)
            again = self._d_loss(y, y_hat)
            _, second = self._d.minimize(again, learning_rate, moving, constants=[y])
        return loss, second

    def _logits(self, examples, **stream):
        """-> D's logits in training, and the functions that the pass leaves to the update."""
        with self._d.training_pass(**stream) as running:
            return self._discriminate(examples), running.updates

    def _discriminate(self, examples):
        """-> D's logits. The reshape tells D the images' width where a class leaves it open."""
        images = tf.reshape(examples.images, [-1, self._gan.x_placeholder.shape[1]])
        return self._through(self._gan._discriminator, images, examples.labels)

    def _through(self, network, inputs, labels):
        """A network's result of this process's share of a batch."""
        with passes.sharding(self._share):
            return _call(network, inputs, labels)

    def _logits_of_both(self, real, generated):
        """-> D(x), D(x_hat), what the passes leave to do; as one product where that is the same."""
        if not self._one_pass:
            (y, moving), (y_hat, also) = self._logits(real), self._logits(generated, stream=1)
            return y, y_hat, moving + also
        count = tf.shape(real.images)[0]
        both = _Examples(*map(_joined, real, generated))
        logits, moving = self._logits(both, batches=2)
        return logits[:count], logits[count:], moving

    def _r1_penalty(self, real):
        """-> () -> scalar to add to D's loss where it is due, or None."""
        if not self._recipe.r1_gamma:
            return None

        def penalty():
            logits, _ = self._logits(real)
            weight = self._recipe.penalty_every * self._recipe.r1_gamma / 2
            return weight * losses.squared_gradient(logits, real.images)

        return penalty

    def _logits_depend_on_other_batch(self):
        """Whether D's logits for one of two batches that pass together depend on the other batch.

        They do where D normalises by the batch's statistics. Then real and generated images have
        to pass apart, or each kind would be seen in the light of the other.
        """
        x = shares.example(self._gan.x_placeholder)
        with passes.training(tf.constant([0, 0]), batches=2):
            logits = self._with_any_labels(self._gan._discriminator, x)
        return shares.crosses(self._gan.session, logits, x)

    def _with_any_labels(self, network, inputs):
        labels = tf.eye(inputs.shape[0], NUM_CLASSES) if self._recipe.conditional else None
        return _call(network, inputs, labels)


class _Examples(NamedTuple):
    """What D sees: images [batch, ndims] and, for a conditional Gan, their one-hot labels."""

    images: tf.Tensor
    labels: tf.Tensor | None


def _joined(real, generated):
    """Two batches, or None twice -> one, the first before the second."""
    return None if real is None else tf.concat([real, generated], axis=0)


def _call(network, inputs, labels):
    """A class's `_generator` or `_discriminator` on its variables, with labels if there are any."""
    given = {} if labels is None else {"labels": labels}
    return network(inputs, reuse=True, **given)


class _Optimizer:
    """Adam on the variables of one network alone, and the count of its updates."""

    def __init__(self, scope, recipe, seed, share):
        self.variables = tf.trainable_variables(f"{scope}/")
        _check_are_resources(self.variables)
        self._seed = seed
        self._share = share
        self._name = f"{scope[0]}_adam"
        self._learning_rate = None
        self._adam = tf.train.AdamOptimizer(
            lambda: self._learning_rate, recipe.beta1, recipe.beta2, name=self._name
        )
        self.count = tf.get_variable(
            f"{self._name}/updates",
            [],
            tf.int32,
            initializer=tf.zeros_initializer(),
            trainable=False,
            use_resource=True,
        )

    @contextlib.contextmanager
    def training_pass(self, stream=0, batches=1):
        """A pass whose randomness follows from the seed, the updates so far and the stream.

        stream: other whole numbers for passes that one update needs beside each other.
        """
        seed = self._seed ^ (stream * _STREAM_STRIDE)
        with passes.training(tf.stack([seed, self.count.read_value()]), batches) as running:
            yield running

    def minimize(self, loss, learning_rate, moving, penalty=None, every=1, constants=()):
        """A scalar and a rate -> (the scalar of the whole batch, the operation of one Adam step).

        moving: functions that create what to run after it. penalty: () -> scalar to add to the
        loss at the first of `every` so many updates. constants: tensors that the gradient does not
        go through.
        """
        self._learning_rate = learning_rate
        total, *gradients = self._total_and_gradients(loss, penalty, every, constants)
        # The total first: a penalty may read variables that it has no gradient for, such as biases.
        with tf.name_scope(f"{self._name}/"), tf.control_dependencies([total]):
            loss, *gradients = _of_whole_batch([loss, *gradients], self._share)
            done = self._adam.apply_gradients(zip(gradients, self.variables, strict=True))
            for create in [*moving, lambda: self.count.assign_add(1).op]:
                with tf.control_dependencies([done]):
                    done = create()
            return loss, done

    def _total_and_gradients(self, loss, penalty, every, constants):
        """All gradients within one branch: what leaves a branch is written and added up."""

        def of(total):
            gradients = tf.gradients(
                total,
                self.variables,
                stop_gradients=constants,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            return [total, *gradients]

        if penalty is None:
            return of(loss)
        if every == 1:
            return of(loss + penalty())
        due = tf.equal(self.count % every, 0)
        return tf.cond(due, lambda: of(loss + penalty()), lambda: of(loss))


def _of_whole_batch(tensors, share):
    """Tensors that are means over a share of a batch -> the same over all of it, in one sum."""
    if share.count == 1:
        return tensors
    rows = [tf.reshape(tensor, [-1]) for tensor in tensors]
    parts = tf.split(share.mean(tf.concat(rows, axis=0)), [row.shape[0] for row in rows])
    return [tf.reshape(part, t.shape) for part, t in zip(parts, tensors, strict=True)]


def _discriminator_loss(gan, label_smoothing):
    """-> the loss that trains D: the class's own; UserError where smoothing would replace it."""
    if not label_smoothing:
        return gan._discriminator_loss
    if type(gan)._discriminator_loss is not Gan._discriminator_loss:
        raise UserError(
            f"--label_smoothing={label_smoothing}: {type(gan).__name__} has a _discriminator_loss "
            "of its own, which smoothing would replace; smooth the labels there and leave it at 0"
        )
    return lambda y, y_hat: losses.discriminator_cross_entropy(y, y_hat, label_smoothing)


def _moving_average(decay, num_updates):
    """-> the exponential moving average of G's weights, or None where the decay is 0."""
    return tf.train.ExponentialMovingAverage(decay, num_updates=num_updates) if decay else None


def _check_are_resources(variables):
    """UserError for a reference variable, whose reads and writes are in no order."""
    for variable in variables:
        if variable.op.type != "VarHandleOp":
            raise UserError(
                f"{variable.op.name} is a reference variable, wanted a resource variable: create "
                "it with use_resource=True, or train with --engine=step"
            )
