"""Grades any class that claims to be the article's Gan: `python -m pytest tests/grading`."""
