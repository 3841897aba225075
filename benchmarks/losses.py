"""Measures what keeps article 003's networks from collapsing.

python -m benchmarks.losses                 each set of [losses] in tables.ini, with three seeds
python -m benchmarks.losses --steps=5000    shorter
"""

from benchmarks import quality

if __name__ == "__main__":
    quality.main(module="losses", description=__doc__, table="losses", steps=20_000)
