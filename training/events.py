"""TensorBoard events of a run: `tensorboard --logdir=runs`.

Writing them needs no extra package.
"""

import contextlib
import os
import time

import tensorflow.compat.v1 as tf

from support.errors import RunError
from training.callbacks import Callback

# A scalar for each step would make the files larger than the checkpoints.
_SCALARS_EVERY = 100
_IMAGES = ("samples", "latent_grid")


class Events(Callback):
    """Both losses every 100 steps; at the end the run's images."""

    order = 50  # after the images that it shows

    def __init__(self, run):
        self._folder = run.folder
        run.listeners.append(self.scalars)
        run.files.append(self)
        self._writer = None

    def on_train_begin(self, step):
        folder = self._folder.file("events")
        folder.mkdir(exist_ok=True)
        with self._disk_errors():
            name = f"events.out.tfevents.{time.time():.6f}"
            self._writer = tf.io.TFRecordWriter(os.fsencode(folder / name))
        self._write(file_version="brain.Event:2")
        # TensorBoard then ignores what a killed run had written after this step.
        self._write(step=step + 1, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def on_steps(self, block):
        for progress in block:
            if progress.step % _SCALARS_EVERY == 0:
                values = {"loss/discriminator": progress.d_loss, "loss/generator": progress.g_loss}
                self.scalars(progress.step, values)

    def on_interval(self, step):
        for name in _IMAGES:
            encoded = self._folder.file(f"{name}.png").read_bytes()
            image = tf.Summary.Image(encoded_image_string=encoded, colorspace=1)
            self._add(step, tf.Summary.Value(tag=name, image=image))
        self.flush()

    def scalars(self, step, values):
        """Adds {tag: number} of a step."""
        summaries = (tf.Summary.Value(tag=tag, simple_value=v) for tag, v in values.items())
        self._add(step, *summaries)

    def flush(self):
        """Writes all events to the disk."""
        with self._disk_errors():
            self._writer.flush()

    def on_train_end(self):
        # All events up to the last checkpoint are already flushed.
        with contextlib.suppress(tf.errors.OpError):
            self._writer.close()

    def _add(self, step, *values):
        self._write(step=step, summary=tf.Summary(value=values))

    def _write(self, **content):
        with self._disk_errors():
            self._writer.write(tf.Event(wall_time=time.time(), **content).SerializeToString())

    @contextlib.contextmanager
    def _disk_errors(self):
        try:
            yield
        except tf.errors.OpError as error:
            raise RunError(
                f"cannot write {self._folder.file('events')} ({error.message}); "
                f"{self._folder.last_checkpoint()}; free some space, or use --noevents, and rerun "
                "the command"
            ) from error
