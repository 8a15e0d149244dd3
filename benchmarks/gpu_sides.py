"""The two sides of `gpu.py`: the same work by minifcn on CuPy's arrays and by PyTorch with cuDNN, each timed by its events.

Both work in full float32, or both with products in TF32. Without a GPU both can run on the host, by its clock, to try the script itself.
"""

import time

import in_minifcn
import numpy as np
from gpu_works import Layer

from minifcn import backend, ops

WARM_UP = 3  # runs that compile, choose algorithms and fill the memory pools


def drawn(layer):
    """x and dy with the channels last in memory, as they are inside a network, w and b: NumPy arrays in float32."""
    rng = np.random.default_rng(0)

    def maps(channels, side):
        return rng.standard_normal((layer.batch, side, side, channels), np.float32).transpose(0, 3, 1, 2)

    w = rng.standard_normal((layer.outputs, layer.inputs, layer.kernel, layer.kernel), np.float32)
    b = rng.standard_normal(layer.outputs, np.float32)
    return maps(layer.inputs, layer.side), maps(layer.outputs, layer.out_side), w, b


class Minifcn:
    """minifcn on the chosen backend; `cupy`, or None on the host."""

    name, layouts = "minifcn", ("",)

    def __init__(self, cupy):
        self.cupy = cupy

    def prepare(self, work, layout):
        """-> a function that does the work once"""
        if isinstance(work, Layer):
            x, dy, w, b = (backend.to_device(a) for a in drawn(work))
            if work.task == "forward":
                return lambda: ops.conv2d_forward(x, w, b, pad=work.pad)
            _, cache = ops.conv2d_forward(x, w, b, pad=work.pad)
            return lambda: ops.conv2d_backward(dy, cache, inputs=not work.image)
        network = in_minifcn.build(work)
        if work.task == "step":
            return in_minifcn.training_step(network, work)  # which brings the batch to the device
        images = backend.to_device(in_minifcn.batch(work)[0])
        return lambda: network.forward(images)

    def seconds(self, run, count):
        """Seconds of each of `count` runs in a row."""
        if self.cupy is None:
            return by_the_clock(run, count)
        events = [self.cupy.cuda.Event() for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        events[-1].synchronize()
        elapsed = self.cupy.cuda.get_elapsed_time  # milliseconds
        return [elapsed(a, b) / 1e3 for a, b in zip(events, events[1:], strict=False)]

    def peak_bytes(self):
        """The most memory that its pool has taken from the device since `forget`: it gives none back by itself."""
        return self.cupy.get_default_memory_pool().total_bytes() if self.cupy else 0

    def forget(self):
        """Give all free memory back to the device. -> bytes that are still held"""
        if self.cupy:
            self.cupy.get_default_memory_pool().free_all_blocks()
        return self.peak_bytes()


class PyTorch:
    """PyTorch on its device, in the memory format that is asked for."""

    name, layouts = "PyTorch", ("NCHW", "channels last")

    def __init__(self, torch, device, tf32=False):
        import in_pytorch

        self.torch, self.device, self.code = torch, device, in_pytorch
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True  # the fastest of its algorithms for each shape

    def prepare(self, work, layout):
        """-> a function that does the work once"""
        torch, memory = self.torch, self.code.LAYOUTS[layout]
        if isinstance(work, Layer):
            x, dy, w, b = (torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in drawn(work))
            x, dy, w = (a.to(memory_format=memory) for a in (x, dy, w))
            convolve = torch.nn.functional.conv2d
            if work.task == "forward":
                return torch.inference_mode()(lambda: convolve(x, w, b, padding=work.pad))
            wanted = [a.requires_grad_() for a in ((w, b) if work.image else (x, w, b))]
            y = convolve(x, w, b, padding=work.pad)
            return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)
        network = self.code.fcn8s(work).to(self.device, memory_format=memory)
        images, labels = map(torch.from_numpy, in_minifcn.batch(work))
        images = images.to(memory_format=memory)
        if work.task == "step":
            return self.code.training_step(network, work, images, labels.long(), self.device)
        network.eval()
        images = images.to(self.device)
        return torch.inference_mode()(lambda: network(images))

    def seconds(self, run, count):
        """Seconds of each of `count` runs in a row."""
        if self.device == "cpu":
            return by_the_clock(run, count)
        events = [self.torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        events[-1].synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in zip(events, events[1:], strict=False)]

    def peak_bytes(self):
        """The most memory that its pool has taken from the device since `forget`."""
        return 0 if self.device == "cpu" else self.torch.cuda.max_memory_reserved()

    def forget(self):
        """Give all free memory back to the device. -> bytes that are still held"""
        if self.device != "cpu":
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats()
        return self.peak_bytes()


def by_the_clock(run, count):
    """Seconds of each of `count` runs, by the host's clock."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken
