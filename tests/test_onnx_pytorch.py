"""Networks that PyTorch's two exporters wrote as ONNX files: the same logits at any size, and the same training."""

import importlib
import importlib.util

import numpy as np
import pytest
from networks import close

from minifcn import layers, ops, weights

pytest.importorskip("onnx", reason="onnx is not installed")

pytestmark = [pytest.mark.onnx, pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


DEVIATION = 1e-6


_KEPT = []  # an operator is known as long as its library's object lives


def torchvision_of(torch):
    """torchvision, or a skipped test. Its usual wheel is built for CUDA: beside a CPU PyTorch two operators of detection are
    missing, which importing it asks for and no network here has; their names are enough."""
    if not importlib.util.find_spec("torchvision"):
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _KEPT.append(library)
        return importlib.import_module("torchvision")


def torch_networks(torch):
    """Small networks of PyTorch's by name: what builds them, and the shape of their images."""
    vision = torchvision_of(torch)
    nn, functional, segmentation = torch.nn, torch.nn.functional, vision.models.segmentation
    step = vision.ops.Conv2dNormActivation

    class Fcn(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
            self.pool, self.score, self.skip = nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(8, 4, 1), nn.Conv2d(6, 4, 1)
            self.up = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, bias=False)

        def forward(self, x):
            half = self.pool(self.conv1(x).relu())
            y = self.up(self.score(self.pool(self.conv2(half).relu())))
            y = y[:, :, : half.shape[2], : half.shape[3]] + self.skip(half)
            return functional.interpolate(y, size=x.shape[2:], mode="bilinear")

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.bottom, self.right = step(3, 4, padding=1), step(4, 8, padding=1), step(8, 4, padding=1)
            self.up, self.score = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            skip = self.down(x)
            up = self.up(self.bottom(functional.max_pool2d(skip, 2)))
            return self.score(self.right(torch.cat([skip, up], 1)))

    class UNetPadding(UNet):
        """Where a map on the way up is smaller than its skip, zeros are added around it."""

        def forward(self, x):
            skip = self.down(x)
            up = self.up(self.bottom(functional.max_pool2d(skip, 2)))
            high, wide = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
            up = functional.pad(up, [wide // 2, wide - wide // 2, high // 2, high - high // 2])
            return self.score(self.right(torch.cat([skip, up], 1)))

    class UNetCropping(UNet):
        """Unpadded: of a skip the middle is taken. The image is padded to a multiple, the scores cropped."""

        def __init__(self):
            super().__init__()
            self.bottom = step(4, 8)

        def forward(self, x):
            height, width = x.shape[2:]
            skip = self.down(functional.pad(x, [4, 4 + -width % 8, 4, 4 + -height % 8]))
            up = self.up(self.bottom(functional.max_pool2d(skip, 2)))
            top, left = (skip.shape[2] - up.shape[2]) // 2, (skip.shape[3] - up.shape[3]) // 2
            skip = skip[:, :, top : top + up.shape[2], left : left + up.shape[3]]
            return self.score(self.right(torch.cat([skip, up], 1)))[:, :, 2 : 2 + height, 2 : 2 + width]

    def trunk(last):
        """A ResNet-18 up to a group of its blocks."""
        return vision.models._utils.IntermediateLayerGetter(vision.models.resnet18(), {last: "out"})

    def fcn_resnet():
        return Logits(segmentation.FCN(trunk("layer4"), segmentation.fcn.FCNHead(512, 4)))

    def deeplab():
        return Logits(segmentation.DeepLabV3(trunk("layer3"), segmentation.deeplabv3.DeepLabHead(256, 4, (1, 2, 3))))

    class Logits(nn.Module):
        """torchvision's networks give a table of outputs."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)["out"]

    return {
        "fcn": (Fcn, (2, 3, 30, 38)),
        "unet": (UNet, (2, 3, 16, 24)),
        "unet padding": (UNetPadding, (2, 3, 18, 27)),
        "unet cropping": (UNetCropping, (2, 3, 18, 27)),
        "fcn resnet": (fcn_resnet, (2, 3, 65, 97)),
        "deeplab": (deeplab, (2, 3, 65, 81)),
        "resnet18": (lambda: vision.models.resnet18(num_classes=4), (4, 3, 64, 64)),
    }


def exported(torch, network, x, path, new, free=True):
    """By PyTorch's old exporter or the new one, for images in any number and of any size, or for those of x only."""
    options = {"dynamo": True, "external_data": False}
    if not new:
        options = {"dynamo": False, "opset_version": 13}
        options["training"] = torch.onnx.TrainingMode.PRESERVE  # batch normalisations stay nodes
    if new and free:
        any_size = torch.export.Dim.DYNAMIC
        options["dynamic_shapes"] = ({0: any_size, 2: any_size, 3: any_size},)
    if not new and free:
        options |= {"input_names": ["image"], "dynamic_axes": {"image": {0: "batch", 2: "height", 3: "width"}}}
    torch.onnx.export(network, (x,), str(path), **options)


def built(torch, name):
    """A network of PyTorch's whose statistics are those of a few batches, and images for it."""
    torch.manual_seed(0)
    build, shape = torch_networks(torch)[name]
    network = build()
    for _ in range(3):
        network(torch.randn(shape))
    return network.eval(), torch.randn(shape)


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("name", ["fcn", "unet padding", "unet cropping", "fcn resnet", "deeplab", "resnet18"])
def test_what_is_exported_for_any_size_is_read_for_any_size(name, new, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if new:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    theirs, x = built(torch, name)
    exported(torch, theirs, x, tmp_path / "theirs.onnx", new)
    ours = weights.load_onnx(tmp_path / "theirs.onnx")
    for size in (x.shape, (1, 3, 33, 57), (3, 3, 97, 31)):
        x = torch.randn(size)
        close(ours.forward(x.numpy()), theirs(x).detach().numpy(), 1e-5)
    weights.save_onnx(tmp_path / "again.onnx", ours)
    again = weights.load_onnx(tmp_path / "again.onnx")
    close(again.forward(x.numpy()), ours.forward(x.numpy()), 1e-6)


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("name", ["fcn", "unet", "fcn resnet", "deeplab", "resnet18"])
def test_what_pytorch_exports_gives_and_learns_the_same(name, new, tmp_path):
    """The same logits, and the same loss in each of 20 steps of SGD from there. In float64: in float32 a rounding that turns a
    ReLU on or off is amplified, within ten steps of a ResNet-18 that learns four images by heart, to all of the loss."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if new:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    fuse = importlib.import_module("torch.fx.experimental.optimization").fuse
    theirs, x = (made.double() for made in built(torch, name))
    exported(torch, theirs, x, tmp_path / "theirs.onnx", new, free=not new)
    ours = weights.load_onnx(tmp_path / "theirs.onnx").astype(np.float64)
    close(ours.forward(x.numpy()), theirs(x).detach().numpy(), 1e-9)  # epsilons are float32 in a file
    if new:  # which folds normalisations into convolutions: what learns is their product
        theirs = fuse(theirs).requires_grad_()  # the new biases too
    for norm in ours.layers_of(layers.BatchNorm2d):
        norm.frozen = True  # as PyTorch's are in eval mode
    labels = torch.randint(0, 4, (len(x), *theirs(x).shape[2:]))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(theirs(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found, cache = ops.softmax_cross_entropy_forward(ours.forward(x.numpy(), train=True), labels.numpy())
        assert float(found) == pytest.approx(float(loss), rel=DEVIATION)
        ours.backward(ops.softmax_cross_entropy_backward(1.0, cache))
        for parameter in ours.parameters().values():
            parameter.value = parameter.value - 0.05 * parameter.grad
            parameter.zero_grad()
