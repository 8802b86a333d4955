"""Hyperparameter search by Optuna: studies, trials, their processes and their reports.

Trials are judged on the validation images; nothing here opens the test images.
"""
