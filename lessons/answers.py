"""Checks the answers to the lessons' exercises, and shows a worked solution to those who have tried.

A checker is `@exercise("lesson.number")` over a function of the answer that returns None for a right one, or what to
think about. Answers are numbers, short strings, arrays or functions, as the exercise says. The checker's docstring is the
worked solution in Markdown. Its code, fenced as ```py, leaves the answer in `answer`; the tests run it.
"""

import contextlib
import dataclasses
import inspect
import itertools
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from minifcn import backend, gradcheck, layers, models, ops
from minifcn.backend import to_device, to_host
from minifcn.testing import strict
from minifcn.training import loop
from minifcn.training.optimizers import SGD

CHECKERS = {}
TRIES = Path(__file__).parent / "output" / "tries.txt"  # a line for each try
ENOUGH = 2


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
    TRIES.parent.mkdir(exist_ok=True)
    with TRIES.open("a") as file:  # a right answer opens the solution at once
        file.write(f"{name}\n" * (ENOUGH if hint is None else 1))
    return hint is None


def reveal(name):
    """Print the worked solution of an exercise, after two tries."""
    tries = TRIES.read_text().split().count(name) if TRIES.exists() else 0
    if tries < ENOUGH:
        print(
            f"Exercise {name}: the solution opens after {ENOUGH} tries; so far {tries}."
        )
    else:
        print(inspect.cleandoc(CHECKERS[name].__doc__))


def _near(answer, value, hint, relative=1e-6):
    """None for a number near enough to `value`, else the hint."""
    if isinstance(answer, str):
        answer = answer.replace(",", "")  # "1,024", as the lessons print it
    return None if abs(float(answer) - value) <= relative * abs(value) + 1e-12 else hint


def _share(answer):
    """A share, which may be given in percent, as the lessons print it."""
    return float(answer) / (100 if float(answer) > 1.5 else 1)


# ---- 01 label every pixel


@exercise("01.1")
def _(answer):
    """Leave out the void pixels first. Then count what is in both, and what is in either.

    ```py
    def answer(labels, predictions, c):
        counted = labels != 255
        true, predicted = (labels == c) & counted, (predictions == c) & counted
        union = np.sum(true | predicted)
        return np.sum(true & predicted) / union if union else float("nan")
    ```
    """
    labels = np.array([[1, 1, 255], [0, 1, 0]], np.uint8)
    predictions = np.array([[1, 0, 1], [1, 1, 0]], np.uint8)
    if abs(answer(labels, predictions, 1) - 2 / 4) > 1e-9:
        return "of the pixels that are not void, count those that are the class in both, then those that are it in either."
    predictions[0, 2] = 5  # on a void pixel only
    if not all(np.isnan(answer(labels, predictions, c)) for c in (5, 7)):
        return "for a class that no pixel that counts has, there is no IoU; return float('nan')."
    labels[1, 0], predictions[1, 1] = 3, 2  # one class is missed, one invented
    if any(answer(labels, predictions, c) != 0 for c in (2, 3)):
        return "a class that only the truth has, or only the prediction, has the IoU 0."
    return None


@exercise("01.2")
def _(answer):
    """It rises by less than a point. A mean colour of the surroundings is still one colour: two coats of like mean colour
    look alike, whatever their patterns. And near an outline the mean mixes two classes.

    ```py
    from minifcn import ops
    from minifcn.data.toyvoc import draw_scene
    from minifcn.metrics import ConfusionMatrix

    def smooth(image):  # (H, W, 3) -> (H, W, 3)
        x = image.transpose(2, 0, 1)[None].astype(np.float32)
        y, _ = ops.avg_pool2d_forward(x, 9, stride=1, pad=4, count_include_pad=False)
        return y[0].transpose(1, 2, 0)

    def scenes(seed, count):
        return [draw_scene(np.random.default_rng([seed, i]), 128) for i in range(count)]

    known = [(smooth(image).reshape(-1, 3), t.reshape(-1)) for image, t in scenes(1, 40)]
    pixels, truths = (np.concatenate(arrays) for arrays in zip(*known, strict=True))
    means = np.stack([pixels[truths == c].mean(axis=0) for c in range(6)])
    matrix = ConfusionMatrix(6)
    for image, t in scenes(2, 50):
        distance = ((smooth(image)[:, :, None] - means) ** 2).sum(axis=3)  # (H, W, C)
        matrix.update(t, distance.argmin(axis=2).astype(np.uint8))
    answer = matrix.mean_iou()
    ```
    """
    hint = "smooth the 40 scenes, take the classes' mean colours anew, then smooth the 50 and predict. Count over all 50."
    return _near(_share(answer), 0.2293, hint, relative=5e-3)


@exercise("01.3")
def _(answer):
    """`colour_of` put bit number `bit` into channel `bit % 3`, at place `7 - bit // 3`. Take it out from there.

    ```py
    def answer(colour):
        return sum((colour[bit % 3] >> (7 - bit // 3) & 1) << bit for bit in range(8))
    ```
    """
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


# ---- 02 lose the where


@exercise("02.1")
def _(answer):
    """Flattened, 512 · 7 · 7 numbers go in; averaged, 512. Each has a weight for each of the 1000 classes.

    ```py
    answer = 512 * 7 * 7 * 1000 - 512 * 1000
    ```
    """
    hint = "how many numbers go into each of the two layers? Every one of them has a weight for each of the 1000 classes."
    return _near(answer, 512 * 7 * 7 * 1000 - 512 * 1000, hint)


@exercise("02.2")
def _(answer):
    """The last window may begin `height - side` pixels from the first. Count its steps, and the first one.

    ```py
    def answer(height, width, side, step):
        return ((height - side) // step + 1) * ((width - side) // step + 1)
    ```
    """
    for case in ((128, 100, 32, 8), (50, 33, 32, 5), (32, 32, 32, 16)):
        height, width, side, step = case
        tops, lefts = (range(0, n - side + 1, step) for n in (height, width))
        if float(answer(*case)) != len(tops) * len(lefts):
            return f"for {case} it is {len(tops) * len(lefts)}. Where may the upper left corner of the last window be?"
    return None


@exercise("02.3")
def _(answer):
    """The middle, a quarter of the pixels, leaves more answers right than the other three quarters: the flat head has
    learned which places lie in the middle. The average head cannot know. Ask it, and the rim wins.

    ```py
    middle = np.zeros((32, 32), np.float32)
    middle[8:24, 8:24] = 1
    answer = tuple(
        np.mean(flat.forward(features.forward(x_test * mask)).argmax(axis=1) == t_test)
        for mask in (middle, 1 - middle)
    )
    ```
    """
    middle, rim = map(_share, answer)
    if abs(middle - 0.597) > 0.05:
        return "the first is the share of right answers where only x_test[:, :, 8:24, 8:24] is left."
    if abs(rim - 0.514) > 0.05:
        return "the second is what is left where x_test[:, :, 8:24, 8:24] is set to 0."
    return None


# ---- 03 convolve forward and back


@exercise("03.1")
def _(answer):
    """Ho = ⌊(H + 2p − k) / s⌋ + 1.

    ```py
    answer = (500 + 2 * 100 - 11) // 4 + 1
    ```
    """
    hint = "the pad is on both sides, and the kernel must fit as a whole at its last place. Round down, then count the first."
    return _near(answer, (500 + 2 * 100 - 11) // 4 + 1, hint)


@exercise("03.2")
def _(answer):
    """The forward's loops, with the roles exchanged: each x collects dy times the w that it met.

    ```py
    def answer(dy, w, s, size):
        dx = np.zeros(size)
        for i in range(len(dy)):
            for u in range(len(w)):
                dx[i * s + u] += w[u] * dy[i]
        return dx
    ```
    """
    dy, w = np.array([1.0, -2, 3]), np.array([5.0, 7, 11, 2])
    for s, size in ((2, 9), (3, 10), (1, 6)):
        dx = np.asarray(answer(dy, w, s, size), float)
        if dx.shape != (size,):
            return f"dx has the shape of x, ({size},) here; got {dx.shape}."
        for i in range(size):
            x = (np.arange(size) == i).astype(float)  # what one pixel adds to the loss
            share = sum(dy[j] * (w @ x[j * s : j * s + 4]) for j in range(3))
            if abs(share - dx[i]) > 1e-9:
                return "walk the forward's loops over i and u: each x collects dy times the w that it met."
    return None


@exercise("03.3")
def _(answer):
    """No. All rows of this picture are alike, so all rows of the kernel meet the same pixels and collect the same shares. The
    three rows stay equal, and each gets a third of Sobel's −4, 0, 4. The data do not tell such kernels apart, and a
    gradient cannot know what the data do not tell.

    ```py
    from minifcn import ops
    sobel = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    picture = np.tile(np.sin(np.arange(60.0)), (60, 1))[None, None]
    wanted, _ = ops.conv2d_forward(picture, sobel[None, None])
    learned = np.zeros((1, 1, 3, 3))
    for step in range(500):
        y, cache = ops.conv2d_forward(picture, learned)
        _, dw, _ = ops.conv2d_backward((y - wanted) / y.size, cache)
        learned -= 0.2 * dw
    answer = learned[0, 0, 1]
    ```
    """
    row = np.asarray(answer, float)
    if row.shape != (3,):
        return f"three numbers, learned[0, 0, 1]; got shape {row.shape}."
    if np.abs(row - [-4 / 3, 0, 4 / 3]).max() > 0.02:
        return "begin with zeros, and make `wanted` anew from the new picture."
    return None


# ---- 04 turn fc into conv


@exercise("04.1")
def _(answer):
    """Less often: 77 % instead of 83 %, where all background gives 69 %. The kernels behind a pooling were trained on what it
    gives, patterns seen from twice as far. Without it they see the same patterns twice as large, and a tenth of the window's pixels.
    A map does not become finer by leaving something out (lesson 13 shows what else has to change).

    ```py
    chain = {n: layer for n, layer in heat.children().items() if n not in ("pool1", "pool2")}
    x_fine, t_fine = scenes(2, 40, first=6, step=2)
    best = models.Sequential(**chain).forward(x_fine.astype(float)).argmax(axis=1)
    answer = np.mean((best == t_fine)[t_fine != 255])
    ```
    """
    hint = "models.Sequential(**chain), as in the surgery; then compare the highest score of each place with its class, unless that is void."
    return None if abs(_share(answer) - 0.770) < 0.03 else hint


@exercise("04.2")
def _(answer):
    """Undo the flattening in its own order, then move the channels.

    ```py
    def answer(W, h, w):
        return W.reshape(len(W), h, w, -1).transpose(0, 3, 1, 2)
    ```
    """
    maps = np.random.default_rng(0).standard_normal((2, 4, 3))  # (h, w, C)
    W = np.arange(5 * maps.size, dtype=float).reshape(5, -1)
    kernel = np.asarray(answer(W, 2, 4))
    if kernel.shape != (5, 3, 2, 4):
        return f"for W {W.shape}, h = 2 and w = 4 the kernel is (5, 3, 2, 4); it returned {kernel.shape}."
    if not np.allclose(
        (kernel * maps.transpose(2, 0, 1)).sum(axis=(1, 2, 3)), W @ maps.reshape(-1)
    ):
        return "the shape is right, the order is not. In which order do the numbers lie in a row of W?"
    return None


@exercise("04.3")
def _(answer):
    """It finds them nearly as well. The shapes of the training scenes, and with them the coats, come in sizes that differ by
    a factor of two, so most coats twice as large were seen before. A convolution knows nothing of size; the examples did.

    ```py
    counts = np.zeros((2, 2))
    for i in range(20):
        image, label = draw_scene(np.random.default_rng([5, i]), 128)
        scene = image.transpose(2, 0, 1)[None] / 127.5 - 1
        for row, x in enumerate((scene, scene.repeat(2, axis=2).repeat(2, axis=3))):
            best = heat.forward(x)[0].argmax(axis=0)
            r, c = ((8 * np.arange(n) + 19) // (row + 1) for n in best.shape)
            t = label[np.ix_(r, c)]
            counts[row] += np.sum((best == t) & (t != 255)), np.sum(t != 255)
    answer = tuple(counts[:, 0] / counts[:, 1])
    ```
    """
    usual, twice = map(_share, answer)
    if abs(usual - 0.784) > 0.03:
        return (
            "for the usual size, compare the place (i, j) with label[8i + 19, 8j + 19]."
        )
    if abs(twice - 0.770) > 0.03:
        return "the pixel (8i + 19, 8j + 19) of the enlarged scene is half that in the label."
    return None


# ---- 05 upsample


@exercise("05.1")
def _(answer):
    """The stamps are two columns wide and lie two apart, so across they do not overlap. Down they are three, and do: in the
    middle row, where each column hears from two of them.

    ```py
    x, stamp = np.array([[1, 0], [0, 2]]), np.ones((3, 2))
    answer = np.zeros((5, 4))
    for i, j in np.ndindex(2, 2):
        answer[2 * i : 2 * i + 3, 2 * j : 2 * j + 2] += x[i, j] * stamp
    ```
    """
    y = np.asarray(answer, float)
    if y.shape != (5, 4):
        return f"the last stamp begins at row 2 and column 2, so the result is 5 × 4; got shape {y.shape}."
    wanted = np.zeros((5, 4))
    wanted[:3, :2], wanted[2:, 2:] = 1, 2
    hint = "press each stamp down at (2i, 2j), times its value, and add up."
    return None if np.allclose(y, wanted) else hint


@exercise("05.2")
def _(answer):
    """It is not. ×2 puts 0.75 on both sides of the peak, and what was between them does not come back: the peak stays at 0.75,
    where ×32 reaches 0.98.

    ```py
    def tent(k):
        return 1 - np.abs(np.arange(k) - (k / 2 - 0.5)) / (k / 2)

    def enlarge(x, s):
        y = np.zeros((len(x) + 1) * s)
        for i, value in enumerate(x):
            y[i * s : (i + 2) * s] += value * tent(2 * s)
        return y[s // 2 : -s // 2]

    x = np.eye(9)[4]
    once, thrice = enlarge(x, 32), enlarge(enlarge(enlarge(x, 2), 2), 8)
    answer = np.abs(once - thrice).max()
    ```
    """
    hint = "each enlargement has k = 2s and cuts s/2 off both ends, so that the results have 9 · 32 values each."
    return _near(answer, 0.234375, hint, relative=5e-3)


@exercise("05.3")
def _(answer):
    """A fine pixel is reached by the taps of one phase. A flat map stays flat if all phases have the same sum.

    ```py
    def answer(kernel, s):
        sums = [np.sum(kernel[phase::s]) for phase in range(s)]
        return bool(np.allclose(sums, sums[0]))
    ```
    """
    cases = "1331/2 111/2 121/2 3111/2 12321/3 1111/3 123321/2 1302/4 2310/2"
    for case in cases.split():
        kernel, s = [int(tap) for tap in case[:-2]], int(case[-1])
        sums = [sum(kernel[phase::s]) for phase in range(s)]
        if bool(answer(np.array(kernel, float), s)) != (max(sums) - min(sums) < 1e-9):
            return f"it is wrong for the kernel {kernel} at stride {s}. What do the taps of each phase add up to?"
    return None


# ---- 06 align the grids


def _fractions(answer):
    """Numbers as floats; text is a fraction as the lesson prints it, "−1/4" with its minus sign."""
    return [
        float(Fraction(n.replace("−", "-")) if isinstance(n, str) else n)
        for n in answer
    ]


@exercise("06.1")
def _(answer):
    """The convolution: a = 1/2, b = (2 − 2)/2 = 0. The pooling: a = 1/2, b = (0 − 1/2)/2 = −1/4. One into the other.

    ```py
    (a1, b1), (a2, b2) = (1 / 2, 0), (1 / 2, -1 / 4)
    answer = a2 * a1, a2 * b1 + b2
    ```
    """
    a, b = _fractions(answer)
    if abs(a - 1 / 4) > 1e-9:
        return "a is what the scales of the two layers make together."
    return _near(b, -1 / 4, "work out (a, b) of each layer, then a2·(a1·r + b1) + b2.")


@exercise("06.2")
def _(answer):
    """Four poolings take half of 1 + 2 + 4 + 8 = 15. Three cells of fc6 are only 48 pixels, and the stamp's middle is at 15½.
    Less is taken off, so the image begins further down.

    ```py
    answer = 99 - 15 / 2 - 3 * 16 + 15.5
    ```
    """
    hint = "add the shifts in pixels of the image: conv1_1's, four poolings', three cells of fc6's, the middle of the stamp."
    return _near(answer, 59, hint)


@exercise("06.3")
def _(answer):
    """With 64 the image would begin at 18½, and half a pixel cannot be cropped. An odd kernel has its middle on a pixel.

    ```py
    alexnet = [(11, 4, 100), (3, 2, 0), (5, 1, 2), (3, 2, 0), *[(3, 1, 1)] * 3, (3, 2, 0), (6, 1, 0)]
    a, b = 1, 0
    for k, s, p in alexnet:
        a, b = a / s, (b + p - (k - 1) / 2) / s
    answer = tuple(32 * b + (k - 1) / 2 for k in (64, 63))
    ```
    """
    even, odd = _fractions(answer)
    return _near(
        even, 18.5, "go through the nine layers with `where`, then add the enlargement."
    ) or _near(odd, 18, "a kernel of 63 has its middle half a pixel before that of 64.")


# ---- 07 check the gradients


@exercise("07.1")
def _(answer):
    """The bug reads dy from behind, so any dy that is the same from both ends hides it, such as 1, 2, 3, 2, 1.

    ```py
    def answer(n):
        return np.abs(np.arange(n) - (n - 1) / 2)
    ```
    """
    for n in (5, 6):
        dy = np.asarray(answer(n), float)
        if dy.shape != (n,) or not np.ptp(dy) > 0:  # nor NaN
            return "return an array of shape (n,) that is not all the same number."
        if np.abs(dy - dy[::-1]).max() > 1e-9 * np.ptp(dy):  # rounding is allowed
            return "with this dy the two gradients differ. Which arrays are the same from both ends?"
    return None


@exercise("07.2")
def _(answer):
    """Both factors depend on x. The product rule gives s + x · s · (1 − s), and dy multiplies it.

    ```py
    def answer(dy, x):
        s = 1 / (1 + np.exp(-x))
        return dy * (s + x * s * (1 - s))
    ```
    """
    x, dy = np.linspace(-3, 3, 13), np.cos(np.arange(13.0))
    e = 1e-5
    ahead, behind = ((x + s) / (1 + np.exp(-(x + s))) for s in (e, -e))
    dx = np.asarray(answer(dy, x))
    if dx.shape != x.shape or np.abs(dx - dy * (ahead - behind) / (2 * e)).max() > 1e-6:
        return "finite differences disagree. It is a product of x and sigmoid(x): both factors depend on x."
    return None


@exercise("07.3")
def _(answer):
    """For one: a slip that reads the first image's mask for all images of the batch. With one image it is right.

    ```py
    def answer(dy, y):
        return dy * (y[:1] > 0)
    ```

    Others: a loop over range(6), or channels written out as 0 and 1.
    """
    rng = np.random.default_rng(0)

    def error(shape):
        """The relative error that the check finds on maps of a shape, infinite where the backward breaks down."""
        try:
            return gradcheck.check_op(
                ops.relu_forward, answer, [rng.normal(size=shape)], rng
            ).max_relative_error
        except Exception:
            return np.inf

    if error((1, 2, 6, 6)) > 1e-6:
        return "the check finds it, on one image of 2 channels and 6 × 6 pixels."
    others = (2, 2, 6, 6), (1, 2, 5, 7), (1, 2, 7, 5), (1, 3, 6, 6), (1, 2, 16, 16)
    if max(map(error, others)) < 1e-3:
        return "it is right for two images, for 5 × 7, 7 × 5 and 16 × 16 pixels and for three channels. Where is the bug?"
    return None


# ---- 08 normalise and optimise


@exercise("08.1")
def _(answer):
    """After n batches 0.9ⁿ of the start is left. It is below 0.01 where n > ln 0.01 / ln 0.9 = 43.7.

    ```py
    answer = int(np.ceil(np.log(0.01) / np.log(0.9)))
    ```
    """
    hint = "each batch multiplies what is left of the start by 0.9. How many times until it is below 0.01?"
    return _near(answer, 44, hint)


@exercise("08.2")
def _(answer):
    """The normalisation divides the tenfold values by a tenfold σ, so the loss does not change. A tenfold weight must then
    move ten times as far for the same change of the loss: the gradient is a tenth.

    ```py
    answer = 1 / 10
    ```
    """
    hint = "the loss is the same as before. By how much does it change if a weight moves by 1 now?"
    return _near(answer, 0.1, hint, relative=5e-2)  # ε counts a little


@exercise("08.3")
def _(answer):
    """The same three ways, with the means over H and W of each map alone.

    ```py
    def forward(x):
        deviation = np.sqrt(x.var(axis=(2, 3), keepdims=True) + 1e-5)
        z = (x - x.mean(axis=(2, 3), keepdims=True)) / deviation
        return z, (z, deviation)

    def backward(dy, cache):
        z, deviation = cache
        along = z * (dy * z).mean(axis=(2, 3), keepdims=True)
        return (dy - dy.mean(axis=(2, 3), keepdims=True) - along) / deviation

    answer = forward, backward
    ```
    """
    forward, backward = answer
    rng = np.random.default_rng(0)
    for shape in ((2, 3, 4, 5), (1, 2, 3, 3)):
        x = rng.normal(1, 3, shape)
        mean, var = (
            x.mean(axis=(2, 3), keepdims=True),
            x.var(axis=(2, 3), keepdims=True),
        )
        y, _ = forward(x)
        if (
            y.shape != shape
            or np.abs(y - (x - mean) / np.sqrt(var + 1e-5)).max() > 1e-9
        ):
            return "forward: each map of each image gets a mean and a variance of its own, over its pixels."
        report = gradcheck.check_op(forward, backward, [x], rng)
        if report.max_relative_error > 1e-6:
            return f"the check finds an error of {report.max_relative_error:.0e} for x {shape}. There are three ways from x to z."
    return None


# ---- 09 build FCN-32s


@exercise("09.1")
def _(answer):
    """300 + 2 · 100 − 2 = 498 rows after the first 3×3, which takes one from each side of the frame. Halved five times with
    rounding up, that is 498 / 32 = 15.6, so 16. fc6 leaves 16 − 6 = 10. For 400: 598, 19, 13.

    ```py
    answer = tuple(-(-(n + 200 - 2) // 32) - 6 for n in (300, 400))
    ```
    """
    if tuple(float(n) for n in answer) != (10, 13):
        return "each side plus the frame, halved five times with rounding up, less what fc6's seven cells need; rows first."
    return None


@exercise("09.2")
def _(answer):
    """A 7×7 kernel looks 6 cells further than a 1×1, and a cell is 32 pixels: 192. It has 49 numbers for each of 64 · 64
    pairs of channels in place of one.

    ```py
    answer = 6 * 32, 48 * 64 * 64
    ```
    """
    pixels, numbers = answer
    return _near(
        pixels,
        192,
        "pixels: how many cells further does a 7×7 kernel look than a 1×1, and how far apart are cells?",
    ) or _near(
        numbers,
        48 * 64 * 64,
        "numbers: a kernel has a number for each of its taps, from each of 64 channels to each of 64.",
    )


@exercise("09.3")
def _(answer):
    """Each weight meets x[d] at every place of every image. What comes back from all of them adds up.

    ```py
    def answer(dscores, x):
        return np.einsum("nchw,ndhw->cd", dscores, x), dscores.sum(axis=(0, 2, 3))
    ```
    """
    rng = np.random.default_rng(0)
    dscores, x = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 6, 4, 5))
    dw, db = (np.asarray(array) for array in answer(dscores, x))
    if dw.shape != (3, 6) or db.shape != (3,):
        return f"expected shapes (C, D) and (C,), got {dw.shape} and {db.shape}."
    if not np.allclose(db, dscores.sum(axis=(0, 2, 3))):
        return "db: the bias is added at every place of every image."
    if not np.allclose(dw, np.tensordot(dscores, x, axes=((0, 2, 3), (0, 2, 3)))):
        return "dw: each weight multiplies x[d] at every place of every image; what comes back from all of them adds up."
    return None


# ---- 10 add the skips


@exercise("10.1")
def _(answer):
    """Field and step: 1, 1; convolution 3, 1; convolution 5, 1; pooling 6, 2; convolution 6 + 2 · 2 = 10, 2; pooling 12, 4.

    ```py
    answer = 1 + 2 + 2 + 1 + 2 * 2 + 1 * 2
    ```
    """
    hint = "begin with field 1 and step 1. A pooling by 2 has a kernel too, and doubles the step only after it has counted."
    return _near(answer, 12, hint)


@exercise("10.2")
def _(answer):
    """Each class takes its own score from both stacks, and nothing else: two unit matrices side by side.

    ```py
    def answer(C):
        return np.concatenate([np.eye(C), np.eye(C)], axis=1)[:, :, None, None]
    ```
    """
    for count in (2, 5):
        coarse, skip = np.random.default_rng(0).normal(size=(2, 1, count, 3, 4))
        w = np.asarray(answer(count), float)
        if w.shape != (count, 2 * count, 1, 1):
            return f"for {count} classes the weights have the shape {(count, 2 * count, 1, 1)}; got {w.shape}."
        joined, _ = ops.conv2d_forward(np.concatenate([coarse, skip], axis=1), w)
        if np.abs(joined - coarse - skip).max() > 1e-9:
            return "class c of the sum is the coarse score of c plus the skip's score of c. Which two weights are 1?"
    return None


@exercise("10.3")
def _(answer):
    """The last two rows of the table go; in their place come an enlargement, a score, a sum, an enlargement, the crop.
    It gains nothing here: from the same weights, with seeds 0 and 1 of `fit`, a mean IoU of 97.8 and 96.8, and FCN-8s
    97.1 and 97.0. The article stopped at FCN-8s, too, as the returns diminished.

    ```py
    from minifcn import layers, models

    def answer(C):
        net = models.fcn("8s", "mini", C, alignment="same", width=8)
        table = dict(net.nodes)
        del table["upscore8"]
        crop, _ = table.pop("crop")
        rng = np.random.default_rng(0)
        table["upscore_pool3"] = layers.Upsample(2, kernel=4, pad=1), ["fuse_pool3"]
        table["score_pool2"] = layers.Conv2d(16, C, 1, rng, zero=True), ["vgg.pool2"]
        table["fuse_pool2"] = layers.Add(), ["upscore_pool3", "score_pool2"]
        table["upscore4"] = layers.Upsample(4, kernel=8, pad=2), ["fuse_pool2"]
        table["crop"] = crop, ["upscore4", "image"]
        return models.Graph(table, card=net.card)
    ```
    """
    network, eight = answer(3), models.fcn("8s", "mini", 3, alignment="same", width=8)
    x = to_device(
        np.random.default_rng(0).normal(size=(1, 3, 40, 56)).astype(np.float32)
    )
    logits = network.forward(x)
    if logits.shape != (1, 3, 40, 56):
        return f"for an image of 40 × 56 and 3 classes it returned {logits.shape}."
    if float(abs(logits).max()) > 0:
        return "its score layers should start at zero, the new one too."
    new = {
        n: p
        for n, p in network.parameters().items()
        if n not in eight.parameters() and not p.frozen
    }
    if sum(p.value.size for p in new.values()) != 16 * 3 + 3:
        return "only a score layer is new: one weight for each of 16 channels and each class, and the biases."
    kernels = [up.kernel[0] for up in network.layers_of(layers.Upsample)]
    if sorted(kernels) != [4, 4, 4, 8]:
        return f"enlarge with kernels of 4, and of 8 at the end; its kernels are {kernels}."
    learned = {n: p for n, p in network.parameters().items() if not p.frozen}
    biases = [(n, p) for n, p in learned.items() if p.value.shape == (3,)]
    if len(biases) != 4:
        return "FCN-4s has four score layers: the three of FCN-8s, and one on pool2."
    for name, p in biases:  # each in turn is the only one that speaks
        p.value = p.value + 1
        heard = to_host(network.forward(x)).any()
        p.value = p.value - 1
        if not heard:
            return f"{name} says something now, and nothing of it arrives at the end."
    return None


# ---- 11 train on a tiny VOC


@exercise("11.1")
def _(answer):
    """The mean's gradient is the sum's divided by 320 · 320, so the rate is larger by that. Momentum 0.9 lets each gradient act
    1 / (1 − 0.9) = 10 times, so the rate is smaller by that.

    ```py
    answer = 2e-8 * 320 * 320 * (1 - 0.9)
    ```
    """
    hint = "the mean's gradient is the sum's divided by the number of pixels. And how often does momentum let a gradient act?"
    return _near(answer, 2e-8 * 320 * 320 / 10, hint, relative=3e-2)


@exercise("11.2")
def _(answer):
    """The gradient is 30 times as large, and what a step of the weights does to the score is, too: 900 in all.

    ```py
    answer = 0.03 / 30**2
    ```
    """
    hint = "the size counts twice: in the gradient, and in what a step does."
    return _near(answer, 0.03 / 900, hint, relative=3e-2)


@exercise("11.3")
def _(answer):
    """s² each: 10² for pool4, 100² for pool3. The biases are not multiplied by the maps and stay. But for weight decay the
    loud network then does, step for step, what the quiet one does: s · w of one is w of the other.

    ```py
    def answer(network):
        parameters = network.parameters()
        parameters["score_pool4.weight"].lr_mult = 1 / 10**2
        parameters["score_pool3.weight"].lr_mult = 1 / 100**2
    ```
    """
    rng = np.random.default_rng(0)
    images, labels = (
        rng.normal(size=(2, 3, 32, 32)).astype(np.float32),
        rng.integers(0, 3, (2, 32, 32)).astype(np.uint8),
    )
    said = []
    for factors in ((10, 100), (1, 1)):
        network = models.fcn(
            "8s", "mini", 3, alignment="same", at_once=True, width=2
        ).astype(np.float64)
        for name, factor in zip(("scale_pool4", "scale_pool3"), factors, strict=True):
            network[name].factor = factor
        for layer in network.layers_of(layers.Dropout):
            layer.p = 0.0
        if factors[0] > 1:
            answer(network)
            if network["scale_pool4"].factor * network["scale_pool3"].factor != 1000:
                return "leave the network as loud as it is, and set `lr_mult` only."
        sgd = SGD(network.parameters(), momentum=0.9)
        for _ in range(3):
            loop.update(network, images.astype(np.float64), labels, sgd, 0.05)
        said.append(
            to_host(network.forward(to_device(images.astype(np.float64)), train=True))
        )
    if not np.allclose(*said, rtol=1e-4, atol=1e-6):
        return "after three steps the loud network says something else than the quiet one. By how much is a loud skip too fast? And is a bias multiplied by the maps?"
    return None


# ---- 12 build U-Net


@exercise("12.1")
def _(answer):
    """128 maps go in, 64 come out, and each pair has 3 · 3 weights.

    ```py
    answer = 3 * 3 * (64 + 64) * 64
    ```
    """
    hint = "how many maps does it read, and how many weights has it for each of them?"
    return _near(answer, 3 * 3 * 128 * 64, hint)


@exercise("12.2")
def _(answer):
    """Take the slices of the channels. What was cropped away met nothing: zeros.

    ```py
    def answer(dy, shape, r):
        da = np.zeros(shape)
        h, w = dy.shape[2:]
        da[:, :, r : r + h, r : r + w] = dy[:, : shape[1]]
        return da, dy[:, shape[1] :]
    ```
    """
    rng = np.random.default_rng(0)
    a, dy = rng.normal(size=(2, 3, 9, 8)), rng.normal(size=(2, 5, 5, 4))
    da, db = (np.asarray(array) for array in answer(dy, a.shape, 2))
    if da.shape != a.shape or db.shape != (2, 2, 5, 4):
        return f"da has the shape of a, {a.shape}, and db (2, 2, 5, 4); got {da.shape} and {db.shape}."
    if not np.array_equal(db, dy[:, 3:]):
        return "db: b lies behind a's channels."
    inside = da[:, :, 2:7, 2:6]
    if np.array_equal(inside, dy[:, :3]) and np.isclose(
        np.abs(da).sum(), np.abs(inside).sum()
    ):
        return None
    return "da: dy in the place of the crop, and zero where nothing was read."


@exercise("12.3")
def _(answer):
    """From start 0 as many cells as with the skips, 98 %, but fewer pixels: 89 or 90 % for 92. The stamps of `up1` and `up0` are
    learned, and 24 maps of a quarter's size can hold much of what 4 × 4 pixels need to know. From start 1 more is lost:
    63 to 79 % of the cells for 92, by the draw of the two new layers. After five halvings nothing fine would be left.

    ```py
    rng = np.random.default_rng(9)
    table = {name: (node.layer, node.inputs) for name, node in unet(0).nodes.items() if "concat" not in name}
    for up, K in (("1", 12), ("0", 6)):
        table[f"after{up}.conv1"] = layers.Conv2d(K, K, 3, rng, pad=1, bias=False), [f"up{up}"]
    cut = train(0, True, models.Graph(table))
    predicted = to_host(cut.forward(to_device(x_new))).argmax(axis=1)
    answer = cells_found(predicted, numbers_new), np.mean(predicted == t_new)
    ```
    """
    cells, pixels = map(_share, answer)
    if abs(cells - 0.98) > 0.03 or abs(pixels - 0.896) > 0.014:
        return "build the table of `unet(0)` anew without its concatenations, and give `train` the network; it takes its steps as before."
    return None


# ---- 13 see further without pooling


@exercise("13.1")
def _(answer):
    """Two steps of the kernel, each over 12 cells of 8 pixels.

    ```py
    answer = 2 * 12 * 8
    ```
    """
    hint = "how many cells apart are neighbouring taps, and how many pixels is a cell?"
    return _near(answer, 192, hint)


@exercise("13.2")
def _(answer):
    """1, 3 and 9. Each kernel says −1, 0 or 1 times its rate, and the sums of −1, 0, 1 times 1, 3, 9 are all whole numbers
    from −13 to 13, each exactly once: a number system with base 3. So there is one path from each of 27 · 27 pixels.

    ```py
    answer = 1, 3, 9
    ```
    """
    rates = sorted(int(rate) for rate in answer)
    if len(rates) != 3 or min(rates) < 1:
        return "three rates, each at least 1."
    sums = {
        a * rates[0] + b * rates[1] + c * rates[2]
        for a in (-1, 0, 1)
        for b in (-1, 0, 1)
        for c in (-1, 0, 1)
    }
    if len(sums) < 1 + 2 * sum(rates):
        return f"with rates {rates} there are holes in the field."
    if rates != [1, 3, 9]:
        return f"rates {rates} leave no hole, but their field, {1 + 2 * sum(rates)}, is not the largest. How few paths are enough?"
    return None


@exercise("13.3")
def _(answer):
    """The forward's loops once more: each product w_u · x gives dy times the one to the other.

    ```py
    def answer(dy, x, w, rate):
        dx, dw = np.zeros_like(x), np.zeros_like(w)
        for i in range(len(dy)):
            for u in range(len(w)):
                dx[i + rate * u] += dy[i] * w[u]
                dw[u] += dy[i] * x[i + rate * u]
        return dx, dw
    ```
    """
    rng = np.random.default_rng(0)
    for size, taps, rate in ((12, 3, 2), (9, 2, 5), (7, 3, 1)):

        def forward(x, w, taps=taps, rate=rate):
            count = len(x) - rate * (taps - 1)
            return sum(w[u] * x[rate * u : rate * u + count] for u in range(taps)), (
                x,
                w,
            )

        def backward(dy, cache, rate=rate):
            return tuple(answer(dy, *cache, rate))

        arrays = [rng.normal(size=size), rng.normal(size=taps)]
        report = gradcheck.check_op(forward, backward, arrays, rng)
        if report.max_relative_error > 1e-6:
            return f"for {size} pixels, {taps} taps and rate {rate} the check finds an error in {report.worst}: 0 is dx, 1 is dw."
    return None


# ---- 14 dense CRF


@exercise("14.1")
def _(answer):
    """A million pixels have 10¹² pairs.

    ```py
    answer = (1000 * 1000) ** 2 * 4 / 1e12
    ```
    """
    return _near(answer, 4, "every pixel with every pixel, four bytes for each pair.")


@exercise("14.2")
def _(answer):
    """It is the same. What a label pays is what all labels together would pay, less its own. The first is one number for all
    labels of a pixel, and the softmax does not see what is added to all.

    ```py
    def answer(log_p, q, K):
        voices = q @ K
        scores = log_p - (voices.sum(axis=0) - voices)
        exponentials = np.exp(scores - scores.max(axis=0))
        return exponentials / exponentials.sum(axis=0)
    ```
    """
    rng = np.random.default_rng(0)
    log_p, q, K = (
        rng.normal(size=(3, 7)),
        rng.dirichlet(np.ones(3), 7).T,
        rng.uniform(size=(7, 7)),
    )
    given = np.asarray(answer(log_p, q, K))
    if given.shape != (3, 7):
        return f"q is (C, N), here (3, 7); it returned {given.shape}."
    for k, hint in ((K, None), (K.T, "K need not be symmetric: q @ K, not q @ K.T.")):
        wanted = np.exp(log_p + q @ k)
        if np.abs(given - wanted / wanted.sum(axis=0)).max() < 1e-9:
            return hint
    return "add up q @ K over the other labels, take the sum from log_p, and end with the softmax over the labels, axis 0."


@exercise("14.3")
def _(answer):
    """Fewer: 3.4 % instead of 4.0 %. Scores twice as large have twice the say against the same kernels.

    ```py
    sure = before**2 / (before**2).sum(axis=0)
    answer = tuple(
        np.mean(inference.dense_crf(p, image, **settings).argmax(axis=0) != p.argmax(axis=0)) for p in (before, sure)
    )
    ```
    """
    usual, sure = map(_share, answer)
    if abs(usual - 0.0403) > 0.003:
        return "the first compares the labels, the argmax over the classes, of `before` and `after`."
    if abs(sure - 0.0335) > 0.003:
        return "the second: before**2, divided by its sum over the classes."
    return None


# ---- 15 tell objects apart


@exercise("15.1")
def _(answer):
    """The halves match nothing: 0.5 is not above one half. So TP = 3, FP = 2, FN = 1.

    ```py
    answer = (0.9 + 0.8 + 0.6) / (3 + 2 / 2 + 1 / 2)
    ```
    """
    hint = "an IoU of exactly one half is no match. What are the two halves then?"
    return _near(_share(answer), 2.3 / 4.5, hint, relative=5e-3)


@exercise("15.2")
def _(answer):
    """Sums of rows and columns by number, divided by the pixels of each number, give all middles at once.

    ```py
    def answer(numbers):
        at = np.indices(numbers.shape)
        pixels = np.maximum(np.bincount(numbers.ravel()), 1)
        middles = [np.bincount(numbers.ravel(), side.ravel()) / pixels for side in at]
        return np.stack([m[numbers] - side for m, side in zip(middles, at)]) * (numbers > 0)
    ```
    """

    def calls(numbers):
        count = itertools.count()
        sys.setprofile(lambda *_: next(count))
        try:
            answer(numbers)
        finally:
            sys.setprofile(None)
        return next(count)

    numbers = np.zeros((7, 9), int)
    numbers[1:4, 2:5], numbers[2:7, 6:8], numbers[3, 3] = 1, 4, 0
    numbers[6, :5] = 2, 3, 5, 6, 7
    offset = np.asarray(answer(numbers.copy()))
    if offset.shape != (2, 7, 9):
        return (
            f"for numbers of shape (7, 9) it is (2, 7, 9); it returned {offset.shape}."
        )
    for n in range(1, 8):
        for side, way in zip(np.indices(numbers.shape), offset, strict=True):
            if (
                np.abs(
                    side[numbers == n].mean() - side[numbers == n] - way[numbers == n]
                ).max()
                > 1e-5
            ):
                return "the offset is the middle, the mean of the object's rows and columns, less the pixel's own place."
    if offset[:, numbers == 0].any():
        return "where no object is, the offset is 0."
    many = np.arange(63).reshape(7, 9)
    if calls(many) > calls(np.minimum(many, 1)) + 30:
        return "right, but more objects take more calls: no loop over the objects."
    return None


@exercise("15.3")
def _(answer):
    """Nearly as before. A pixel joins the *nearest* peak, and all peaks moved together: most are still nearest to their own
    pixels' middles. Only where two middles are closer than twice the shift can a pixel change sides.

    ```py
    pairs = []
    for _, label, numbers in scenes(3):
        centre, offset = targets(filled(numbers))
        pairs.append((group(filled(label), np.roll(centre, 10, axis=1), offset), numbers))
    answer = panoptic_quality(pairs)
    ```
    """
    hint = "`np.roll` of each scene's centre, then `group`, and `panoptic_quality` of the twelve pairs."
    return None if abs(_share(answer) - 0.978) < 0.005 else hint


# ---- 16 share a batch


@exercise("16.1")
def _(answer):
    """A ring sends 2 (n − 1) / n of the array, here 2 · 7 / 8 of 536 MB, that is 938 MB. A byte has eight bits.

    ```py
    answer = 2 * 7 / 8 * 134e6 * 4 * 8 / 10e9  # 0.75 s
    ```
    """
    hint = "4 bytes a number, of which each machine sends 2 (n − 1) / n; 10 Gbit are 1.25e9 bytes."
    return _near(answer, 0.7504, hint, 0.02)


@exercise("16.2")
def _(answer):
    """Move both variances to the common mean, and weight them by the counts.

    ```py
    def answer(one, two):
        (n1, m1, v1), (n2, m2, v2) = one, two
        n = n1 + n2
        m = (n1 * m1 + n2 * m2) / n
        v = (n1 * (v1 + (m1 - m) ** 2) + n2 * (v2 + (m2 - m) ** 2)) / n
        return n, m, v
    ```
    """
    rng = np.random.default_rng(16)
    for n1, n2 in ((3, 5), (1, 9)):
        one, two = rng.normal(0, 1, n1), rng.normal(4, 2, n2)
        both = np.concatenate([one, two])
        n, mean, var = answer((n1, one.mean(), one.var()), (n2, two.mean(), two.var()))
        if n != n1 + n2 or abs(mean - both.mean()) > 1e-9:
            return (
                "the count is the sum of both; the mean weights each mean by its count."
            )
        if abs(var - both.var()) > 1e-9:
            return "values are spread about their own mean, and their mean lies off the common one: add the square of that."
    return None


@exercise("16.3")
def _(answer):
    """After round i each result is the sum over a block of 2^(i + 1) processes. k rounds send k whole arrays, a ring's 2 (n − 1)
    rounds less than two. So doubling is faster where arrays are small, and the time to announce a message is what counts.

    ```py
    def answer(arrays):
        held, sent, reach = [a.copy() for a in arrays], 0, 1
        while reach < len(held):
            held = [a + held[r ^ reach] for r, a in enumerate(held)]
            sent += arrays[0].nbytes
            reach *= 2
        return held, sent
    ```
    """
    rng = np.random.default_rng(16)
    for n, rounds in ((2, 1), (8, 3)):
        arrays = [rng.normal(size=50) for _ in range(n)]
        results, sent = answer([a.copy() for a in arrays])
        if len(results) != n or not all(np.allclose(r, sum(arrays)) for r in results):
            return f"with {n} processes, every one should end with the sum of all."
        if np.any(np.asarray(sent) != rounds * arrays[0].nbytes):
            return f"with {n} processes there are k = {rounds} rounds, and in each a process sends its whole array once."
    return None


# ---- 17 swap NumPy for CuPy

NUMBERS = ("__float__", "__int__", "__bool__", "__complex__", "item", "tolist", "get")


def _on_both(function, *hosts):
    """The answers of a function on NumPy's arrays and on the stand-in's, as NumPy arrays."""
    with _only_numbers_out():
        there = function(*map(strict.xp.asarray, hosts))
    return [function(*hosts), to_host(there)]


@contextlib.contextmanager
def _only_numbers_out():
    """Let `to_host` pass single numbers of the stand-in's and no array.   -> a list that grows by one with each"""
    passed = []

    def door(array):
        if array.size > 1:
            raise TypeError(
                "an array came to the host on its way; compute where it lies"
            )
        passed.append(array)
        return strict.DEVICE.to_host(array)

    backend.register(dataclasses.replace(strict.DEVICE, to_host=door))
    try:
        yield passed
    finally:
        backend.register(strict.DEVICE)


@contextlib.contextmanager
def _counted(names):
    """-> a list that grows by one whenever one of these methods of the stand-in's arrays is called"""
    calls, kept = [], {name: getattr(strict.StrictArray, name) for name in names}
    for name, method in kept.items():

        def noted(self, *arguments, method=method):
            calls.append(method)
            return method(self, *arguments)

        setattr(strict.StrictArray, name, noted)
    try:
        yield calls
    finally:
        for name, method in kept.items():
            setattr(strict.StrictArray, name, method)


@exercise("17.1")
def _(answer):
    """Methods of the array work wherever it lies. (So do np.mean and np.std, which hand over to it.)

    ```py
    def answer(x):
        return (x - x.mean(axis=0)) / x.std(axis=0)
    ```
    """
    x = np.random.default_rng(0).normal(2, 3, (7, 4))
    for given in _on_both(answer, x):
        if (
            given.shape != x.shape
            or np.abs(given - (x - x.mean(0)) / x.std(0)).max() > 1e-9
        ):
            return "each column by itself: mean and std are methods of the arrays, with axis=0."
    return None


@exercise("17.2")
def _(answer):
    """Add up on the device, and let the last sum out. The root of one number is the host's business.

    ```py
    def answer(gradients):
        return float(sum((g * g).sum() for g in gradients)) ** 0.5
    ```
    """
    rng = np.random.default_rng(0)
    hosts = [rng.normal(size=shape) for shape in ((4, 3, 3, 3), (4,), (2, 4), (2,))]
    expected = np.sqrt(sum((g**2).sum() for g in hosts))
    there = [strict.xp.asarray(g) for g in hosts]
    with _counted(NUMBERS) as asked, _only_numbers_out() as passed:
        norms = answer(hosts), answer(there)
    if not all(isinstance(norm, float) for norm in norms):
        return "it should return a Python float."
    if not np.allclose(norms, expected, rtol=1e-9):
        return f"for four arrays it is {expected:.4f}. The norm of all is the root of the sum of all squares."
    if len(asked) + len(passed) > 1:
        return f"{len(asked) + len(passed)} numbers came to the host. Add up first."
    return None


@exercise("17.3")
def _(answer):
    """Read class 0 where the label is void, and multiply what was read by 0.

    ```py
    from minifcn.backend import array_module

    def answer(log_p, labels):
        xp = array_module(log_p)
        known = labels != 255
        safe = xp.where(known, labels, 0)[:, None].astype("int64")
        return (xp.take_along_axis(log_p, safe, axis=1)[:, 0] * known).sum()
    ```
    """
    log_p = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 40))
    labels = np.array([3, 255, 0, 255] * 10, np.uint8)
    expected = log_p[np.arange(40), np.where(labels < 5, labels, 0)][labels < 5].sum()
    with _counted((*NUMBERS, "__getitem__")) as asked:
        results = _on_both(answer, log_p, labels)
    if max(abs(float(given) - expected) for given in results) > 1e-9:
        return "where the label is 255, read any class that exists, and multiply what was read by 0."
    if len(asked) > 12:
        return f"right, but for 40 pixels it indexed or asked {len(asked)} times: no loop over pixels."
    return None


# ---- 18 make it fast


@exercise("18.1")
def _(answer):
    """The definition takes 36 · 9 products for the 36 results. Winograd takes (6 + 3 − 1)² = 64.

    ```py
    answer = (6 * 6 * 3 * 3) / (6 + 3 - 1) ** 2
    ```
    """
    hint = "by the definition, each of the 36 results takes 9 products. In one dimension Winograd needs m + r - 1; square it."
    return _near(answer, (6 * 6 * 3 * 3) / (6 + 3 - 1) ** 2, hint, relative=1e-2)


@exercise("18.2")
def _(answer):
    """32 of the 80 ms are no convolutions, and stay. Of the other 48 only 40 − 32 = 8 may be left.

    ```py
    answer = 48 / (40 - 32)
    ```
    """
    hint = "how many milliseconds are no convolutions, and stay? What may be left of the others?"
    return _near(answer, 6, hint)


@exercise("18.3")
def _(answer):
    """Without the warm-up, the median of each: one slow run does not move it. Then the ratio.

    ```py
    def answer(ours, theirs):
        return np.median(ours[1:]) / np.median(theirs[1:])
    ```
    """
    one = [9.0, 2, 2.2, 50, 2.1, 2], [1.0, 1, 1.1, 1, 0.9, 30]
    for ours, theirs in (one, ([1.0, 6, 4, 5], [80.0, 2, 2, 9])):
        expected = np.median(ours[1:]) / np.median(theirs[1:])
        if abs(float(answer(ours, theirs)) - expected) > 1e-9:
            return f"for {ours} and {theirs} the ratio is {expected:.3f}. Which runs count, and what does one slow run not move?"
    return None
