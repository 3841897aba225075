"""Grades a class that claims to be the article's Gan: `python -m pytest tests/grading --gan=F:C`."""
