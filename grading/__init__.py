"""Marks classes that claim to be article 003's Gan.

`python -m grading FILE_OR_FOLDER` is the command.

How one submission is marked:

1. submissions.py finds the file that has the class, in a file, folder, .zip or notebook.
2. process.py starts a child process for it, with limits of time and memory. worker.py is the
   child's program: it runs the class and answers questions with measurements (measurements.py).
3. checks.py asks all checks of structure.py, losses.py, networks.py and updates.py, in this
   process, which never imports the class. A check sees the class as a ModelProxy.
4. marks.py writes the verdicts: a table, a CSV file, and a page for each student.
"""

NETWORKS = ("generator", "discriminator")


def mark(spec, **limits):
    """Marks one file: `print(grading.mark("my_gan.py"))` shows the page of feedback.

    Args:
      spec: `FILE.py[:CLASS]`; the class is Gan if none is given.
      **limits: `check_seconds` and `memory_gb`, see `process.Process`.

    Returns:
      A `marks.Mark`.

    Raises:
      UserError: If the file is missing.
    """
    from grading import marks, submissions
    from grading.process import Process

    return marks.mark(submissions.find_one(str(spec)), Process(**limits))
