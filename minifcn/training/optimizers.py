"""How parameters move. Every optimiser keeps its state by dotted parameter name and updates values in place, block by block.

For each parameter: rate = lr · lr_mult and decay = weight_decay · decay_mult; frozen parameters do not move.
"""

from ..backend import Source, array_module, launch, one_blas_thread, run_blocks, runs, to_device, to_host
from ..errors import InputError

KERNELS = Source.beside(__file__)


class Optimizer:
    """What all share: the parameters, the weight decay and the state, arrays by "slot/name"."""

    slots: tuple = ()  # the arrays of state for each parameter

    def __init__(self, parameters, weight_decay=0.0):
        self.parameters = {name: p for name, p in parameters.items() if not p.frozen}
        self.weight_decay = weight_decay
        self.steps = 0
        self.arrays = {
            f"{slot}/{name}": array_module(p.value).zeros_like(p.value)
            for slot in self.slots
            for name, p in self.parameters.items()
        }

    @one_blas_thread
    def step(self, lr):
        """Move every parameter against its gradient, at this learning rate."""
        self.steps += 1
        for name, p in self.parameters.items():
            state = [self.arrays[f"{slot}/{name}"] for slot in self.slots]
            self.update(p, state, lr * p.lr_mult, self.weight_decay * p.decay_mult)

    def state(self):
        """(arrays by "slot/name", rest): everything that a resumed run needs; rest is JSON-ready."""
        return {key: to_host(a).copy() for key, a in self.arrays.items()}, {"steps": self.steps}

    def restore(self, arrays, rest):
        """Go on from a saved state. Raises InputError if it belongs to other parameters."""
        differ = sorted(self.arrays.keys() ^ arrays.keys())
        differ = differ or sorted(key for key, array in self.arrays.items() if array.shape != arrays[key].shape)
        if differ:
            raise InputError(f"optimiser state of another network or optimiser: {differ[:3]} differ")
        self.arrays = {key: to_device(arrays[key].copy()) for key in self.arrays}
        self.steps = rest["steps"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum in Caffe's form: v ← μv + lr·(g + decay·w);  w ← w − v.

    The rate sits inside the velocity, so that a change of rate is felt gradually.
    """

    slots = ("velocity",)

    def __init__(self, parameters, momentum=0.9, weight_decay=0.0):
        super().__init__(parameters, weight_decay)
        self.momentum = momentum

    def update(self, p, state, rate, decay):
        if _by_kernel("sgd", p, state, self.momentum, rate, rate * decay):
            return

        def block(value, gradient, velocity):
            velocity *= self.momentum
            velocity += rate * gradient
            if decay:
                velocity += rate * decay * value
            value -= velocity

        run_blocks(block, p.value, p.grad, *state)


class Adam(Optimizer):
    """Adam; the decay is added to the gradient. Kingma and Ba, 2015, algorithm 1."""

    slots = ("first", "second")
    decoupled = False

    def __init__(self, parameters, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, weight_decay)
        self.betas, self.eps = betas, eps

    def update(self, p, state, rate, decay):
        xp, (beta1, beta2) = array_module(p.value), self.betas
        correction1, correction2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        shrink, added = (1 - rate * decay, 0.0) if self.decoupled else (1.0, decay)
        numbers = rate, shrink, added, beta1, beta2, 1 - beta1, 1 - beta2, correction1, correction2, self.eps
        if _by_kernel("adam", p, state, *numbers):
            return

        def block(value, gradient, first, second):
            if shrink != 1:
                value *= shrink
            # One array of a block's size, for intermediate results.
            work = gradient + added * value if added else gradient.copy()
            first *= beta1
            second *= beta2
            work *= 1 - beta1
            first += work
            work *= work
            work *= (1 - beta2) / (1 - beta1) ** 2
            second += work
            xp.sqrt(second, out=work)
            work /= correction2**0.5
            work += self.eps
            xp.divide(first, work, out=work)
            work *= rate / correction1
            value -= work

        run_blocks(block, p.value, p.grad, *state)


class AdamW(Adam):
    """Adam whose decay shrinks the weights directly instead of entering the moments. Loshchilov and Hutter, 2019."""

    decoupled = True


def _by_kernel(kernel, p, state, *numbers):
    """Update a parameter by a kernel, if possible: it writes the values in memory order. -> whether it did"""
    if not (runs(KERNELS, p.value) and p.value.flags.c_contiguous):
        return False
    gradient = array_module(p.grad).ascontiguousarray(p.grad)
    if any(a.shape != p.value.shape or not a.flags.c_contiguous for a in (gradient, *state)):
        return False
    launch(KERNELS, kernel, p.value.size, p.value, gradient, *state, *map(float, numbers))
    return True


OPTIMIZERS = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
