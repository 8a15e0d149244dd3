# %% [markdown]
# # 16. Share a batch
#
# **You will** split a batch among processes, put their gradients together by a ring,
# and train one network in two places at once.
#
# **You will learn** what must be summed, and what must not be averaged; how a ring sends
# as little as can be sent; and how to send while the rest still computes.
#
# **You need** lessons 8 and 11.
#
# **It takes** 20 minutes to read and some seconds to run.

# %%
import lesson

lesson.begin()

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np

figure, axes = plt.subplots(2, 1, figsize=(7, 3.0), sharex=True)
for panel, parts in zip(axes, (1, 2), strict=True):
    forward, backward = 4 / parts, 8 / parts
    for row in range(parts):
        panel.barh(row, forward, color="#9cc3ea", ec="w", label="forward")
        panel.barh(row, backward, left=forward, color="#2c6fbb", label="backward")
        if parts > 1:
            at = forward + np.arange(1, 5) * backward / 4
            sent = {"color": "#e67e22", "label": "sums of gradients"}
            panel.barh(row + 0.32, 0.9, height=0.25, left=at, **sent)
    title = "one process" if parts == 1 else "two processes, half the batch each"
    panel.set(yticks=(), title=title)
    panel.invert_yaxis()
    panel.spines["left"].set_visible(False)
axes[1].set_xlabel("time (one step; a drawing)")
handles, names = axes[1].get_legend_handles_labels()
axes[1].legend(handles[:3], names[:3], loc="center right", frameon=False)
caption = (
    "A step of training alone, and shared by two. Each layer's gradients set out as soon "
    "as they are there."
)
lesson.show(figure, "16_step", caption)

# %% [markdown]
# ## Whose mean?
#
# A *process* is a running program with a memory of its own; two of them may run on two
# machines. Let two hold the same network, and each half of the batch. Each computes its
# loss and its gradients. How do two halves make a whole?
#
# The loss is a mean over the pixels that have a label. With void pixels the halves are
# not equal. Let one half have three such pixels, with losses 1, 2, 3, and the other a
# single one with 6. The mean of all is (1 + 2 + 3 + 6) / 4 = 3. The means of the halves
# are 2 and 6, and their mean is 4. The single 6 counts for ½ there, and should for ¼.
#
# So processes exchange **sums and counts**, never means. Each divides by the whole
# batch's count *before* its backward pass; then gradients only have to be added.

# %%
from minifcn import ops

rng = np.random.default_rng(0)
logits = rng.normal(size=(4, 3, 8, 8))
labels = rng.integers(0, 3, (4, 8, 8)).astype(np.uint8)
labels[2:, 1:] = 255  # of the second half one row is labelled
halves = [slice(0, 2), slice(2, 4)]


def gradient(part, count):
    """The gradient of this part's losses over `count`."""
    scores, truth = logits[part], labels[part]
    _, cache = ops.softmax_cross_entropy_forward(scores, truth, reduction="sum")
    return ops.softmax_cross_entropy_backward(1 / count, cache)


counts = [int((labels[part] != 255).sum()) for part in halves]
whole = gradient(slice(0, 4), sum(counts))
by_sums = np.concatenate([gradient(part, sum(counts)) for part in halves])
by_means = np.concatenate(
    [gradient(p, 2 * c) for p, c in zip(halves, counts, strict=True)]
)
print("labelled pixels:", *counts)
print(f"sums and counts: off by {np.abs(by_sums - whole).max():.0e}")
ratio = np.abs(by_means[2:]).sum() / np.abs(whole[2:]).sum()
print(f"mean of means:   the second half counts {ratio:.1f} times as much as it should")
assert np.abs(by_sums - whole).max() < 1e-15 and ratio > 4

# %% [markdown]
# ## One batch, one mean, one variance
#
# Batch normalisation (lesson 8) looks across the batch: its mean and variance are those
# of *all* images. Again sums travel, three numbers for each channel: how many values,
# their sum, and the sum of their squared distances from the mean.
#
# The variance is where care is needed. Σx²/n − mean² loses digits when the mean is
# large. So each process takes distances from *its own* mean, mᵢ. The variance of the
# whole is put together from counts nᵢ, means mᵢ and variances vᵢ:
#
# > n = Σ nᵢ, m = Σ nᵢ mᵢ / n, v = Σ nᵢ (vᵢ + (mᵢ − m)²) / n
#
# In the backward pass two more sums are shared: Σ dy and Σ dy·z (lesson 8 has the
# formula). The gradients of γ and β are sums over pixels like any other weight's.
#
# Our processes here are threads. `Job.sum` is all that they share: each brings an array
# and takes the sum home.

# %%
import threading


class Job:
    """Some processes, played by threads, that can add up arrays."""

    def __init__(self, size):
        self.size, self.brought = size, [None] * size
        self.barrier = threading.Barrier(size)
        self.of_thread = threading.local()

    def sum(self, array):
        """The sum of what all bring, the same bits for each."""
        self.brought[self.of_thread.rank] = array
        self.barrier.wait(60)
        total = sum(self.brought)
        self.barrier.wait(60)  # nobody brings the next before all have this
        return total

    def run(self, work):
        """Call work(rank) in every process. -> what each returned"""
        found = [None] * self.size

        def process(rank):
            self.of_thread.rank = rank
            try:
                found[rank] = work(rank)
            except BaseException:
                self.barrier.abort()  # or the others would wait for it
                raise

        threads = [
            threading.Thread(target=process, args=(r,)) for r in range(self.size)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def statistics(x, job):
    """x (N, C, H, W), a part of the batch -> mean and variance (C,) of the whole"""
    own = np.full(x.shape[1], x.size / x.shape[1])
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    n = job.sum(own)
    m = job.sum(own * mean) / n
    return m, job.sum(own * (var + (mean - m) ** 2)) / n


x = rng.normal(1000, 0.01, (5, 3, 6, 6)).astype(np.float32)  # a large mean
uneven, job = [slice(0, 3), slice(3, 5)], Job(2)
(mean, var), again = job.run(lambda rank: statistics(x[uneven[rank]], job))
assert np.array_equal(var, again[1]), "both should have the same bits"
right = x.astype(float).var(axis=(0, 2, 3))
squares = (x**2).mean(axis=(0, 2, 3)) - x.mean(axis=(0, 2, 3)) ** 2
print("the whole, in float64     ", right)
print("out of two parts, float32 ", var)
print("Σx²/n − mean², float32    ", squares)
assert np.allclose(var, right, rtol=0.01) and np.abs(squares / right - 1).min() > 0.9

# %% [markdown]
# ## The ring
#
# Now every process has an array of gradients, and all want the sum. Sending everything
# to one process and back is slow: with n processes, n − 1 arrays go through one wire.
#
# In a *ring* each process sends to its right neighbour only. The array is cut into n
# pieces. In the first round process r sends piece r; its neighbour adds it to its own and
# sends the sum on in the next. After n − 1 rounds process r holds the finished sum of
# piece r + 1. Another n − 1 rounds carry the finished pieces round. Each process sends
# 2 (n − 1) / n of the array: less than twice, **however many processes there are**.


# %%
def ring(arrays):
    """The sum of n arrays, in each of n places. -> the arrays, bytes that each sent, a history"""
    n, sent = len(arrays), 0
    pieces = [[piece.copy() for piece in np.array_split(a, n)] for a in arrays]
    counts = np.ones((n, n), int)  # of how many arrays each piece is the sum
    history = [counts.copy()]
    for step in range(2 * (n - 1)):
        moving = [(r, (r - step) % n) for r in range(n)]
        in_the_air = [pieces[r][i].copy() for r, i in moving]
        old = counts.copy()
        for (r, i), piece in zip(moving, in_the_air, strict=True):
            right = (r + 1) % n
            adds = step < n - 1
            pieces[right][i] = pieces[right][i] + piece if adds else piece
            counts[right, i] = old[right, i] + old[r, i] if adds else old[r, i]
        sent += in_the_air[0].nbytes
        history.append(counts.copy())
    return [np.concatenate(p) for p in pieces], sent, history


arrays = [rng.normal(size=12_000) for _ in range(4)]
summed, sent, history = ring(arrays)
for result in summed:
    assert np.allclose(result, sum(arrays), atol=1e-12)
    assert np.array_equal(result, summed[0])
print(f"each of 4 sent {sent:,} bytes; an array has {arrays[0].nbytes:,}")
assert sent == 1.5 * arrays[0].nbytes

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 7, figsize=(7, 1.5))
for step, (panel, counts_then) in enumerate(zip(axes, history, strict=True)):
    panel.imshow(counts_then, cmap="viridis", vmin=1, vmax=4)
    for (row, column), count in np.ndenumerate(counts_then):
        style = {"ha": "center", "va": "center", "fontsize": 10}
        panel.text(column, row, count, color="w" if count < 3 else "k", **style)
    panel.set(xticks=(), yticks=(), title=f"{step}" if step else "start")
axes[0].set_ylabel("process")
figure.supxlabel("piece (columns), after each round")
caption = "Of how many processes' gradients each piece is the sum, round by round."
lesson.show(figure, "16_ring", caption)

# %% [markdown]
# Every place has the same bits: each piece was added up once, in one order, and then
# copied. That matters. Two copies of a network that differ in the last digit drift apart.
#
# ## Send while you compute
#
# The last layer's gradients are finished first, when most of the work is still to come.
# So they can set out at once. Below, a model of one step on two machines, by arithmetic.
# A layer's backward takes twice its forward's multiply-adds (for dx and for dw).

# %%
from minifcn import models

WORK, WIRE = 100e9, 125e6  # multiply-adds and bytes a second: a CPU, 1 Gbit/s


def timeline(network, batch):
    """(name, begin, end of its backward, arrival of its sums) of each layer, in s"""
    now = arrived = 0.0
    spans = []
    for row in reversed(models.explain(network, 256, batch).rows):
        begin, now = now, now + 2 * row.multiply_adds / WORK
        if row.parameters:
            arrived = max(arrived, now) + 4 * row.parameters / WIRE
        spans.append((row.name, begin, now, arrived))
    return spans


network, waited = models.fcn("8s", "efficientnet_lite0", alignment="same"), {}
for batch in (1, 8, 32):
    spans = timeline(network, batch)
    wire = sum(4 * p.value.size for p in network.parameters().values()) / WIRE
    backward, waited[batch] = spans[-1][2], spans[-1][3] - spans[-1][2]
    print(
        f"batch {batch:2d} each: backward {1e3 * backward:5.0f} ms, then "
        f"waiting {1e3 * waited[batch]:3.0f} ms, of {1e3 * wire:.0f} ms on the wire"
    )
assert waited[32] < waited[8] < waited[1] and waited[32] < 0.2 * wire

# %% [markdown]
# The wire takes as long for one image as for thirty-two, and only the work grows. So large
# parts hide the exchange. Small messages are slow for another reason: each has to be
# announced. So libraries collect the gradients of several layers in a *bucket* of some
# megabytes, and send that.
#
# ## Two places, one network
#
# One process trains a small network with batch normalisation on batches of 5 crops. Then
# two do it together, with 2 of the crops and with 3. Then three mistakes, one at a time:
# each divides by its own count of pixels (the mean of means), each normalises by its own
# mean and variance, or each starts from weights of its own.

# %%
from minifcn.data.toyvoc import CLASSES, draw_scene

drawn = [draw_scene(np.random.default_rng([16, i]), 64) for i in range(60)]
images = np.stack([image[:40, :40] for image, _ in drawn]) / 128.0 - 1
images = images.transpose(0, 3, 1, 2)
truths = np.stack([label[:40, :40] for _, label in drawn])
BATCH, STEPS, K = 5, 60, len(CLASSES)


def weights(seed):
    """Two convolutions, and between them a batch normalisation's γ and β."""
    rng = np.random.default_rng(seed)
    first, last = rng.normal(0, 0.2, (16, 3, 3, 3)), rng.normal(0, 0.2, (K, 16, 3, 3))
    return {"first": first, "gamma": np.ones(16), "beta": np.zeros(16), "last": last}


def step(w, x, truth, count, sums):
    """Loss and gradients of a part of a batch in which `count` pixels are labelled."""
    a, first = ops.conv2d_forward(x, w["first"], pad=1)
    constants = w["gamma"], w["beta"], np.zeros(16), np.ones(16)
    b, norm = ops.batch_norm_forward(a, *constants, train=True, sums=sums)
    r, relu = ops.relu_forward(b)
    scores, last = ops.conv2d_forward(r, w["last"], pad=1)
    loss, of_loss = ops.softmax_cross_entropy_forward(scores, truth, reduction="sum")
    g, d = {}, ops.softmax_cross_entropy_backward(1 / count, of_loss)
    d, g["last"], _ = ops.conv2d_backward(d, last)
    d, g["gamma"], g["beta"] = ops.batch_norm_backward(ops.relu_backward(d, relu), norm)
    g["first"] = ops.conv2d_backward(d, first)[1]
    return loss / count, g


def train(parts, seed, mistake=""):
    """Train with the batch in such parts, a process each. -> the loss of each step, (steps,)"""
    job = Job(len(parts))

    def process(rank):
        w = weights([seed, rank if mistake == "own weights" else 0])
        order, losses = np.random.default_rng(seed), []  # the same draws in each
        for _ in range(STEPS):
            some = order.integers(0, len(images), BATCH)[parts[rank]]
            own = np.array(float((truths[some] != 255).sum()))
            count = own * job.size if mistake == "mean of means" else job.sum(own)
            sums = None if mistake == "own statistics" else job.sum
            loss, gradients = step(w, images[some], truths[some], count, sums)
            losses.append(float(job.sum(np.asarray(loss))))
            for name, gradient in gradients.items():
                w[name] = w[name] - 0.5 * job.sum(gradient)
        return losses

    return np.array(job.run(process)[0])


PARTS = [slice(0, 2), slice(2, 5)]
MISTAKES = ("mean of means", "own statistics", "own weights")
for seed in (0, 1):
    alone, shared = train([slice(0, 5)], seed), train(PARTS, seed)
    off = np.abs(shared - alone)
    runs = {m: train(PARTS, seed, m) for m in MISTAKES}
    assert all(losses[-5:].mean() < losses[0] - 0.3 for losses in runs.values())
    wrong = {m: np.abs(losses - alone) for m, losses in runs.items()}
    print(f"seed {seed}: the loss falls from {alone[0]:.2f} to {alone[-5:].mean():.2f}")
    print(f"  two processes: off by {off.max():.0e} at most in {STEPS} steps")
    for mistake, difference in wrong.items():
        print(f"  {mistake}: off by {difference.max():.3f}")
    assert off.max() < 1e-10 and min(d.max() for d in wrong.values()) > 1e-3

# %% tags=["hide-input"]
figure, axes = plt.subplots(figsize=(7, 3.4))
for (mistake, difference), style in zip(wrong.items(), ("-", "--", ":"), strict=True):
    axes.semilogy(difference + 1e-18, style, label=mistake)
axes.semilogy(off + 1e-18, "k", label="right: sums and counts")
axes.set(xlabel="step", ylabel="difference of the loss", ylim=(1e-17, 100))
axes.legend(frameon=False, ncols=2, loc="upper right", bbox_to_anchor=(1, 1.2))
caption = "How far the loss of two processes is from that of one. Black: rounding."
lesson.show(figure, "16_together", caption)

# %% [markdown]
# None of the mistakes stops a training: the loss falls with each of them. That is why the
# library's tests compare one process with two and with three, step by step.
#
# ## Exercises
#
# Replace the dots and run the cell again. More stars, more work.
#
# **1.** ★ FCN-8s over VGG16 has 134 million float32 numbers. Eight machines add up its
# gradients by a ring. How many seconds does each send for at 10 Gbit/s, if nothing else
# slows it down?
#
# **2.** ★★ Write `merge(one, two)`: each is (n, mean, variance) of some values, all three
# numbers; return those of all values together.
#
# **3.** ★★★ With 2^k processes there is another way. In round i, from 0 to k − 1,
# process r exchanges its whole array with process r XOR 2^i, and both add up. Write
# `doubling(arrays)` that returns the list of results, and the bytes that each process
# sent. When is it faster than a ring?

# %%
import answers

answers.check("16.1", ...)
answers.check("16.2", ...)
answers.check("16.3", ...)

# %% [markdown]
# ## In practice
#
# - `minifcn train --processes 2` does all this with MPI. docs/processes.md has the way to
#   several machines, and says when processes are faster than the threads of one.
# - The batch is the one of `--batch-size`, however many share it. Larger batches want
#   their own learning rate.
# - Dropout and augmentation are drawn for the whole batch in every process. So one seed
#   means the same on any number of them.
#
# ## Further reading
#
# - P. Goyal and others, *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*,
#   2017, <https://arxiv.org/abs/1706.02677>
# - S. Li and others, *PyTorch Distributed*, 2020, <https://arxiv.org/abs/2006.15704>
# - T. Chan, G. Golub, R. LeVeque, *Updating Formulae and a Pairwise Algorithm for
#   Computing Sample Variances*, 1979.
# - In the code: `minifcn/distributed.py`, `minifcn/training/exchange.py`,
#   `minifcn/ops/batch_norm.py`.
