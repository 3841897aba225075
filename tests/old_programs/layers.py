"""A classifier of tf.layers with batch normalisation and dropout."""

import numpy as np
import tensorflow as tf


def seeded(seed):
    return tf.random_normal_initializer(stddev=0.1, seed=seed)


rng = np.random.RandomState(0)
images, labels = rng.rand(8, 784).astype(np.float32), np.arange(8) % 10
x = tf.placeholder(tf.float32, [None, 784])
training = tf.placeholder(tf.bool)
net = tf.layers.conv2d(
    tf.reshape(x, [-1, 28, 28, 1]), 4, [5, 5], strides=2, padding="same", activation=tf.nn.relu,
    kernel_initializer=seeded(1), name="conv",
)  # fmt: skip
net = tf.layers.batch_normalization(net, training=training)
net = tf.layers.dropout(tf.layers.flatten(net), rate=0.5, training=False)
logits = tf.layers.dense(inputs=net, units=10, kernel_initializer=seeded(2))
loss = tf.losses.sparse_softmax_cross_entropy(labels=labels, logits=logits)
with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    train = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
sess = tf.InteractiveSession()
tf.global_variables_initializer().run()
for _ in range(3):
    print(sess.run([loss, train], {x: images, training: True})[0])
print(loss.eval({x: images, training: False}))
assert [v.op.name for v in tf.trainable_variables()] == [
    "conv/kernel", "conv/bias", "batch_normalization/gamma", "batch_normalization/beta",
    "dense/kernel", "dense/bias",
]  # fmt: skip
