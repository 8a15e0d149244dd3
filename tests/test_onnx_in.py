"""ONNX files read: ONNX's own node cases, networks that PyTorch exported, what minifcn wrote, and hostile files."""

import importlib
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from networks import close, picture, tiny

from minifcn import layers, models, ops, weights
from minifcn.errors import InputError

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

pytestmark = pytest.mark.onnx


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, arrays=None, shape=("n", 3, "h", "w"), opset=17, outputs=None):
    """A model of nodes over the input "x", with arrays by name; its output is that of the last node."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (arrays or {}).items()]
    outputs = outputs or [value(nodes[-1].output[0], None)]
    graph = helper.make_graph(nodes, "g", [value("x", shape)], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def read(made, folder):
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return weights.load_onnx(path)


# --- ONNX's own cases -------------------------------------------------------------------------------------------------

LEAST = {  # cases that pass, by operator; the others have one or three axes, or are refused by name
    "Conv": 5, "ConvTranspose": 6, "BatchNormalization": 2, "Relu": 1, "Clip": 9, "MaxPool": 8, "AveragePool": 9,
    "GlobalAveragePool": 2, "Gemm": 8, "Flatten": 3, "Add": 1, "Mul": 2, "Slice": 6, "Resize": 16, "Softmax": 7,
    "Dropout": 4, "LRN": 2, "Reshape": 1,
    "Concat": 0, "Pad": 0, "ReduceMean": 0, "Sub": 0, "Div": 0,  # none on maps, with zeros, or with one map
}  # fmt: skip
MODULES = [{"BatchNormalization": "batch_normalization"}.get(operator, operator.lower()) for operator in LEAST]


def as_a_network(case):
    """(model, image) of a node case: its first input is the image, the others are fixed; two maps of an elementwise node are
    halves of one image."""
    made = onnx.ModelProto()
    made.CopyFrom(case.model)
    (node,), (inputs, _) = made.graph.node, case.data_sets[0]
    named = dict(zip((v.name for v in made.graph.input), inputs, strict=True))
    first, *others = made.graph.input
    image = named[first.name]
    del made.graph.input[:]
    if node.op_type in ("Add", "Mul", "Concat") and len(others) == 1 and named[others[0].name].shape == image.shape:
        for name, begin, end in ((first.name, 0, len(image)), (others[0].name, len(image), 2 * len(image))):
            ends = {f"{name}_{key}": np.array([n]) for key, n in (("from", begin), ("to", end), ("axis", 0))}
            made.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in ends.items())
            made.graph.node.insert(0, helper.make_node("Slice", ["both", *ends], [name], f"part_{name}"))
        image = np.concatenate([image, named[others[0].name]])
        made.graph.input.append(value("both", image.shape))
    else:
        made.graph.input.append(first)
        made.graph.initializer.extend(numpy_helper.from_array(np.asarray(named[v.name]), v.name) for v in others)
    return made, image


def test_onnx_own_node_cases(tmp_path, recwarn):
    """Each case that is read gives what ONNX says; printed: how many of each operator, and why the others are refused."""
    node_cases = importlib.import_module("onnx.backend.test.case.node")
    for module in MODULES:  # those of all operators take minutes
        importlib.import_module(f"{node_cases.__name__}.{module}")
    cases = node_cases._NodeTestCases
    passed, tried, refused = Counter(), Counter(), {}
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in LEAST or not case.data_sets:
            continue
        inputs, outputs = case.data_sets[0]
        if not isinstance(inputs[0], np.ndarray) or inputs[0].dtype not in ("float32", "float64"):
            continue
        operator = nodes[0].op_type
        tried[operator] += 1
        made, image = as_a_network(case)
        try:
            network = read(made, tmp_path)
            found = network.forward(image)
        except InputError as error:
            refused[case.name] = str(error).partition(", got ")[2]
            continue
        np.testing.assert_allclose(found, outputs[0], rtol=case.rtol, atol=case.atol + 1e-6, err_msg=case.name)
        passed[operator] += 1
    for operator, count in tried.items():
        print(f"{operator:20} {passed[operator]:3} of {count}")
    print(*(f"  {name}: {reason}" for name, reason in refused.items()), sep="\n")
    assert {operator: passed[operator] for operator in LEAST if passed[operator] < LEAST[operator]} == {}


# --- Networks that PyTorch exported -----------------------------------------------------------------------------------

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

    return {"fcn": (Fcn, (2, 3, 30, 38)), "unet": (UNet, (2, 3, 16, 24)), "deeplab": (DeepLab, (2, 3, 49, 33)),
            "resnet18": (resnet18, (4, 3, 64, 64))}  # fmt: skip


def exported(torch, network, x, path, new):
    """By PyTorch's old exporter for images of any size, or by the new one for the size of x."""
    options = {"dynamo": True, "external_data": False}
    if not new:
        axes = {"image": {0: "batch", 2: "height", 3: "width"}}
        options = {"dynamo": False, "opset_version": 13, "input_names": ["image"], "dynamic_axes": axes}
        options["training"] = torch.onnx.TrainingMode.PRESERVE  # batch normalisations stay nodes
    torch.onnx.export(network, (x,), str(path), **options)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
@pytest.mark.parametrize("name", ["fcn", "unet", "deeplab", "resnet18"])
def test_what_pytorch_exports_gives_and_learns_the_same(name, new, tmp_path):
    """The same logits, and the same loss in each of 20 steps of SGD from there."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if new:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    torch.manual_seed(0)
    build, shape = torch_networks(torch)[name]
    theirs, x, path = build().eval(), torch.randn(shape), tmp_path / "theirs.onnx"
    for module in theirs.modules():  # statistics that are not those of a new one
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += torch.randn_like(module.running_mean) / 10
            module.running_var *= 1.5
    exported(torch, theirs, x, path, new)
    ours = weights.load_onnx(path)
    close(ours.forward(x.numpy()), theirs(x).detach().numpy(), 1e-5)
    if not new and name != "resnet18":  # another size than it was exported with
        larger = torch.randn(1, 3, 40, 56)
        close(ours.forward(larger.numpy()), theirs(larger).detach().numpy(), 1e-5)
    if new:  # which folds normalisations into convolutions: what learns is their product
        for pair in theirs.modules():
            if isinstance(pair, torch.nn.Sequential) and isinstance(pair[1], torch.nn.BatchNorm2d):
                pair[0], pair[1] = torch.nn.utils.fuse_conv_bn_eval(*pair[:2]), torch.nn.Identity()
        theirs.requires_grad_()  # the new biases too
    for norm in ours.layers_of(layers.BatchNorm2d):
        norm.frozen = True  # as PyTorch's are in eval mode
    labels = torch.randint(0, 4, (shape[0], *theirs(x).shape[2:]))
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


# --- What minifcn wrote -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: tiny("8s"),
        lambda: tiny("16s", "same", upsampling="learned"),
        lambda: tiny("8s", at_once=True),
        lambda: models.unet(2, width=2, depth=2, padding="same", batch_norm=True, upsampling="bilinear"),
        lambda: models.pretrained("animals"),
    ],
    ids=["8s", "16s learned", "at once", "unet", "animals"],
)
@pytest.mark.parametrize("fold", [False, True])
def test_out_and_in_again(build, fold, tmp_path):
    network, path, x = build(), tmp_path / "network.onnx", picture(33, 57)
    for name, parameter in network.parameters().items():  # score layers begin as zeros
        if name.startswith("score"):
            parameter.value = parameter.value + np.float32(0.1)
    weights.save_onnx(path, network, fold=fold)
    back = weights.load_onnx(path)
    close(back.forward(x), network.forward(x), 1e-5)
    if not fold:
        given = network.state_dict()
        assert given.keys() == back.state_dict().keys()
        for name, array in back.state_dict().items():
            np.testing.assert_array_equal(array, given[name], err_msg=name)
        assert [type(back[name]) for name in back.nodes] == [
            layers.ConvTranspose2d if type(layer) is layers.LearnedUpsample else type(layer)
            for layer, _ in network.nodes.values()
        ]
    assert back.card.describe() == network.card.describe()
    y = back.forward(x, train=True)
    assert back.backward(y).shape == x.shape
    assert models.load_segmenter(path).card.classes


# --- Hostile files ----------------------------------------------------------------------------------------------------

KERNEL = {"w": np.ones((2, 3, 1, 1), np.float32)}
CONV = helper.make_node("Conv", ["x", "w"], ["y"], "c")


def lying(**changes):
    """A convolution whose kernel's tensor says something else of itself."""
    made = model([CONV], KERNEL)
    for key, found in changes.items():
        if key == "dims":
            made.graph.initializer[0].dims[:] = found
        else:
            setattr(made.graph.initializer[0], key, found)
    return made


def external(**entries):
    made = lying(data_location=TensorProto.EXTERNAL)
    made.graph.initializer[0].ClearField("raw_data")
    for key, text in entries.items():
        made.graph.initializer[0].external_data.add(key=key, value=text)
    return made


def chain(*nodes, **arrays):
    return model(
        [helper.make_node(*node[:3], f"n{i}", **node[3]) for i, node in enumerate(nodes)], {**KERNEL, **arrays}
    )


def squared(times):
    """A size multiplied by itself again and again."""
    names = ["a", *(f"a{i}" for i in range(times))]
    nodes = [("Mul", [a, a], [b], {}) for a, b in zip(names, names[1:], strict=False)]
    return chain(*nodes, ("Relu", ["x"], ["y"], {}), a=np.array([99]))


HOSTILE = {
    "2⁶³ elements": (lambda: lying(dims=[1 << 62, 2, 1, 1]), "'w' of shape"),
    "a negative side": (lambda: lying(dims=[-2, -3, 1, 1]), "'w' of shape"),
    "fewer bytes than the shape says": (lambda: lying(dims=[2, 3, 3, 3]), "in 24 bytes"),
    "a type that nobody knows": (lambda: lying(data_type=99), "of type 99"),
    "text as weights": (lambda: lying(data_type=TensorProto.STRING), "of type STRING"),
    "weights outside the folder": (lambda: external(location="../secret"), "outside the folder"),
    "weights at an absolute path": (lambda: external(location="/etc/passwd"), "outside the folder"),
    "weights that are not there": (lambda: external(location="none.bin"), "not there"),
    "weights beyond the end": (lambda: external(location="model.onnx", offset="999999"), "does not hold"),
    "weights of a negative offset": (lambda: external(location="model.onnx", offset="-1"), "does not hold"),
    "a cycle": (lambda: chain(("Add", ["x", "b"], ["a"], {}), ("Relu", ["a"], ["b"], {})), "'n0' .*no earlier node"),
    "one name for two values": (lambda: chain(("Relu", ["x"], ["a"], {}), ("Relu", ["x"], ["a"], {})), "'a' twice"),
    "an operator that nobody knows": (lambda: chain(("Einsum", ["x"], ["y"], {})), "Conv.*got 'Einsum' .node 'n0'"),
    "a foreign domain": (lambda: chain(("Relu", ["x"], ["y"], {"domain": "evil"})), "got 'evil.Relu'"),
    "an attribute that nobody knows": (lambda: chain(("Relu", ["x"], ["y"], {"alpha": 1.0})), "'n0' .*'alpha'"),
    "an attribute of another type": (lambda: chain(("Conv", ["x", "w"], ["y"], {"group": "1"})), "'n0' .*'group'"),
    "a huge stride": (lambda: chain(("Conv", ["x", "w"], ["y"], {"strides": [1 << 40, 1]})), "'n0' .*'strides'"),
    "a kernel for other channels": (lambda: model([CONV], KERNEL, ("n", 5, "h", "w")), "'c' .*does not fit 5"),
    "an output of another size": (
        lambda: model([CONV], KERNEL, (1, 3, 8, 8), outputs=[value("y", (1, 2, 9, 8))]),
        "'y' declared",
    ),
    "NaN": (lambda: model([CONV], {"w": KERNEL["w"] * np.nan}), "NaN"),
    "an old opset": (lambda: model([CONV], KERNEL, opset=10), "version .10."),
    "an opset to come": (lambda: model([CONV], KERNEL, opset=999), "version .999."),
    "sizes of 2⁶³": (lambda: squared(60), "2⁶³"),
    "a size of any make": (
        lambda: chain(("Shape", ["x"], ["s"], {}), ("Reshape", ["x", "s"], ["y"], {})),
        "'n1' .*known: .N, the rest",
    ),
    "a constant of more axes than maps": (
        lambda: chain(("Mul", ["x", "five"], ["y"], {}), five=np.ones((1,) * 5, np.float32)),
        "'n0' .*no more axes",
    ),
    "pads twice": (
        lambda: chain(("Conv", ["x", "w"], ["y"], {"auto_pad": "VALID", "pads": [1, 1, 1, 1]})),
        "'n0' .*one of the two",
    ),
    "a remainder as in C": (
        lambda: chain(("Mod", ["a", "a"], ["b"], {"fmod": 1}), ("Relu", ["x"], ["y"], {}), a=np.array([-7])),
        "'n0' .*'fmod'",
    ),
    "a size that becomes a fraction": (
        lambda: chain(("Cast", ["a"], ["b"], {"to": TensorProto.FLOAT}), ("Relu", ["x"], ["y"], {}), a=np.array([3])),
        "'n0' .*no whole number",
    ),
    "no kernel at all": (
        lambda: chain(("Conv", ["x", "none"], ["y"], {}), none=np.ones((0, 3, 3, 3), np.float32)),
        "'n0' .*expected numbers",
    ),
    "positions that nobody knows": (
        lambda: chain(
            ("Resize", ["x", "", "s"], ["y"], {"coordinate_transformation_mode": "bogus"}),
            s=np.array([1, 1, 2, 2], np.float32),
        ),
        "'n0' .*bogus",
    ),
    "one value as two outputs": (
        lambda: model(
            [CONV, helper.make_node("Identity", ["y"], ["z"])], KERNEL, outputs=[value("y", None), value("z", None)]
        ),
        "two outputs",
    ),
    "two images": (lambda: chain(("Add", ["x", "x"], ["y"], {})), None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_line(name, tmp_path):
    build, reason = HOSTILE[name]
    made = build()
    if reason is None:
        made.graph.input.append(value("z", (1, 3, 4, 4)))
        reason = "'x', 'z'"
    (tmp_path / "secret").write_bytes(bytes(24))
    folder = tmp_path / "folder"
    folder.mkdir()
    tracemalloc.start()
    with pytest.raises(InputError, match=reason) as error:
        read(made, folder)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert str(error.value).startswith(f"{folder / 'model.onnx'}: expected ")
    assert str(error.value).isprintable()


def test_weights_beside_the_file_are_read(tmp_path):
    np.arange(6, dtype="<f4").tofile(tmp_path / "w.bin")
    network = read(external(location="w.bin", offset="0", length="24"), tmp_path)
    np.testing.assert_array_equal(network["c"].weight.value.ravel(), np.arange(6))


def test_another_programs_file_has_no_card(tmp_path):
    assert read(model([CONV], KERNEL), tmp_path).card is None
    with pytest.raises(InputError, match="model.onnx: .*weights.load_onnx"):
        models.load_segmenter(tmp_path / "model.onnx")


def test_a_reshape_holds_to_its_number_of_values(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    network = read(model(nodes, {"shape": np.array([-1, 12])}), tmp_path)
    assert network.forward(picture(2, 2)).shape == (1, 12)
    with pytest.raises(InputError, match="expected 12 values an image, got 48"):  # which would be four images
        network.forward(picture(4, 4))


def test_a_size_by_scale_is_rounded_as_in_float32(tmp_path):
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")]
    network = read(model(nodes, {"scales": np.array([1, 1, 0.7, 2.3], np.float32)}), tmp_path)
    assert network.forward(picture(10, 10)).shape == (1, 3, 7, 23)  # as PyTorch and ONNX Runtime have it
