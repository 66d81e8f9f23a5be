"""Features that act while a network is trained, a file each: none knows the trainer or another one.

`training.engine.extension` says what such a feature may do, `training.engine.wiring` lists those that there are.
"""
