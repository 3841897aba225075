"""One model under examination, the questions that checks ask of it, and where models come from."""

import contextlib
import functools

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
RNG_SEED = 0
NETS = ("generator", "discriminator")


class Bench:
    """Builds models of one class, each in a fresh graph, for one check after another.

    Building takes longer than most checks, so a model is lent again, with the values that its
    constructor gave it, unless a check failed on it or another model was built since.
    """

    def __init__(self, gan_class):
        self._gan_class = gan_class
        self._last = None
        self._sizes = None

    @contextlib.contextmanager
    def specimen(self, **sizes):
        """A `Specimen` whose constructor was called with these arguments."""
        specimen = self._lend(sizes) or self._build(**sizes)
        self._last = None
        try:
            yield specimen
        except Exception:
            specimen.close()
            raise
        self._last, self._sizes = specimen, sizes

    def _lend(self, sizes):
        """The last specimen as good as new, or None (and then it is closed)."""
        if self._last and self._sizes == sizes and self._last.can_be_restored():
            self._last.restore()
            return self._last
        return self.close()

    def close(self):
        """Lets go of the last specimen."""
        if self._last:
            self._last.close()
        self._last = None

    @contextlib.contextmanager
    def another(self, *args, **sizes):
        """A second `Specimen`, for a check that has one already; the first is not lent again."""
        specimen = self._build(*args, **sizes)
        try:
            yield specimen
        finally:
            specimen.close()

    def _build(self, *args, **sizes):
        outer = tf1.get_default_session()
        tf1.reset_default_graph()
        tf1.set_random_seed(1)
        try:
            return Specimen(self, self._gan_class(*args, **sizes), outer)
        except Exception:
            close_sessions_since(outer)
            raise


def close_sessions_since(outer):
    """Closes the interactive sessions opened after `outer`, innermost first as they demand."""
    while (session := tf1.get_default_session()) not in (None, outer):
        session.close()
        if tf1.get_default_session() is session:
            return


class Specimen:
    """A model, inputs that fit its placeholders, and its networks taken apart from outside.

    Inputs take their width from the placeholders, so that a wrong size fails the checks about
    sizes and no others. `net` is one of `NETS` throughout.
    """

    def __init__(self, bench, model, outer_session):
        self.bench = bench
        self.model = model
        self._outer_session = outer_session
        self._rng = np.random.default_rng(RNG_SEED)
        self._all_variables = tf1.global_variables()
        self._new_values = self._first_values()

    def _first_values(self):
        try:
            return self.model.session.run(self._all_variables)
        # A model without a session that is ready fails the check that asks for one.
        except Exception:
            return None

    def can_be_restored(self):
        """Whether this is still the default graph, with no variables added, and it ever ran."""
        same = tf1.global_variables() == self._all_variables
        return same and self._new_values is not None

    def restore(self):
        """Puts all variables, the optimizers' included, back as they were, and the inputs too."""
        self._rng = np.random.default_rng(RNG_SEED)
        self._put(self._all_variables, self._new_values)

    def close(self):
        """Closes the model's session, and any other that its constructor opened."""
        close_sessions_since(self._outer_session)
        if hasattr(self.model, "session"):
            self.model.session.close()

    def images(self, n, low=0.0, high=1.0):
        """`[n, ndims]`, uniform."""
        return self._rng.uniform(low, high, [n, width(self.model.x_placeholder)])

    def latents(self, n):
        """`[n, nlatent]`, uniform in [-1, 1]."""
        return self._rng.uniform(-1, 1, [n, width(self.model.z_placeholder)])

    def batch(self, n=16):
        """Images and latents as arguments for `run`."""
        return {"images": self.images(n), "latents": self.latents(n)}

    def run(self, fetches, images=None, latents=None, rate=None):
        """Values of `fetches`, fed with what is given and nothing else."""
        model = self.model
        feeds = {
            model.x_placeholder: images,
            model.z_placeholder: latents,
            model.learning_rate_placeholder: rate,
        }
        given = {placeholder: value for placeholder, value in feeds.items() if value is not None}
        return model.session.run(fetches, given)

    def update(self, net, rate, **batch):
        """One update of the net by its optimizer."""
        model = self.model
        optimizers = {"discriminator": model.d_optimizer, "generator": model.g_optimizer}
        self.run(optimizers[net], rate=rate, **batch)

    @functools.cached_property
    def image_logits(self):
        """What the discriminator says of the images fed, `[None, 1]`."""
        return self.model._discriminator(self.model.x_placeholder, reuse=True)

    @functools.cached_property
    def sample_logits(self):
        """What the discriminator says of the samples, `[None, 1]`."""
        return self.model._discriminator(self.model.x_hat, reuse=True)

    @functools.cached_property
    def d_loss_at(self):
        """`(y, y_hat)`, numbers or lists, -> the discriminator's loss on those logits."""
        return self._on_logits(self.model._discriminator_loss, 2)

    @functools.cached_property
    def g_loss_at(self):
        """`(y_hat)`, a number or a list, -> the generator's loss on those logits."""
        return self._on_logits(self.model._generator_loss, 1)

    def _on_logits(self, loss_function, arity):
        logits = [tf1.placeholder(tf.float32, [None, 1]) for _ in range(arity)]
        # A loss of several numbers fails the check that asks for one, and is judged by its mean.
        loss = tf.reduce_mean(loss_function(*logits))

        def value(*numbers):
            columns = [np.reshape(each, [-1, 1]) for each in numbers]
            return self.model.session.run(loss, dict(zip(logits, columns, strict=True)))

        return value

    def variables(self, net):
        """The trainable variables under the net's scope."""
        return [v for v in tf1.trainable_variables() if net in owners(v)]

    def weights(self, net):
        """The values of `variables(net)`."""
        return self.model.session.run(self.variables(net))

    def shake(self, net, gain=1.0):
        """Normal draws in place of the net's weights, to multiply a layer's scale by about `gain`.

        Unlike the weights a constructor chooses they leave nothing at 0, and no two layers alike.
        """
        variables = self.variables(net)
        shapes = [variable.shape.as_list() for variable in variables]
        draws = [gain * self._rng.standard_normal(s) / np.sqrt(np.prod(s[:-1])) for s in shapes]
        self._put(variables, draws)

    def _put(self, variables, values):
        # An initializer's second input is the value it writes: feeding it writes another one,
        # for reference variables as well as resources, and adds nothing to the graph.
        initializers = [variable.initializer for variable in variables]
        slots = [initializer.inputs[1] for initializer in initializers]
        self.model.session.run(initializers, dict(zip(slots, values, strict=True)))


def width(placeholder):
    """The last dimension, that of one image or one latent vector."""
    return placeholder.shape.as_list()[-1]


def owners(variable):
    """The nets whose scope a variable stands under, also a numbered one such as `generator_1`."""
    scopes = {part.rstrip("0123456789").rstrip("_") for part in variable.name.split("/")[:-1]}
    return scopes.intersection(NETS)
