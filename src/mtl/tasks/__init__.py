"""The parts of a task: groups of the data set's classes, its targets and its two figures, loss and accuracy.

Pure functions of arrays and names; nothing here touches a file or TensorFlow.
"""
