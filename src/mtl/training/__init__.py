"""Fitting of networks: loop, optimizers, losses, checkpoints, and the hardware it runs on.

What is here can change the weights of a model; boards, tracking and plots of a run are elsewhere.
"""
