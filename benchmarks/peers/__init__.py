"""One outer step of meta-training in several frameworks, each written as its users would write it.

`meta_step.py` calls `python -m peers`, which measures one method in a process of its own. A module is one framework.
Its function `prepare` takes the options of a method and returns a `Run`: a function that takes outer steps until the
`Clock` has enough of them, and returns their mean task loss. Only `ours.py` imports TensorFlow, so that the peers may
live in a Python without it.
"""
