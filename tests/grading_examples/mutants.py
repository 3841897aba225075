"""Wrong Gans, one mistake each, made from correct.py by replacing a piece of its text.

Most of them are silent: they build and train without an error. Each is meant for one check.
"""

from dataclasses import dataclass
from pathlib import Path

CORRECT = Path(__file__).with_name("correct.py")


@dataclass(frozen=True)
class Mutant:
    """`new` stands in place of `old`, which occurs once, and the check named must notice."""

    name: str
    check: str
    old: str
    new: str

    def source(self):
        """The mutant's file as text; ValueError if correct.py no longer has the piece once."""
        text = CORRECT.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {text.count(self.old)} places instead of 1: {self.old}")
        return text.replace(self.old, self.new)


D_LOSS = "tf.reduce_mean(cross_entropy(1.0, y) + cross_entropy(0.0, y_hat))"
G_LOSS = "tf.reduce_mean(cross_entropy(1.0, y_hat))"
SWAPPED = "tf.nn.sigmoid_cross_entropy_with_logits(labels={0}, logits=tf.{1}_like({0}))"
SAMPLES = "self.session.run(self.x_hat, {self.z_placeholder: z_np})"
PIXELS = 'tf.sigmoid(dense(z, self._ndims, "pixels"))'
LOGIT = 'dense(x, 1, "logit")'
D_UPDATE = 'self._update(self.d_loss, "discriminator")'
G_UPDATE = 'self._update(self.g_loss, "generator")'
Y_HAT = "y_hat = self._discriminator(self.x_hat)"
Y = "y = self._discriminator(self.x_placeholder, reuse=True)"
GET_WEIGHTS = 'tf1.get_variable("weights", [inputs.shape[1], units], use_resource=True)'
RATE = "self.learning_rate_placeholder = tf1.placeholder(tf.float32, [])"

MUTANTS = [
    # Structure.
    Mutant("misspelt_import", "imports", "import tensorflow as tf", "import tensorflaw as tf"),
    Mutant(
        "generator_to_be_written",
        "methods_are_written",
        f"""with tf1.variable_scope("generator", reuse=reuse):
            return {PIXELS}""",
        "raise NotImplementedError",
    ),
    Mutant("misspelt_name", "builds", "self._ndims = ndims", "self._ndims = n_dims"),
    Mutant("renamed_op", "has_the_articles_names", "self.g_optimizer =", "self.g_train ="),
    Mutant(
        "optimizers_not_initialised",
        "session_is_ready",
        "tf1.global_variables_initializer()",
        "tf1.variables_initializer(tf1.trainable_variables())",
    ),
    Mutant(
        "batch_size_in_placeholder",
        "placeholders_take_float32_batches",
        "[None, ndims]",
        "[16, ndims]",
    ),
    Mutant(
        "placeholder_outside_the_constructor",
        "builds_again_in_a_fresh_graph",
        RATE,
        "if not hasattr(Gan, 'rate'):\n            Gan.rate = tf1.placeholder(tf.float32, [])\n"
        "        self.learning_rate_placeholder = Gan.rate",
    ),
    Mutant(
        "new_weights_at_each_call",
        "reuse_makes_no_variables",
        GET_WEIGHTS,
        "tf.Variable(tf.random.normal([inputs.shape[1], units], stddev=0.05))",
    ),
    Mutant(
        "weight_outside_the_scopes",
        "every_weight_belongs_to_one_net",
        "self.x_hat = ",
        "self.x_hat = tf1.get_variable('gain', initializer=1.0) * ",
    ),
    Mutant(
        "batch_size_in_labels",
        "takes_any_batch_size",
        "tf.fill(tf.shape(logits), label)",
        "tf.fill([16, 1], label)",
    ),
    Mutant("latent_10_by_default", "default_sizes", "nlatent=2", "nlatent=10"),
    Mutant(
        "arguments_exchanged",
        "arguments_come_in_order",
        "ndims=784, nlatent=2",
        "nlatent=2, ndims=784",
    ),
    Mutant(
        "images_of_784",
        "image_size_is_an_argument",
        "self._ndims = ndims",
        "self._ndims = ndims = 784",
    ),
    Mutant("latents_of_2", "latent_size_is_an_argument", "[None, nlatent]", "[None, 2]"),
    Mutant(
        "samples_of_latents_of_2",
        "latent_size_is_an_argument",
        SAMPLES,
        SAMPLES.replace("z_np}", "z_np[:, :2]}"),
    ),
    Mutant("latents_of_10", "latent_size_is_an_argument", "[None, nlatent]", "[None, 10]"),
    # Losses.
    Mutant(
        "d_logarithms_of_logits",
        "d_loss_is_a_number",
        D_LOSS,
        "-tf.reduce_mean(tf.math.log(y) + tf.math.log(1 - y_hat))",
    ),
    Mutant(
        "g_logarithm_of_logits",
        "g_loss_is_a_number",
        G_LOSS,
        "-tf.reduce_mean(tf.math.log(y_hat))",
    ),
    Mutant("g_loss_not_reduced", "losses_are_scalars", G_LOSS, "cross_entropy(1.0, y_hat)"),
    Mutant("d_loss_halved", "d_loss_has_the_articles_value", D_LOSS, f"{D_LOSS} / 2"),
    Mutant("g_loss_doubled", "g_loss_has_the_articles_value", G_LOSS, f"{G_LOSS} * 2"),
    Mutant(
        "d_loss_summed", "d_loss_is_a_mean", D_LOSS, D_LOSS.replace("reduce_mean", "reduce_sum")
    ),
    Mutant(
        "g_loss_summed", "g_loss_is_a_mean", G_LOSS, G_LOSS.replace("reduce_mean", "reduce_sum")
    ),
    Mutant("d_loss_of_real", "d_loss_listens_to_both_kinds", " + cross_entropy(0.0, y_hat)", ""),
    Mutant("d_loss_of_fake", "d_loss_listens_to_both_kinds", "cross_entropy(1.0, y) + ", ""),
    Mutant(
        "real_as_0", "d_loss_rewards_the_truth", "cross_entropy(1.0, y)", "cross_entropy(0.0, y)"
    ),
    Mutant(
        "fake_as_1",
        "d_loss_rewards_the_truth",
        "cross_entropy(0.0, y_hat)",
        "cross_entropy(1.0, y_hat)",
    ),
    Mutant(
        "g_labels_0", "g_loss_rewards_fooling", G_LOSS, "tf.reduce_mean(cross_entropy(0.0, y_hat))"
    ),
    Mutant(
        "saturating_g_loss",
        "g_loss_is_steep_for_a_loser",
        G_LOSS,
        "tf.reduce_mean(-cross_entropy(0.0, y_hat))",
    ),
    Mutant(
        "d_labels_and_logits_swapped",
        "d_loss_is_never_negative",
        D_LOSS,
        "tf.reduce_mean(\n            "
        f"{SWAPPED.format('y', 'ones')}\n            + {SWAPPED.format('y_hat', 'zeros')})",
    ),
    Mutant(
        "g_labels_and_logits_swapped",
        "g_loss_is_never_negative",
        G_LOSS,
        f"tf.reduce_mean({SWAPPED.format('y_hat', 'ones')})",
    ),
    Mutant(
        "d_logarithms_of_probabilities",
        "d_loss_survives_sure_mistakes",
        D_LOSS,
        "-tf.reduce_mean(tf.math.log(tf.sigmoid(y)) + tf.math.log(1 - tf.sigmoid(y_hat)))",
    ),
    Mutant(
        "g_logarithm_of_probability",
        "g_loss_survives_sure_mistakes",
        G_LOSS,
        "-tf.reduce_mean(tf.math.log(tf.sigmoid(y_hat)))",
    ),
    Mutant(
        "g_logarithm_with_epsilon",
        "g_loss_survives_sure_mistakes",
        G_LOSS,
        "-tf.reduce_mean(tf.math.log(tf.sigmoid(y_hat) + 1e-8))",
    ),
    # Networks.
    Mutant("linear_pixels", "pixels_stay_in_range", PIXELS, PIXELS.replace("tf.sigmoid", "")),
    Mutant("tanh_pixels", "pixels_stay_in_range", PIXELS, PIXELS.replace("sigmoid", "tanh")),
    Mutant(
        "softmax_pixels",
        "pixels_reach_black_and_white",
        PIXELS,
        PIXELS.replace("tf.sigmoid", "tf.nn.softmax"),
    ),
    Mutant("sigmoid_on_d", "logits_are_not_squashed", LOGIT, f"tf.sigmoid({LOGIT})"),
    Mutant("tanh_on_d", "logits_are_not_squashed", LOGIT, f"tf.tanh({LOGIT})"),
    Mutant("relu_on_d", "logits_are_not_squashed", LOGIT, f"tf.nn.relu({LOGIT})"),
    Mutant(
        "second_d_for_samples",
        "one_discriminator_for_both_kinds",
        Y_HAT,
        f"with tf1.variable_scope('discriminator_of_samples'):\n            {Y_HAT}\n"
        "        self._discriminator(self.x_placeholder)",
    ),
    Mutant(
        "d_loss_arguments_exchanged",
        "losses_come_from_the_right_logits",
        "self._discriminator_loss(y, y_hat)\n",
        "self._discriminator_loss(y_hat, y)\n",
    ),
    Mutant("rounded_samples", "samples_are_x_hat", SAMPLES, f"{SAMPLES}.round()"),
    Mutant(
        "samples_of_other_latents",
        "samples_follow_the_latents",
        f"return {SAMPLES}",
        "import numpy as np\n\n        z_np = np.random.uniform(-1, 1, np.shape(z_np))\n"
        f"        return {SAMPLES}",
    ),
    Mutant(
        "samples_of_one_latent",
        "samples_follow_the_latents",
        SAMPLES,
        SAMPLES.replace("z_np}", "0 * z_np}"),
    ),
    Mutant(
        "long_latents_cut",
        "wrong_latents_are_refused",
        SAMPLES,
        SAMPLES.replace("z_np}", "z_np[:, : self._nlatent]}"),
    ),
    # Updates.
    Mutant(
        "slope_without_end",
        "weights_stay_numbers",
        G_LOSS,
        f"{G_LOSS} + tf.sqrt(tf.reduce_sum(y_hat - y_hat))",
    ),
    Mutant(
        "one_adam_for_both",
        "each_network_has_its_own_adam",
        "adam = tf1.train.AdamOptimizer(self.learning_rate_placeholder)",
        "if not hasattr(self, 'adam'):\n"
        "            self.adam = tf1.train.AdamOptimizer(self.learning_rate_placeholder)\n"
        "        adam = self.adam",
    ),
    Mutant(
        "d_without_var_list",
        "d_optimizer_leaves_the_generator_alone",
        D_UPDATE,
        "self._update(self.d_loss, None)",
    ),
    Mutant(
        "g_without_var_list",
        "g_optimizer_leaves_the_discriminator_alone",
        G_UPDATE,
        "self._update(self.g_loss, None)",
    ),
    Mutant(
        "biases_not_trained",
        "optimizers_move_all_of_their_own",
        "tf1.trainable_variables(scope)",
        "tf1.trainable_variables(scope)[:1]",
    ),
    Mutant(
        "fixed_learning_rate",
        "learning_rate_is_obeyed",
        "AdamOptimizer(self.learning_rate_placeholder)",
        "AdamOptimizer(0.001)",
    ),
    Mutant(
        "gradient_descent",
        "first_step_is_adams",
        "AdamOptimizer(",
        "GradientDescentOptimizer(",
    ),
    Mutant(
        "reading_the_loss_trains",
        "losses_are_values_before_the_update",
        "self.session = tf1.InteractiveSession()",
        "with tf1.control_dependencies([self.d_optimizer]):\n"
        "            self.d_loss = tf.identity(self.d_loss)\n"
        "        self.session = tf1.InteractiveSession()",
    ),
    Mutant(
        "g_loss_reads_images",
        "generator_trains_without_images",
        "self._generator_loss(y_hat)\n",
        "self._generator_loss(y_hat) + 0 * tf.reduce_sum(y)\n",
    ),
    Mutant(
        "generator_climbs",
        "generator_learns_to_fool",
        G_UPDATE,
        G_UPDATE.replace("self.g_loss", "-self.g_loss"),
    ),
    Mutant(
        "discriminator_climbs",
        "discriminator_learns_to_tell_apart",
        D_UPDATE,
        D_UPDATE.replace("self.d_loss", "-self.d_loss"),
    ),
]
