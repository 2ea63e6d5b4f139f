"""Schedules as they were found in public code, in our own lines; one of them is right, and its report is wrong."""

import math


class FallingAsFound:
    """From `start` to `end` in a straight line over the epochs."""

    def __init__(self, start, end, epochs):
        self.start = start
        self.epochs = epochs

    def __call__(self, epoch):
        return self.start + (self.end - self.start) * epoch / self.epochs


class FallingMended:
    """From `start` to `end` in a straight line over the epochs."""

    def __init__(self, start, end, epochs):
        self.start, self.end = start, end
        self.epochs = epochs

    def __call__(self, epoch):
        return self.start + (self.end - self.start) * epoch / self.epochs


class CosineDecay:
    """The weight of the reversed gradient; the paper lets it go from 0 to -1 in ten epochs."""

    def __init__(self, max_value=0.0, min_value=-1.0, epochs=10):
        self.max_value, self.min_value, self.epochs = max_value, min_value, epochs

    def __call__(self, epoch):
        share = min(epoch, self.epochs) / self.epochs
        return self.min_value + (self.max_value - self.min_value) * (1 + math.cos(math.pi * share)) / 2
