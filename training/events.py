"""TensorBoard events of a run: `tensorboard --logdir=runs`. Writing them needs no extra package."""

import tensorflow.compat.v1 as tf

from training.readers import Reader

# A scalar for each step would make the files larger than the checkpoints.
_SCALARS_EVERY = 100
_PICTURES = ("samples", "latent_grid")


class Events(Reader):
    """Both losses every 100 steps; at the end the run's pictures."""

    def __init__(self, folder):
        self._folder = folder
        self._writer = None

    def open(self, step):
        self._writer = tf.summary.FileWriter(str(self._folder.file("events")), max_queue=1000)
        # What a run that was killed had written beyond this step is void.
        started = tf.SessionLog(status=tf.SessionLog.START)
        self._writer.add_session_log(started, step + 1)

    def see(self, block):
        for progress in block:
            if progress.step % _SCALARS_EVERY == 0:
                values = {"loss/discriminator": progress.d_loss, "loss/generator": progress.g_loss}
                self.scalars(progress.step, values)

    def act(self, step):
        for name in _PICTURES:
            encoded = self._folder.file(f"{name}.png").read_bytes()
            image = tf.Summary.Image(encoded_image_string=encoded, colorspace=1)
            self._add(step, tf.Summary.Value(tag=name, image=image))
        self.flush()

    def scalars(self, step, values):
        """Adds {tag: number} as of a step."""
        self._add(
            step,
            *(tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()),
        )

    def flush(self):
        self._writer.flush()

    def close(self):
        self._writer.close()

    def _add(self, step, *values):
        self._writer.add_summary(tf.Summary(value=values), step)
