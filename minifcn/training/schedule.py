"""The learning rate over time, as a factor on the base rate. Iterations count from 0."""


def constant(iteration, iterations):
    """Always 1: what the published solver does."""
    return 1.0


def poly(iteration, iterations, power=0.9):
    """(1 − iteration/iterations)^power: down to zero, almost along a line. Chen et al., DeepLab, 2017."""
    return (1 - iteration / iterations) ** power


def step(iteration, iterations, gamma=0.1, every=1 / 3):
    """gamma^⌊iteration / (every · iterations)⌋: a tenth after each third of the way."""
    return gamma ** int(iteration / (every * iterations))


SCHEDULES = {"constant": constant, "poly": poly, "step": step}
