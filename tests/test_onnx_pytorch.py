"""Networks that PyTorch's two exporters wrote as ONNX files: the same logits at any size, and the same training."""

import numpy as np
import pytest
from networks import close

from minifcn import layers, ops, weights

pytest.importorskip("onnx", reason="onnx is not installed")

pytestmark = [pytest.mark.onnx, pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


DEVIATION = 1e-4


def torch_networks(torch):
    """Small networks of PyTorch's by name: what builds them, and the shape of their images."""
    nn, functional = torch.nn, torch.nn.functional

    def step(inputs, outputs, kernel=3, **options):
        conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

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

    class DeepLab(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU6(), nn.MaxPool2d(3, 2, 1))
            self.rates = nn.ModuleList([step(8, 4, padding=rate, dilation=rate) for rate in (1, 2, 3)])
            self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU())
            self.score = nn.Conv2d(16, 4, 1)

        def forward(self, x):
            y = self.stem(x)
            mean = functional.interpolate(self.mean(y), size=y.shape[2:], mode="bilinear")
            y = self.score(torch.cat([*(rate(y) for rate in self.rates), mean], 1))
            return functional.interpolate(y, size=x.shape[2:], mode="bilinear")

    class Residual(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.first = step(inputs, outputs, stride=stride, padding=1)
            self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
            same = stride == 1 and inputs == outputs
            self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)

        def forward(self, x):
            return (self.second(self.first(x)) + self.short(x)).relu()

    def resnet18():
        stem = [step(3, 8, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1)]
        sides = zip((8, 8, 12, 16), (8, 12, 16, 24), (1, 2, 2, 2), strict=True)
        blocks = [block for i, o, s in sides for block in (Residual(i, o, s), Residual(o, o, 1))]
        return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.0), nn.Linear(24, 4))

    return {
        "fcn": (Fcn, (2, 3, 30, 38)),
        "unet": (UNet, (2, 3, 16, 24)),
        "unet padding": (UNetPadding, (2, 3, 18, 27)),
        "unet cropping": (UNetCropping, (2, 3, 18, 27)),
        "deeplab": (DeepLab, (2, 3, 49, 33)),
        "resnet18": (resnet18, (4, 3, 64, 64)),
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
    """A network of PyTorch's whose statistics are not those of a new one, and images for it."""
    torch.manual_seed(0)
    build, shape = torch_networks(torch)[name]
    network = build().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += torch.randn_like(module.running_mean) / 10
            module.running_var *= 1.5
    return network, torch.randn(shape)


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("name", ["fcn", "unet padding", "unet cropping", "deeplab"])
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
@pytest.mark.parametrize("name", ["fcn", "unet", "deeplab", "resnet18"])
def test_what_pytorch_exports_gives_and_learns_the_same(name, new, tmp_path):
    """The same logits, and the same loss in each of 20 steps of SGD from there."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if new:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    theirs, x = built(torch, name)
    exported(torch, theirs, x, tmp_path / "theirs.onnx", new, free=not new)
    ours = weights.load_onnx(tmp_path / "theirs.onnx")
    close(ours.forward(x.numpy()), theirs(x).detach().numpy(), 1e-5)
    if new:  # which folds normalisations into convolutions: what learns is their product
        for pair in theirs.modules():
            if isinstance(pair, torch.nn.Sequential) and isinstance(pair[1], torch.nn.BatchNorm2d):
                pair[0], pair[1] = torch.nn.utils.fuse_conv_bn_eval(*pair[:2]), torch.nn.Identity()
        theirs.requires_grad_()  # the new biases too
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
            parameter.value = parameter.value - np.float32(0.05) * parameter.grad
            parameter.zero_grad()
