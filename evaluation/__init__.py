"""How good samples are: the judge, a frozen digit classifier, and metrics of its verdicts."""
