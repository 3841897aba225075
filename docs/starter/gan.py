"""A GAN on handwritten digits, to be completed by you.

Each method below describes its inputs and outputs. Write the two losses first: they can be marked
before anything else works.

    python -m grading path/to/gan.py

The names are fixed, since other programs look for them. How many layers a network has, how wide
they are and what they are called is yours to choose.
"""

# Graphs and sessions are TensorFlow 1's; TensorFlow 2 still has them under this name.
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()


def dense(x, units, name):
    """Applies a layer to x, [batch, n]: x times weights plus biases.

    The result is [batch, units].

    It replaces `tf.layers.dense`, which TensorFlow 2 dropped. Put an activation function around
    it, such as `tf.nn.relu(dense(x, 64, "hidden"))`. Two layers of one network need two names.
    """
    with tf.variable_scope(name):
        weights = tf.get_variable("weights", [x.shape[1], units])
        biases = tf.get_variable("biases", [units], initializer=tf.zeros_initializer())
    return tf.matmul(x, weights) + biases


class Gan:
    """Two networks: one makes images, the other tells them from real ones.

    Args:
      ndims: Pixels of an image, 28 * 28.
      nlatent: Numbers from which the generator makes an image.
    """

    def __init__(self, ndims=784, nlatent=2):
        self._ndims = ndims
        self._nlatent = nlatent

        # What is fed: images, latent vectors, and the learning rate of the moment.
        self.x_placeholder = tf.placeholder(tf.float32, [None, ndims])
        self.z_placeholder = tf.placeholder(tf.float32, [None, nlatent])
        self.learning_rate_placeholder = tf.placeholder(tf.float32, [])

        # Generated images, and what the discriminator says of them and of real ones.
        self.x_hat = self._generator(self.z_placeholder)
        y_hat = self._discriminator(self.x_hat)
        y = self._discriminator(self.x_placeholder, reuse=True)

        self.d_loss = self._discriminator_loss(y, y_hat)
        self.g_loss = self._generator_loss(y_hat)

        # To be written: an operation for each network that takes one step of Adam down its loss.
        # tf.train.AdamOptimizer, its method minimize with var_list, and tf.trainable_variables
        # are what you need. Which variables may each of the two touch?
        self.d_optimizer = None
        self.g_optimizer = None

        self.session = tf.InteractiveSession()
        self.session.run(tf.global_variables_initializer())

    def _discriminator_loss(self, y, y_hat):
        """Returns the discriminator's loss, one number: the mean over the batch.

        Args:
          y: The discriminator's logits of real images, [batch, 1]: any numbers, large for "real",
            small for "generated".
          y_hat: Its logits of generated images, [batch, 1].

        tf.nn.sigmoid_cross_entropy_with_logits compares a logit with a label.
        """
        raise NotImplementedError

    def _generator_loss(self, y_hat):
        """Returns the generator's loss, one number: the mean over the batch.

        Args:
          y_hat: The discriminator's logits of generated images, [batch, 1]. What does the generator
            want the discriminator to say of its images?
        """
        raise NotImplementedError

    def _generator(self, z, reuse=False):
        """Returns images, [batch, ndims], with pixels from 0 to 1.

        Args:
          z: Latent vectors, [batch, nlatent].
          reuse: False creates the variables, True uses the existing ones. All of them belong under
            tf.variable_scope("generator", reuse=reuse).
        """
        raise NotImplementedError

    def _discriminator(self, x, reuse=False):
        """Returns logits, [batch, 1]: any numbers, not yet probabilities.

        Args:
          x: Images, [batch, ndims].
          reuse: Like the generator's, under tf.variable_scope("discriminator", reuse=reuse).
        """
        raise NotImplementedError

    def generate_samples(self, z_np):
        """Returns images, [n, ndims], for latent vectors, [n, nlatent]; both are arrays.

        self.session runs a part of the graph; what has to be fed for it?
        """
        raise NotImplementedError
