"""Grades classes that claim to be the article's Gan: `python -m grading FILE_OR_FOLDER`.

A student's code runs in a process of its own (worker.py), which measures and answers in numbers.
This process asks (model_proxy.py), judges (checks.py and the four modules of checks) and writes the
marks (marks.py); it never imports what it grades.

print(grading.mark("my_gan.py"))    # from Python: the page of feedback
"""


def mark(spec, **limits):
    """`FILE.py[:CLASS]` -> its `marks.Mark`, whose text is the page of feedback.

    limits: of `process.Limits`. UserError if the file or the class is not there.
    """
    from grading import candidate, marking, submissions
    from grading.process import Limits

    candidate.parse(str(spec))
    (submission,) = submissions.find(str(spec))
    return marking.mark(submission, Limits(**limits))
