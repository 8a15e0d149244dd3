"""What lesson 8 trains: two spirals of points, and a network of nine layers, forward and backward, in NumPy alone."""

import numpy as np

DEPTH, WIDTH, STEPS = 8, 32, 600  # hidden layers, numbers in each; updates


def draw(rng, n=300):
    """Points (n, 2) between −1 and 1, and the spiral each lies on, 0 or 1."""
    turn = np.sqrt(rng.uniform(0, 1, n))  # 0 in the middle, 1 outside
    which = rng.integers(0, 2, n)
    angle = 3.5 * np.pi * turn + np.pi * which
    points = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points + rng.normal(0, 0.01, points.shape), which


def network(rng, gain, norm=None):
    """The parameters of each layer, a dict each. A gain of 1 keeps the size through ReLU; norm as in `run`."""
    sizes, found = [2] + [WIDTH] * DEPTH + [2], []
    for rows, columns in zip(sizes, sizes[1:], strict=False):
        w = rng.normal(0, gain * np.sqrt(2 / rows), (rows, columns))
        found.append({"w": w, "b": np.zeros(columns)})
        if norm and len(found) <= DEPTH:  # beta does what b would do
            found[-1] = {"w": w, "gamma": np.ones(columns), "beta": np.zeros(columns)}
    return found


def run(layers, x, which, norm=None):
    """One forward and one backward pass. -> scores (m, 2), loss, gradients as a list of dicts, hidden maps

    norm: a pair of functions, forward(x, gamma, beta) -> (y, cache) and backward(dy, cache) -> (dx, dgamma, dbeta).
    """
    caches, maps = [], []
    for number, layer in enumerate(layers):
        y, cache = x @ layer["w"] + layer.get("b", 0), None
        if "gamma" in layer:
            y, cache = norm[0](y, layer["gamma"], layer["beta"])
        if number < DEPTH:
            y = np.maximum(y, 0)
            maps.append(y)
        caches.append((x, cache, y))
        x = y
    p = np.exp(x - x.max(axis=1, keepdims=True))  # less the largest: p is the same
    p /= p.sum(axis=1, keepdims=True)
    true = np.arange(len(which)), which
    loss = -np.log(p[true] + 1e-300).mean()
    d = p.copy()
    d[true] -= 1
    d /= len(which)
    gradients = []
    for number in reversed(range(len(layers))):
        layer, (x_in, cache, y) = layers[number], caches[number]
        found = {}
        if number < DEPTH:
            d = d * (y > 0)
        if cache is not None:
            d, found["gamma"], found["beta"] = norm[1](d, cache)
        else:
            found["b"] = d.sum(axis=0)
        found["w"] = x_in.T @ d
        d = d @ layer["w"].T
        gradients.insert(0, found)
    return x, loss, gradients, maps


def train(seed, gain, norm, rule, rate):
    """STEPS updates with 100 points each; the rate falls to 0. -> the layers, the share of points that are right

    rule: a function (gradient, memory, t) -> step, of one array, a dict that is its own, and the number of the update.
    """
    rng = np.random.default_rng(seed)
    points, which = draw(rng)
    layers, memory = network(rng, gain, norm), {}
    for t in range(1, STEPS + 1):
        some = rng.integers(0, len(points), 100)
        _, _, gradients, _ = run(layers, points[some], which[some], norm)
        for i, layer in enumerate(layers):
            for name, g in gradients[i].items():
                step = rule(g, memory.setdefault((i, name), {}), t)
                layer[name] = layer[name] - rate * (1 - t / STEPS) * step
    scores, *_ = run(layers, points, which, norm)
    return layers, np.mean(scores.argmax(axis=1) == which)
