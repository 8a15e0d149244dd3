"""Checks the answers to the lessons' exercises. It knows how to tell a right one from a wrong one, and gives nothing away.

A checker is `@exercise("lesson.number")` over a function of the answer that returns None for a right one, or what to
think about. Answers are numbers, short strings, arrays or functions, as the exercise says.
"""

import numpy as np

CHECKERS = {}


def exercise(name):
    """Register the checker of an exercise."""

    def register(checker):
        CHECKERS[name] = checker
        return checker

    return register


def check(name, answer):
    """Print whether an answer is right, and if not, a hint. -> True, False, or None for one that is still `...`"""
    if answer is ...:
        print(f"Exercise {name}: put your answer in place of the dots.")
        return None
    try:
        hint = CHECKERS[name](answer)
    except Exception as error:  # whatever the reader's own code may raise
        hint = f"it stopped with {type(error).__name__}: {error}"
    print(f"Exercise {name}: {'right.' if hint is None else f'not yet: {hint}'}")
    return hint is None


def _near(answer, value, hint, relative=1e-6):
    """None for a number near enough to `value`, else the hint."""
    return None if abs(float(answer) - value) <= relative * abs(value) + 1e-12 else hint


# ---- 01 label every pixel


@exercise("01.1")
def _(answer):
    labels = np.array([[1, 1, 255], [0, 1, 0]], np.uint8)
    predictions = np.array([[1, 0, 1], [1, 1, 0]], np.uint8)
    if abs(answer(labels, predictions, 1) - 2 / 4) > 1e-9:
        return "of the pixels that are not void, count those that are the class in both, then those that are it in either."
    if not np.isnan(answer(labels, predictions, 7)):
        return "for a class that is in neither of the two there is no IoU; return float('nan')."
    return None


@exercise("01.2")
def _(answer):
    return _near(
        answer,
        (80 / 85 + 5 / 15 + 5 / 10) / 3,
        "for each class, divide its number on the diagonal by (row + column - diagonal); then take the mean of the three.",
        relative=5e-3,
    )


@exercise("01.3")
def _(answer):
    colours = {
        (0, 0, 0): 0,
        (128, 0, 0): 1,
        (64, 0, 0): 8,
        (192, 128, 128): 15,
        (224, 224, 192): 255,
    }
    for colour, number in colours.items():
        if int(answer(colour)) != number:
            return f"{colour} stands for {number}. Which bit of which channel holds each bit of the number?"
    return None
