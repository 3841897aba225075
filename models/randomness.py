"""Random numbers as a function of a seed alone, the same under XLA as outside it.

A counter through MurmurHash3's finaliser. TensorFlow's own stateless kernels will not do: they draw
other numbers under XLA than outside it, and the two engines are to agree.
"""

import tensorflow.compat.v1 as tf


def random_16_bits(count, seed, start=0):
    """int32 [2] seed -> uint16 [count], those from place `start` on of an endless sequence.

    16 bits are enough for a rate, and cost half of 32.
    """
    first = start % 2
    words = random_bits((first + count + 1) // 2, seed, start // 2)
    return tf.reshape(tf.bitcast(words, tf.uint16), [-1])[first : first + count]


def random_bits(count, seed, start=0):
    """int32 [2] seed -> uint32 [count], those from place `start` on of an endless sequence."""
    key = _mixed(_mixed(tf.cast(seed[0], tf.uint32)) + tf.cast(seed[1], tf.uint32))
    return _mixed(_mixed(tf.cast(tf.range(start, start + count), tf.uint32) + key) + key)


def _mixed(bits):
    """uint32 -> uint32, each input bit changing about half of the output's."""
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)]:
        bits = tf.bitwise.bitwise_xor(
            bits, tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))
        )
        bits *= tf.constant(factor, tf.uint32)
    return bits
