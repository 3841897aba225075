"""A classifier with names and orders of arguments of before TensorFlow 1.0."""

import sys

import numpy as np
import tensorflow as tf

images = np.random.RandomState(0).rand(8, 784).astype(np.float)
labels = np.eye(10)[np.arange(8)]
x = tf.placeholder("float", [None, 100 / 2 + 734])
y = tf.placeholder("float", [None, 10])
left, right = tf.split(1, 2, x)
w = tf.Variable(np.random.RandomState(1).normal(0, 0.1, [784, 10]).astype(np.float32))
logits = tf.sub(tf.matmul(tf.concat(1, [tf.neg(right), left]), w), tf.mul(0.5, tf.ones([10])))
loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(logits, y))
loss += tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(logits, targets=y))
loss += tf.reduce_sum(tf.pack(tf.unpack(tf.select(w > 0, w, -w))))
train = tf.train.GradientDescentOptimizer(0.01).minimize(loss)
tf.scalar_summary("loss", loss)
merged = tf.merge_all_summaries()
sess = tf.Session()
sess.run(tf.initialize_all_variables())
writer = tf.train.SummaryWriter(sys.argv[1], sess.graph)
for step in xrange(3):
    value, summary = sess.run([loss, merged], {x: images, y: labels})
    sess.run(train, {x: images, y: labels})  # on its own: it might write before the loss reads
    writer.add_summary(summary, step)
    print(value)
assert len(tf.all_variables()) == 1
