"""A classifier that reads the rows of an image with RNN cells, next to Keras 2."""

import keras
import numpy as np
import tensorflow as tf
from keras.datasets import mnist
from keras.layers.core import Dense
from keras.utils import np_utils
from tensorflow.contrib import rnn

(images, labels), _ = mnist.load_data()
assert images.shape == (60000, 28, 28) and labels[0] == 5
x = tf.placeholder(tf.float32, [None, 28, 28])
cell = rnn.MultiRNNCell([rnn.DropoutWrapper(rnn.BasicLSTMCell(8), 0.9), tf.nn.rnn_cell.GRUCell(8)])
outputs, _ = tf.nn.dynamic_rnn(cell, x, dtype=tf.float32)
logits = tf.layers.dense(outputs[:, -1], 10)
loss = tf.losses.softmax_cross_entropy(np.eye(10)[labels[:16]], logits)
train = tf.train.AdamOptimizer(0.01).minimize(loss)
sess = tf.Session()
sess.run(tf.global_variables_initializer())
for _ in range(3):
    print(sess.run([loss, train], {x: images[:16] / 255.0})[0])
model = keras.models.Sequential([Dense(10, activation="softmax", input_dim=784)])
model.compile("sgd", "categorical_crossentropy")
labels = np_utils.to_categorical(labels[:16], 10)
print(model.train_on_batch(images[:16].reshape(-1, 784) / 255.0, labels))
