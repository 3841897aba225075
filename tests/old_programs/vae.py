"""A VAE of contrib.layers and slim, with flags, summaries, and a Saver."""

import os

import numpy as np
import tensorflow as tf
import tensorflow.contrib.slim as slim
from tensorflow.contrib.layers import fully_connected
from tensorflow.contrib.learn.python.learn.datasets.mnist import read_data_sets

flags = tf.app.flags
flags.DEFINE_integer("steps", 3, "steps")
flags.DEFINE_integer("most", np.inf, "any number, as before 1.5")
flags.DEFINE_string("log_dir", "logs", "folder")
FLAGS = flags.FLAGS


def encoder(x, is_training):
    options = {"decay": 0.9, "is_training": is_training, "updates_collections": None}
    with slim.arg_scope(
        [slim.conv2d],
        activation_fn=tf.nn.elu,
        normalizer_fn=slim.batch_norm,
        normalizer_params=options,
        weights_regularizer=slim.l2_regularizer(1e-4),
    ):
        net = slim.conv2d(tf.reshape(x, [-1, 28, 28, 1]), 4, [5, 5], stride=2, scope="conv1")
        net = slim.flatten(slim.max_pool2d(net, [2, 2]))
    return fully_connected(net, 2, activation_fn=None), fully_connected(net, 2, activation_fn=None)


def main(_):
    assert FLAGS.most == np.inf
    mnist = read_data_sets("data/mnist", one_hot=False)
    x = tf.placeholder(tf.float32, [None, 784])
    mean, log_variance = encoder(x, True)
    z = mean + tf.exp(log_variance / 2) * tf.random_normal(tf.shape(mean))
    logits = fully_connected(z, 784, activation_fn=None, scope="decoder")
    ce = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
    kl = -0.5 * tf.reduce_sum(1 + log_variance - mean**2 - tf.exp(log_variance), 1)
    loss = tf.reduce_mean(tf.reduce_sum(ce, 1) + kl) + tf.add_n(
        tf.losses.get_regularization_losses()
    )
    step = tf.contrib.framework.get_or_create_global_step()
    train = tf.train.AdamOptimizer(1e-3).minimize(loss, global_step=step)
    tf.summary.scalar("loss", loss)
    merged, saver = tf.summary.merge_all(), tf.train.Saver()
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        writer = tf.summary.FileWriter(FLAGS.log_dir, sess.graph)
        for _ in range(FLAGS.steps):
            feed = {x: mnist.train.next_batch(16)[0]}
            value, summary, _ = sess.run([loss, merged, train], feed)
            writer.add_summary(summary, step.eval())
            print(value)
        saver.save(sess, os.path.join(FLAGS.log_dir, "model.ckpt"), global_step=step)
        before = sess.run(mean, feed)
        sess.run(tf.global_variables_initializer())
        saver.restore(sess, tf.train.latest_checkpoint(FLAGS.log_dir))
        np.testing.assert_array_equal(sess.run(mean, feed), before)
        assert step.eval() == FLAGS.steps


if __name__ == "__main__":
    tf.app.run()
