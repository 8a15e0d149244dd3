"""ONNX files read: ONNX's own node cases, what minifcn wrote, and what a file may leave open."""

import importlib
from collections import Counter

import numpy as np
import pytest
from networks import close, picture, tiny
from onnx_files import CONV, KERNEL, chain, external, helper, model, numpy_helper, onnx, read, value

from minifcn import inference, layers, models, weights
from minifcn.card import Card
from minifcn.errors import InputError
from minifcn.layers.graph import IMAGE
from minifcn.models.fields import fields
from minifcn.training import checkpoint

pytestmark = pytest.mark.onnx


# --- ONNX's own cases -------------------------------------------------------------------------------------------------

# Aligns corners of a map of length · scale, which is no whole number; ONNX Runtime and PyTorch align those of the map that is made.
ANOTHER_LENGTH = "test_resize_downsample_scales_linear_align_corners"
LEAST = {  # cases that pass, by operator; the others are of one or three axes, or what the page of ONNX leaves out
    "Conv": 5, "ConvTranspose": 6, "BatchNormalization": 2, "Relu": 1, "Clip": 9, "MaxPool": 8, "AveragePool": 9,
    "GlobalAveragePool": 2, "Gemm": 8, "Flatten": 3, "Add": 2, "Mul": 3, "Slice": 6, "Resize": 15, "Softmax": 7,
    "Dropout": 4, "LRN": 2, "Reshape": 1, "Concat": 12, "Pad": 3, "ReduceMean": 6, "Sub": 3, "Div": 3,
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
    if (
        node.op_type in ("Add", "Sub", "Mul", "Div", "Concat")
        and len(others) == 1
        and named[others[0].name].shape == image.shape
    ):
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
        if len(nodes) != 1 or nodes[0].op_type not in LEAST or not case.data_sets or case.name == ANOTHER_LENGTH:
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
    assert back.card.describe() == (network.folded() if fold else network).card.describe()
    weights.save(tmp_path / "again.npz", back)
    again = models.load_segmenter(tmp_path / "again.npz")
    np.testing.assert_array_equal(again.forward(x), back.forward(x))
    y = back.forward(x, train=True)
    assert back.backward(y).shape == x.shape
    assert models.load_segmenter(path).card.classes


def test_learned_upsampling_of_one_class_stays_learned(tmp_path):
    """Its kernels begin as those of frozen upsampling."""
    network, x = models.fcn("8s", "mini", 1, "same", upsampling="learned", width=2), picture(33, 57)
    weights.save_onnx(tmp_path / "network.onnx", network)
    back = weights.load_onnx(tmp_path / "network.onnx")
    assert type(back["upscore8"]) is layers.ConvTranspose2d
    weights.save(tmp_path / "again.npz", back)
    np.testing.assert_array_equal(models.load(tmp_path / "again.npz").forward(x), network.forward(x))


@pytest.mark.parametrize(
    "change", [{"bias": True}, {"output_pad": 1}, {"dilation": 2}], ids=["bias", "output pad", "dilation"]
)
def test_a_bilinear_kernel_keeps_what_a_frozen_upsampling_lacks(change, tmp_path, rng):
    up = layers.ConvTranspose2d(3, 3, 4, rng, **{"stride": 2, "pad": 1, "groups": 3, "bias": False, **change})
    line = layers.init.bilinear_1d(4)
    up.weight.value = np.broadcast_to(np.outer(line, line), (3, 1, 4, 4)).copy()
    if up.bias:
        up.bias.value += 1
    network, x = models.Sequential(up=up, card=Card("up", {})), picture(5, 6)
    weights.save_onnx(tmp_path / "network.onnx", network)
    close(weights.load_onnx(tmp_path / "network.onnx").forward(x), network.forward(x), 1e-6)


def test_a_classifier_keeps_its_native_size(tmp_path):
    network, image = models.mini(5, width=2), np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    network.card.native = 48
    for name in ("mini.onnx", "mini.npz"):
        (weights.save_onnx if name.endswith("onnx") else weights.save)(tmp_path / name, network)
        back = models.load(tmp_path / name)
        assert back.card.native == 48
        close(*(np.array(sorted(inference.classify.top(one, image))) for one in (back, network)), 1e-5)
    with pytest.raises(InputError, match="a file: expected the side of a classifier's images in pixels, got '0'"):
        network.card.take_over({"native": 0}, "a file")
    network.card.take_over({}, "a file of before")
    assert network.card.native == 48


def test_a_card_without_a_number_of_classes_may_name_them(tmp_path, rng):
    card = Card("own", {}, classes=("a", "b"))
    weights.save_onnx(tmp_path / "own.onnx", models.Sequential(conv=layers.Conv2d(3, 2, 1, rng), card=card))
    assert weights.load_onnx(tmp_path / "own.onnx").card.classes == ("a", "b")


def test_a_network_that_was_read_computes_on_the_device(tmp_path, device):
    network, x = tiny("8s"), picture(33, 57)
    weights.save_onnx(tmp_path / "network.onnx", network)
    back = weights.load_onnx(tmp_path / "network.onnx")
    close(device.get(back.forward(device.put(x))), device.get(network.forward(device.put(x))), 1e-5)


def test_a_broadcast_sum_is_read_again_with_a_card(tmp_path):
    made = chain(("Conv", ["x", "w"], ["y"], {}), ("Add", ["y", "b.one"], ["z"], {}), **{"b.one": np.float32(1)})
    network, x = read(made, tmp_path), picture(4, 5)
    network.card = Card("another program's", {})
    weights.save_onnx(tmp_path / "again.onnx", network)
    close(weights.load_onnx(tmp_path / "again.onnx").forward(x), network.forward(x), 1e-6)


# --- What a file may leave open ----------------------------------------------------------------------------------------


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


def test_sizes_are_computed_as_onnx_runtime_does(tmp_path):
    """Quotients towards zero and remainders with the divisor's sign, of sizes and of sizes less than nothing."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    numbers = {name: np.array([n]) for name, n in {"two": 2, "three": 3, "seven": 7, "fifty": 50, "minus": -7}.items()}
    steps = [
        ("Shape", ["x"], ["shape"], {}),
        ("Gather", ["shape", "two"], ["height"], {}),
        ("Sub", ["height", "fifty"], ["less"], {}),
        ("Div", ["less", "seven"], ["ends"], {}),  # below zero: from the end
        ("Mod", ["less", "minus"], ["rest"], {}),
        ("Neg", ["rest"], ["starts"], {}),
        ("Slice", ["x", "starts", "ends", "two"], ["rows"], {}),
        ("Slice", ["rows", "starts", "fifty", "three"], ["y"], {}),
    ]
    made = chain(*steps, **numbers)
    network, session = read(made, tmp_path), onnxruntime.InferenceSession(made.SerializeToString())
    for height in range(20, 36):
        x = picture(height, 9)
        np.testing.assert_array_equal(network.forward(x), session.run(None, {"x": x})[0])


def two_readers(*biases):
    """Two convolutions with one kernel, whose outputs are added."""
    arrays = {"w": picture(3, 3)[:, :, :1, :1].repeat(3, axis=0), "b": np.ones(3, np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w", bias], [f"y{i}"], f"c{i}") for i, bias in enumerate(biases)]
    arrays |= dict.fromkeys(biases, arrays["b"])
    return model([*nodes, helper.make_node("Add", ["y0", "y1"], ["y"], "sum")], arrays)


def test_a_kernel_that_two_nodes_read_is_one_parameter(tmp_path):
    """Its gradient is the sum, it is stepped once, and it is written once; a bias is shared with its kernel only."""
    network, x = read(two_readers("b", "b"), tmp_path), picture(4, 5)
    assert list(network.parameters()) == ["c0.weight", "c0.bias"]
    dy = network.forward(x, train=True)
    network.backward(dy)
    apart = read(two_readers("b", "other"), tmp_path)
    assert list(apart.parameters()) == ["c0.weight", "c0.bias", "c1.bias"]
    np.testing.assert_allclose(network["c0"].weight.grad[:, :, 0, 0], 2 * np.einsum("nkhw,nchw->kc", dy, x), rtol=1e-5)
    weights.save_onnx(tmp_path / "again.onnx", network)
    again = weights.load_onnx(tmp_path / "again.onnx")
    assert list(again.parameters()) == ["c0.weight", "c0.bias"]
    np.testing.assert_array_equal(again.forward(x), network.forward(x))


def test_a_matrix_that_two_nodes_read_is_one_parameter_with_its_bias(tmp_path):
    arrays = {"w": np.eye(3, dtype=np.float32), "b": np.ones(3, np.float32)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["v"], "flat"),
    ]
    nodes += [helper.make_node("Gemm", [a, "w", "b"], [b], b, transB=1) for a, b in (("v", "u"), ("u", "y"))]
    network = read(model(nodes, arrays), tmp_path)
    assert list(network.parameters()) == ["u.weight", "u.bias"]


def test_a_constant_keeps_its_gradient_to_itself(tmp_path):
    nodes = [helper.make_node("Add", ["x", "position"], ["y"], "sum")]
    network = read(model(nodes, {"position": picture(4, 5)}), tmp_path)
    dy = network.forward(picture(4, 5), train=True)
    given = dy.copy()
    for _ in range(2):
        network.forward(picture(4, 5), train=True)
        network.backward(dy)
    np.testing.assert_array_equal(dy, given)
    np.testing.assert_allclose(network["position"].weight.grad, 2 * given)


def test_a_folded_network_is_no_start_for_training(tmp_path):
    weights.save(tmp_path / "folded.npz", tiny("8s").folded())
    with pytest.raises(InputError, match=r"folded.npz: a network folded for inference"):
        checkpoint.start_from(tmp_path / "folded.npz", tiny("8s"))
    for change, to in ((models.surgery.replace_scores, 3), (models.surgery.add_skips, "16s")):
        with pytest.raises(InputError, match="folded"):
            change(tiny("32s").folded(), to)


@pytest.mark.parametrize("shape", [("n", 5, "h", "w"), (1, 2, 30, 40), ("n", 7)])
def test_the_shape_that_a_file_declares_is_written_again(shape, tmp_path):
    """There is no convolution that would say how many channels there are."""
    network = read(model([helper.make_node("Relu", ["x"], ["y"])], shape=shape), tmp_path)
    weights.save_onnx(tmp_path / "again.onnx", network)
    if len(shape) == 4:
        assert models.explain(network, (8, 9)).input_shape[1] == shape[1]
    again = onnx.load(tmp_path / "again.onnx")
    for one in (*again.graph.input, *again.graph.output):
        found = [d.dim_value or None for d in one.type.tensor_type.shape.dim]
        assert found == [None, *(n if isinstance(n, int) else None for n in shape[1:])]


def test_a_scale_beside_its_layers_name_is_read(tmp_path):
    made = chain(
        ("Conv", ["x", "w"], ["y"], {}),
        ("Mul", ["y", "block.gamma"], ["z"], {}),
        **{"block.gamma": np.full((2, 1, 1), 3, np.float32)},
    )
    x = picture(4, 5)
    close(read(made, tmp_path).forward(x), 3 * np.repeat(x.sum(axis=1, keepdims=True), 2, axis=1), 1e-6)


def test_what_was_read_of_another_program_is_written_and_read_again(tmp_path):
    made = chain(
        ("Conv", ["x", "w"], ["y"], {}),
        ("Add", ["y", "b.one"], ["s"], {}),
        ("Clip", ["s", "c.low"], ["z"], {}),
        **{"b.one": np.float32(1), "c.low": np.float32(0.5)},
    )
    network, x = read(made, tmp_path), picture(4, 5)
    weights.save_onnx(tmp_path / "again.onnx", network)
    close(weights.load_onnx(tmp_path / "again.onnx").forward(x), network.forward(x), 1e-6)


def test_an_output_without_classes_is_not_written(tmp_path):
    network = read(
        chain(("Conv", ["x", "w"], ["y"], {}), ("ReduceMean", ["y"], ["z"], {"axes": [1, 2, 3], "keepdims": 0})),
        tmp_path,
    )
    with pytest.raises(InputError, match="expected an output of images and classes"):
        weights.save_onnx(tmp_path / "again.onnx", network)


def test_rows_and_columns_of_a_resize_are_its_own(rng):
    nodes = {"up": (layers.Resize(scale=(2, 3)), [IMAGE])}
    found = fields(models.Graph(nodes, ["up"]), (1, 3, 10, 20))["up"]
    assert (len(found.rows), len(found.columns)) == (20, 60)
    assert found.columns[[0, 30, 59]].tolist() == [[0, 0], [9, 10], [19, 19]]
    mean = models.Graph({"mean": (layers.Mean((1,)), [IMAGE])}, ["mean"])
    np.testing.assert_array_equal(
        fields(mean, (1, 3, 4, 5))["mean"].columns, np.repeat(np.arange(5)[:, None], 2, axis=1)
    )
    assert models.explain(mean, 8).receptive_field == 1


def test_an_unpadded_network_mirrors_images_after_its_way_through_a_file(tmp_path):
    network = models.unet(3, width=2, depth=2)
    network.card.classes = ("a", "b", "c")
    weights.save_onnx(tmp_path / "unet.onnx", network)
    image = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    expected, found = (
        inference.predict(one, image) for one in (network, models.load_segmenter(tmp_path / "unet.onnx"))
    )
    np.testing.assert_array_equal(found, expected)
