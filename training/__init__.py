"""Train, evaluate, release and push a Food-101 classifier.

`train.py` is the table of contents of a run. The rooms and who imports whom are in
docs/architecture.md: data and model below, then input, evaluation, engine and probe, then config,
run, hub and compare; cli on top. Nothing here is imported by `inference` (what is uploaded) or
`model_card`.
"""

__version__ = "0.1.0"
