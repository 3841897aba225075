"""One model under examination, as the checks see it: questions to the student's process."""

import contextlib

import numpy as np

from grading.process import Raised, Stopped

RNG_SEED = 0


class Bench:
    """Models of one class, each for one check, in the student's process."""

    def __init__(self, process, path, class_name):
        self._process = process
        self.path, self.class_name = path, class_name
        process.choose(path, class_name)

    @property
    def out_of_time(self):
        """Whether the time for a file is used up."""
        return self._process.out_of_time

    def model_proxy(self, **sizes):
        """A `Specimen` whose constructor was called with these arguments."""
        return self._opened("begin", sizes=sizes)

    def bare(self):
        """A `Specimen` whose constructor was not called: the file's code alone has run."""
        return self._opened("begin_bare")

    @contextlib.contextmanager
    def _opened(self, operation, **arguments):
        with self._process.check():
            self._process.ask(operation, **arguments)
            try:
                yield Specimen(self, self._process)
            except Exception:
                with contextlib.suppress(Raised, Stopped):
                    self._process.ask("end", passed=False)
                raise
            self._process.ask("end", passed=True)

    @contextlib.contextmanager
    def another(self, *arguments, **sizes):
        """A second `Specimen`, for a check that has one already."""
        self._process.ask("begin_another", arguments=arguments, sizes=sizes)
        yield Specimen(self, self._process)
        self._process.ask("end_another")


class Specimen:
    """A model, inputs that fit its placeholders, and its networks taken apart from outside.

    Inputs take their width from the placeholders, so that a wrong size fails the checks about
    sizes and no others. `net` is one of `candidate.NETWORKS` throughout. Every method raises
    `Raised` if the class does.
    """

    def __init__(self, bench, process):
        self.bench = bench
        self._process = process
        self._rng = np.random.default_rng(RNG_SEED)
        self._widths = {}

    def width(self, placeholder):
        """The last dimension, that of one image or one latent vector; None if it is open."""
        if placeholder not in self._widths:
            shape = self.placeholder(placeholder)[1]
            self._widths[placeholder] = shape[-1] if shape else None
        return self._widths[placeholder]

    def images(self, n, low=0.0, high=1.0):
        """`[n, ndims]`, uniform."""
        return self._rng.uniform(low, high, [n, self.width("x_placeholder")])

    def latents(self, n):
        """`[n, nlatent]`, uniform in [-1, 1]."""
        return self._rng.uniform(-1, 1, [n, self.width("z_placeholder")])

    def batch(self, n=16):
        """Images and latents as arguments for `run` and `update`."""
        return {"images": self.images(n), "latents": self.latents(n)}

    def run(self, *fetches, **feeds):
        """Values of the fetches: attributes, `image_logits` and `sample_logits`.

        feeds: `images`, `latents`, `rate`; nothing else is fed. One value for one fetch.
        """
        values = self._measure("run", fetches=fetches, **feeds)
        return values if len(fetches) > 1 else values[0]

    def update(self, net, rate, images, latents, steps=1):
        """Updates of the net -> `{net: [largest absolute change of each variable]}` of both."""
        return self._measure(
            "update", net=net, steps=steps, rate=rate, images=images, latents=latents
        )

    def randomize_weights(self, net, gain=1.0):
        """Normal draws in place of the net's weights, to multiply a layer's scale by `gain`."""
        seed = int(self._rng.integers(2**31))
        self._measure("randomize_weights", net=net, gain=gain, seed=seed)

    def restore(self):
        """Puts all variables, the optimizers' included, and the inputs back as they were."""
        self._rng = np.random.default_rng(RNG_SEED)
        self._measure("restore")

    def d_loss_at(self, y, y_hat):
        """Numbers or lists -> the mean of what the discriminator's loss gives for these logits."""
        return float(np.mean(self.loss("_discriminator_loss", y, y_hat)))

    def g_loss_at(self, y_hat):
        """A number or a list -> the mean of what the generator's loss gives for these logits."""
        return float(np.mean(self.loss("_generator_loss", y_hat)))

    def loss(self, name, *logits, constant=False):
        """What a loss function gives, as it comes; constant: not for placeholders."""
        return self._measure("loss", name=name, logits=logits, constant=constant)

    def generate_samples(self, latents):
        """`[name of the type, values]`."""
        return self._measure("generate_samples", latents=latents)

    def missing(self, attributes, methods):
        """Those of the names that the model lacks."""
        return self._measure("missing", attributes=attributes, methods=methods)

    def placeholder(self, name):
        """`[dtype, shape]`; a shape is a list of lengths, None where open, or None itself."""
        return self._measure("placeholder", name=name)

    def num_uninitialized(self):
        """How many variables hold nothing."""
        return self._measure("num_uninitialized")

    def new_variables_on_reuse(self):
        """Names of the variables made by building both networks with reuse=True."""
        return self._measure("new_variables_on_reuse")

    def trainable_names(self):
        """Names of the trainable variables."""
        return self._measure("trainable_names")

    def num_parameters(self):
        """`{network: how many numbers it trains}`."""
        return self._measure("num_parameters")

    def _measure(self, name, /, **arguments):
        return self._process.ask("measure", name=name, arguments=arguments)
