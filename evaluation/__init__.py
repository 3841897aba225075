"""How good samples are: a frozen classifier and metrics of its predictions.

scores = evaluation.evaluate("runs/minimal")    # as `--mode=evaluate`; -> what metrics.json holds
"""

import json

import input_data
from support import terminal
from training.run import RunFolder


def evaluate(
    run_dir, *, num_samples=10_000, seed=0, dataset=None, data_dir=None, log=print, **loading
):
    """Scores a run beside real images; -> its metrics.json, {name: value}.

    Writes metrics.json and report.png into the run's folder; log: takes the table and a sentence.
    seed: of the latents. dataset, data_dir: where the run's images are; None for its own data set.
    loading: options of `generation.load`. UserError where the run or its images are not there.
    """
    folder = RunFolder(run_dir)
    configuration = folder.configuration()
    dataset = dataset or configuration.dataset
    images, info = input_data.load(dataset, data_dir)
    recipe = configuration.full_recipe()
    learnt = input_data.select(images, recipe.validation_size, recipe.digit)
    configuration.check_data(learnt.train, input_data.data_folder(dataset, data_dir))
    terminal.import_tensorflow()
    from evaluation import report

    report.evaluate(folder, images, info, num_samples, seed, log=log, **loading)
    return json.loads(folder.file("metrics.json").read_text())


def scores_every(steps, dataset=None, data_dir=None):
    """-> a callback for `training.train(extra=[...])`: scores on the way, as --eval_every."""
    real, info = standard(dataset, data_dir)
    from evaluation.monitor import Monitor

    return lambda run: Monitor(run, steps, real, info)


def standard(dataset=None, data_dir=None):
    """-> what samples are compared with, a `reference.Standard`, and the DataSetInfo."""
    images, info = input_data.load(dataset, data_dir)
    terminal.import_tensorflow()
    from evaluation import reference

    return reference.of(images, info), info
