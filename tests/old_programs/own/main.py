"""A program whose modules have the names of this project's."""

import tensorflow as tf
from models.net import logits

import input_data
from support import SCALE

data = input_data.read_data_sets("anywhere")
with tf.Session() as sess:
    print(sess.run(logits(tf.constant(data, tf.float32))) * SCALE)
