"""What `cpu.py` measures: pieces of work, and which of them are compared with which.

A comparison has several sides; its ratio is the time of the first over that of the fastest other. Everything that both
sides must agree on (sizes, classes, solver) is defined here and nowhere else.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

LAYOUTS = ("NCHW", "channels last")  # PyTorch's memory formats
GROUPS = ("layers", "atrous", "vgg", "mini", "lite0", "scaling", "unet", "panoptic", "dezero")
AVERAGE_GOALS = {  # of the mean of a group's ratios
    ("layers", "forward"): 0.8,
    ("layers", "backward"): 1.0,
    ("atrous", "forward"): 1.0,
    ("atrous", "backward"): 1.0,
    ("dezero", "forward"): 0.1,
    ("dezero", "backward"): 0.1,
}


@dataclass(frozen=True)
class Product:
    """One float32 matrix product of `size` cubed: how fast the machine multiplies and adds at best."""

    size: int

    @property
    def flops(self):
        return 2 * self.size**3


@dataclass(frozen=True)
class Convolution:
    """A 3×3 convolution with bias, stride 1, as much pad as dilation. task: "forward", or "backward", which is dx, dw and db at once.

    image: its input is the image, so that dx is not wanted.
    """

    task: str
    inputs: int
    outputs: int
    side: int
    image: bool = False
    dilation: int = 1

    @property
    def flops(self):
        """Multiplications and additions of the direct convolution; those of the bias are left out."""
        products = {"forward": 1, "backward": 1 if self.image else 2}[self.task]
        return 2 * products * self.outputs * self.inputs * 9 * self.side**2


class Solver(NamedTuple):
    """The optimiser of a training step; backbone_rate: the backbone's learning rate as a multiple of the rest's."""

    name: str
    lr: float
    weight_decay: float
    momentum: float | None = None
    backbone_rate: float = 1.0


@dataclass(frozen=True)
class Network:
    """FCN-8s over a backbone; or a U-Net, as backbone "unet", with its padding as the alignment. task: "forward" (inference), or
    "step": forward, loss, backward and the solver's update.

    frozen_statistics: batch normalisation uses the running statistics in training too. narrow: divides VGG16's and U-Net's widths,
    the former to try in a second what is measured in an hour.
    """

    task: str
    backbone: str
    classes: int
    alignment: str
    batch: int
    height: int
    width: int
    solver: Solver | None = None
    frozen_statistics: bool = False
    narrow: int = 1

    @property
    def title(self):
        return f"U-Net {self.alignment}" if self.backbone == "unet" else f"FCN-8s-{self.backbone}"

    @property
    def label_size(self):
        """(height, width) of the labels: an unpadded U-Net loses 92 pixels on every side."""
        lost = 184 if self.alignment == "valid" else 0
        return self.height - lost, self.width - lost


@dataclass(frozen=True)
class Photograph:
    """From uint8 noise to labels, as in `predict`. objects: by a panoptic network over FCN-8s, with objects; else by FCN-8s alone."""

    backbone: str
    objects: bool
    height: int
    width: int
    classes: int = 7
    task: str = "forward"


class Side(NamedTuple):
    """One process: a piece of work in one library; layout: PyTorch's memory format, one of LAYOUTS."""

    label: str
    library: str
    work: object
    layout: str = "NCHW"


@dataclass(frozen=True)
class Comparison:
    """Sides that take turns. goal, memory_goal: the ratios that are not to be exceeded, where there are any."""

    group: str
    name: str
    sides: tuple
    goal: float | None = None
    memory_goal: float | None = None


VGG16 = {  # name: channels in, channels out, side of the maps of a 500×500 image
    "conv1_1": (3, 64, 500),
    "conv1_2": (64, 64, 500),
    "conv2_1": (64, 128, 250),
    "conv2_2": (128, 128, 250),
    "conv3_1": (128, 256, 125),
    "conv3_2": (256, 256, 125),
    "conv3_3": (256, 256, 125),
    "conv4_1": (256, 512, 63),
    "conv4_2": (512, 512, 63),
    "conv4_3": (512, 512, 63),
    "conv5_1": (512, 512, 32),
    "conv5_2": (512, 512, 32),
    "conv5_3": (512, 512, 32),
}
DILATIONS = (2, 3, 4, 6, 8, 12)
FOR_DEZERO = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")

# The published solver's momentum and decay; the rate is small because the weights are random.
VGG = Network("forward", "vgg16", 21, "paper", 1, 500, 500, Solver("sgd", 1e-6, 5e-4, momentum=0.99))
MINI = Network("step", "mini", 6, "same", 8, 128, 128, Solver("adam", 4e-3, 5e-4))  # the demo's
LITE0 = Network("forward", "efficientnet_lite0", 21, "same", 1, 375, 500)
LITE0_SOLVER = Solver("adamw", 2e-3, 1e-4, backbone_rate=0.1)  # as it is fine-tuned on VOC
LITE0_STEP = replace(LITE0, task="step", batch=8, height=320, width=320, solver=LITE0_SOLVER, frozen_statistics=True)
UNET_SOLVER = Solver("sgd", 1e-4, 5e-4, momentum=0.99)
UNET = Network("forward", "unet", 2, "same", 4, 256, 256, UNET_SOLVER, narrow=2)
UNET_VALID = replace(UNET, alignment="valid", batch=1, height=572, width=572, narrow=1)

PHOTOGRAPH = Photograph("efficientnet_lite0_head", True, 375, 500)

SGEMM = Comparison("sgemm", "sgemm 2048³", (Side("NumPy", "NumPy", Product(2048)),))


def comparisons(smoke=False):
    """Everything to compare, in order. smoke: the same at sizes that take no time, with fewer layers and memory formats."""
    layouts = LAYOUTS[-1:] if smoke else LAYOUTS
    shrink = tiny if smoke else lambda work: work
    vgg, mini, lite0, lite0_step = (shrink(network) for network in (VGG, MINI, LITE0, LITE0_STEP))
    unet, valid, photograph = shrink(UNET), shrink(UNET_VALID), shrink(PHOTOGRAPH)
    convolutions = list(VGG16)[:2] if smoke else VGG16
    for_dezero = FOR_DEZERO[:1] if smoke else FOR_DEZERO
    small, large = (
        Side(f"minifcn {side}×{side}", "minifcn", replace(vgg, height=side, width=side))
        for side in (vgg.height, 2 * vgg.height)
    )

    def against_pytorch(group, name, work, **goals):
        theirs = (Side(f"PyTorch, {layout}", "PyTorch", work, layout) for layout in layouts)
        return Comparison(group, name, (Side("minifcn", "minifcn", work), *theirs), **goals)

    def against_dezero(name, work):
        return Comparison("dezero", name, (Side("minifcn", "minifcn", work), Side("DeZero", "DeZero", work)))

    return [
        *(
            against_pytorch("layers", name, shrink(work), goal=1.0 if work.task == "forward" else None)
            for name, work in _convolutions(convolutions)
        ),
        *(
            against_pytorch("atrous", f"dilation {d} {task}", shrink(Convolution(task, 512, 512, 64, dilation=d)))
            for task in ("forward", "backward")
            for d in DILATIONS
        ),
        against_pytorch("vgg", "FCN-8s-VGG16 forward", vgg, goal=0.45, memory_goal=1.0),
        against_pytorch("vgg", "FCN-8s-VGG16 training step", replace(vgg, task="step"), goal=0.40, memory_goal=1.0),
        against_pytorch("mini", "FCN-8s-mini training step", mini, goal=0.80, memory_goal=1.0),
        against_pytorch("lite0", "FCN-8s-EfficientNet-Lite0 forward", lite0, goal=0.85, memory_goal=1.0),
        against_pytorch("lite0", "FCN-8s-EfficientNet-Lite0 training step", lite0_step, goal=0.55, memory_goal=1.0),
        against_pytorch("unet", "U-Net same, 256 × 256, forward", unet, goal=0.8, memory_goal=1.0),
        against_pytorch(
            "unet", "U-Net same, 256 × 256, training step", replace(unet, task="step"), goal=0.8, memory_goal=1.0
        ),
        against_pytorch("unet", "U-Net valid, 572 × 572, forward", valid, goal=0.8, memory_goal=1.0),
        against_pytorch(
            "unet", "U-Net valid, 572 × 572, training step", replace(valid, task="step"), goal=0.8, memory_goal=1.0
        ),
        Comparison("scaling", "FCN-8s-VGG16 forward, twice the sides", (large, small), goal=4.3),
        Comparison(
            "panoptic",
            "panoptic FCN-8s and its objects",
            (
                Side("with objects", "minifcn", photograph),
                Side("FCN-8s alone", "minifcn", replace(photograph, objects=False)),
            ),
        ),
        *(against_dezero(name, shrink(work)) for name, work in _convolutions(for_dezero)),
    ]


def _convolutions(names):
    """(title, Convolution) of these layers of VGG16, first all forwards and then all backwards."""
    for task in ("forward", "backward"):
        for name in names:
            yield f"{name} {task}", Convolution(task, *VGG16[name], image=name == "conv1_1")


def tiny(work):
    """The same work at a size that takes no time."""
    if isinstance(work, Convolution):
        return replace(work, inputs=min(work.inputs, 4), outputs=5, side=12)
    if isinstance(work, Photograph):
        return replace(work, backbone="mini", height=45, width=60)
    if work.alignment == "valid":
        return replace(work, height=204, width=188, narrow=16)
    return replace(work, height=45, width=45, batch=min(work.batch, 2), narrow=16)
