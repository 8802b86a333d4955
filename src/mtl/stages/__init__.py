"""The stages of the DAG as functions: each reads its inputs, calls the rooms below and writes its outputs.

`src/<stage>.py` are their entries; `mtl train` calls them too. No computation of its own belongs here.
"""
