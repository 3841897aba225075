"""Random numbers that follow from a seed and are the same with XLA and without.

They are a counter put through MurmurHash3's finaliser. TensorFlow's stateless kernels draw other
numbers under XLA than outside it, but the two engines must agree.
"""

import tensorflow.compat.v1 as tf


def random_16_bits(count, seed, start=0):
    """Like `random_bits`, but uint16: enough for a rate, at half the cost."""
    first = start % 2
    words = random_bits((first + count + 1) // 2, seed, start // 2)
    return tf.reshape(tf.bitcast(words, tf.uint16), [-1])[first : first + count]


def random_bits(count, seed, start=0):
    """Returns uint32 `[count]` of the endless sequence of a seed, from place `start`.

    Args:
      count: Scalar, a tensor or an integer.
      seed: int32 `[2]`.
      start: Scalar, a tensor or an integer.
    """
    key = _mixed(_mixed(tf.cast(seed[0], tf.uint32)) + tf.cast(seed[1], tf.uint32))
    return _mixed(_mixed(tf.cast(tf.range(start, start + count), tf.uint32) + key) + key)


def _mixed(bits):
    """Mixes uint32 so that each bit of the input changes about half of the output's."""
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)]:
        bits = tf.bitwise.bitwise_xor(
            bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        )
        bits *= tf.constant(factor, tf.uint32)
    return bits
