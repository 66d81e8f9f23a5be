"""Train, evaluate, release and push a Food-101 classifier.

Data flows one way: config -> data -> transforms -> model -> trainer -> evaluation -> run folder
-> hub (release, push). `train.py` is the table of contents. Only `hub` and `cli` import
`model_card`; `inference/food_classification.py` owns decoding and preprocessing and is imported
from here, never the other way round.
"""

__version__ = "0.1.0"
