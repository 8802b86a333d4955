"""The verdict and the study as text, and what they advise for each task: `mtl report`.

It reads metrics/*.json alone. Nothing here is imported by a stage, so a sentence can change without a rerun.
"""
