"""A conditional GAN of tf.layers and tf.nn."""

import matplotlib.pyplot as plt
import numpy as np
import scipy.misc
import tensorflow as tf
from tensorflow.examples.tutorials.mnist import input_data

mnist = input_data.read_data_sets("MNIST_data/", one_hot=True)
x = tf.placeholder(tf.float32, [None, 784])
y = tf.placeholder(tf.float32, [None, 10])
z = tf.placeholder(tf.float32, [None, 10])


def generator(z, y):
    with tf.variable_scope("generator"):
        net = tf.layers.dense(tf.concat([z, y], axis=1), 7 * 7 * 4)
        net = tf.nn.relu(tf.layers.batch_normalization(net, training=True))
        net = tf.reshape(net, [-1, 7, 7, 4])
        net = tf.layers.conv2d_transpose(net, 4, 5, strides=2, padding="same")
        net = tf.layers.conv2d_transpose(net, 1, 5, 2, "same", activation=tf.nn.sigmoid)
        return tf.contrib.layers.flatten(net)


def discriminator(x, y, reuse=False):
    with tf.variable_scope("discriminator", reuse=reuse):
        w = tf.get_variable("w", [794, 16], initializer=tf.contrib.layers.xavier_initializer())
        net = tf.nn.relu(tf.matmul(tf.concat([x, y], 1), w))
        return tf.layers.dense(net, 1, name="logits", reuse=reuse)


fake = generator(z, y)
d_real, d_fake = discriminator(x, y), discriminator(fake, y, reuse=True)
ce = tf.nn.sigmoid_cross_entropy_with_logits
d_loss = tf.reduce_mean(ce(logits=d_real, labels=tf.ones_like(d_real)))
d_loss += tf.reduce_mean(ce(logits=d_fake, labels=tf.zeros_like(d_fake)))
g_loss = tf.reduce_mean(ce(logits=d_fake, labels=tf.ones_like(d_fake)))
d_vars = [v for v in tf.trainable_variables() if v.name.startswith("discriminator")]
g_vars = [v for v in tf.trainable_variables() if v.name.startswith("generator")]
d_train = tf.train.RMSPropOptimizer(1e-3).minimize(d_loss, var_list=d_vars)
with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    g_train = tf.train.AdamOptimizer(1e-3, beta1=0.5).minimize(g_loss, var_list=g_vars)
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for _ in range(4):
        images, labels = mnist.train.next_batch(16)
        feed = {x: images, y: labels, z: np.random.uniform(-1, 1, [16, 10])}
        sess.run([d_train, d_loss], feed)
        print(*sess.run([d_loss, g_loss, g_train], feed)[:2])
    samples = sess.run(fake, feed)
scipy.misc.imsave("samples.png", scipy.misc.imresize(samples[0].reshape(28, 28), (56, 56)))
plt.imshow(samples[0].reshape(28, 28), cmap="gray")
plt.show()
