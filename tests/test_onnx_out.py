"""Networks as ONNX files, run by ONNX Runtime: every network at many sizes, every layer, bytes in and labels out.

`pytest -rP -m "onnx and (slow or not slow)" tests/test_onnx_out.py` prints how far apart the logits are, and the sizes of the files.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from gradcheck_cases import LAYERS
from networks import narrow_fcn, narrow_vgg, stirred, tiny

from minifcn import cli, data, inference, layers, models, weights
from minifcn.card import Card
from minifcn.errors import InputError
from minifcn.preprocessing import CAFFE, GREY, Preprocessing

onnx = pytest.importorskip("onnx", reason="writes ONNX files, and onnx is not installed")
reference = pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime, which is not installed")

pytestmark = pytest.mark.onnx

DOCS = Path(__file__).parents[1] / "docs"
FREE = ((1, 1, 1), (1, 97, 31), (3, 33, 57))  # batch, height, width
PUBLISHED = ((3, 33, 57), (1, 500, 375))
TOLERANCE = 1e-4  # of the greatest logit; what is not rounding is far above


def convolutional(classifier, window=None):
    return models.surgery.convolutionalize(classifier, window)


def fcns(variant, backbone, **options):
    return {
        f"FCN-{variant} {backbone} {alignment}": (
            lambda alignment=alignment: models.fcn(variant, backbone, 5, alignment, **options)
        )
        for alignment in models.ALIGNMENTS
    }


ANY_SIZE = {
    **{name: build for variant in models.VARIANTS for name, build in fcns(variant, "mini", width=4).items()},
    **fcns("8s", "efficientnet_lite0"),
    **fcns("8s", "efficientnet_lite0_head"),
    "FCN-8s mini at once, learned upsampling": lambda: tiny("8s", "paper", at_once=True, upsampling="learned", width=4),
    "FCN-8s narrow VGG without normalisation": lambda: narrow_fcn("8s", "paper"),
    "U-Net same": lambda: models.unet(width=4, depth=3, padding="same"),
    "U-Net same, normalised, grey": lambda: models.unet(
        3, width=4, depth=2, padding="same", batch_norm=True, channels=1
    ),
    "U-Net same, bilinear": lambda: models.unet(width=4, depth=3, padding="same", upsampling="bilinear"),
    "U-Net over Lite0": lambda: models.unet(backbone="efficientnet_lite0"),
    "U-Net over Lite0, bilinear": lambda: models.unet(backbone="efficientnet_lite0_head", upsampling="bilinear"),
    "DeepLabv3": lambda: models.deeplab("v3", num_classes=5),
    "DeepLabv3+ over lite0_head": lambda: models.deeplab(backbone="efficientnet_lite0_head", num_classes=5),
    "DeepLabv3+ at 1/8, without image pooling": lambda: models.deeplab(output_stride=8, image_pooling=False),
    "panoptic mini": lambda: models.panoptic("mini", width=4, num_classes=3),
    "panoptic U-Net": lambda: models.panoptic(None, "unet", 3, width=4, channels=1),
    "panoptic Lite0": lambda: models.panoptic(num_classes=3),
    "panoptic DeepLabv3+": lambda: models.panoptic(decoder="v3plus", num_classes=3),
    "mini": lambda: models.mini(7),
    "Lite0": lambda: models.efficientnet_lite0(7),
}
OWN_SIZES = {
    "U-Net valid": (lambda: models.unet(width=4, depth=2), ((1, 44, 44), (3, 48, 60))),
    "narrow VGG": (narrow_vgg, ((1, 224, 224), (3, 224, 224))),
    "narrow VGG convolutional": (lambda: convolutional(narrow_vgg()), ((1, 224, 224), (3, 257, 300))),
    "Lite0 convolutional": (lambda: convolutional(models.efficientnet_lite0(7)), ((1, 224, 224), (3, 256, 270))),
    "Lite0 convolutional, window": (
        lambda: convolutional(models.efficientnet_lite0(7), 3),
        ((1, 224, 224), (3, 97, 131)),
    ),
}
LIKE_ANOTHER = [
    name for name in ANY_SIZE if "lite0_head" in name or name in ("U-Net over Lite0, bilinear", "panoptic Lite0")
]
CASES = {name: (build, FREE) for name, build in ANY_SIZE.items()} | OWN_SIZES

SLOW = {
    **{name: (build, PUBLISHED) for name, build in fcns("8s", "vgg16").items()},
    **{name: (build, PUBLISHED) for name, build in fcns("16s", "alexnet").items()},
    **{name: (build, ((1, 500, 375),)) for name, build in ANY_SIZE.items()},
    "DeepLab-LargeFOV": (lambda: models.deeplab("largefov"), PUBLISHED),
    "DeepLab-ASPP": (lambda: models.deeplab("aspp"), PUBLISHED),
    "DeepLabv3+ over VGG16": (lambda: models.deeplab("v3plus", "vgg16"), PUBLISHED),
    "VGG16": (lambda: models.vgg16(7), ((3, 224, 224),)),
    "VGG16 convolutional": (lambda: convolutional(models.vgg16(7)), ((1, 260, 300),)),
    "CaffeNet": (lambda: models.alexnet(7), ((3, 227, 227),)),
    "CaffeNet convolutional": (lambda: convolutional(models.alexnet(7)), ((3, 260, 300),)),
    "torchvision's AlexNet": (lambda: models.alexnet_torchvision(7), ((3, 224, 224),)),
    "torchvision's AlexNet convolutional": (lambda: convolutional(models.alexnet_torchvision(7)), ((3, 260, 300),)),
}


def written(path, network, **options):
    """The file, as the package reads it, after its own checks."""
    weights.save_onnx(path, network, **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def session_of(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    content = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def compare(title, network, path, sizes, **options):
    """Assert that ONNX Runtime gives the network's logits at all sizes, and say how far apart they are."""
    model = written(path, network, **options)
    session, channels = session_of(str(path)), model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    for size in sizes:
        x = picture(channels, size)
        given, expected = session.run(None, {"image": x}), outputs(network, x)
        assert [(y.shape, y.dtype) for y in given] == [(y.shape, y.dtype) for y in expected]
        report(title, size, "ONNX Runtime", path, apart(given, expected))
    return model


def comes_back(title, network, path, sizes, fold=False):
    """Assert that the file read back gives the same logits, and, unless folded, has the same bits as weights."""
    back = weights.load_onnx(path)
    if not fold:
        given, found = network.state_dict(), back.state_dict()
        assert given.keys() == found.keys()
        assert all(np.array_equal(found[name], array) for name, array in given.items())
    for size in sizes:
        x = picture(back.image_shape[1] or 3, size)
        report(title, size, "read back", path, apart(outputs(back, x), outputs(network, x)), TOLERANCE / 10)


def report(title, size, by, path, error, most=TOLERANCE):
    """Say how far apart logits are, and how large the file is; assert that it is little."""
    batch, height, width = size
    print(f"{title:42} {batch} × {height:3}×{width:3}  {by:12} {error:.1e}  {path.stat().st_size / 1e6:6.1f} MB")
    assert error < most


def picture(channels, size):
    batch, height, width = size
    return np.random.default_rng(1).normal(size=(batch, channels, height, width)).astype(np.float32)


def apart(found, expected):
    """The largest difference, as a share of an output's largest value."""
    return max(np.abs(y - e).max() / np.abs(e).max() for y, e in zip(found, expected, strict=True))


def outputs(network, x):
    """What a network gives, as a list."""
    found = network.forward(x)
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=pytest.mark.slow if title in LIKE_ANOTHER else ()) for title in CASES]
)
def test_every_network_gives_the_same_logits_at_any_size(title, tmp_path):
    build, sizes = CASES[title]
    network = stirred(build())
    before, norms = network.state_dict(), len(network.layers_of(layers.BatchNorm2d))
    for fold in (False, True) if norms else (False,):
        chosen = sizes[-1:] if fold else sizes  # what is folded does not depend on the size
        model = compare(title, network, tmp_path / f"{fold}.onnx", chosen, fold=fold)
        comes_back(title, network, tmp_path / f"{fold}.onnx", chosen, fold)
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count("BatchNormalization") == (0 if fold else norms)
        assert all(np.array_equal(array, before[name]) for name, array in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("title", SLOW)
def test_networks_of_published_size_give_the_same_logits(title, tmp_path, quick):
    build, sizes = SLOW[title]
    network = stirred(build())
    compare(title, network, tmp_path / "network.onnx", sizes)
    comes_back(title, network, tmp_path / "network.onnx", sizes)


REFUSED = (
    "AdaptiveAvgPool2d",
    "Conv2d-same-dilation",
)  # whose arithmetic depends on the size, in ways that ONNX or its Runtime lack


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_computes_the_same(name, tmp_path, rng):
    build, shape = LAYERS[name]
    layer = build(rng)
    if len(shape) != 4:
        pytest.skip("its input is no map; classifiers have it behind their maps")
    first = layers.Conv2d(shape[1], shape[1], 1, rng)
    network = stirred(models.Graph({"first": (first, ["image"]), "layer": (layer, ["first"])}, card=Card("layers", {})))
    if name in REFUSED:
        with pytest.raises(InputError, match=r"^layer \(.*\): "):
            weights.save_onnx(tmp_path / "layer.onnx", network)
        return
    other = (shape[2] + 2, shape[3] + 4)  # multiples of two stay so, for layers that take no others
    sizes = [(shape[0], *shape[2:]), (1, *other)]
    compare(name, network, tmp_path / "layer.onnx", sizes)
    comes_back(name, network, tmp_path / "layer.onnx", sizes)


@pytest.mark.parametrize("align_corners", [False, True])
def test_maps_are_resized_alike(align_corners, tmp_path, rng):
    table = {
        "conv": (layers.Conv2d(3, 2, 3, rng, stride=3), ["image"]),
        "resize": (layers.ResizeLike(align_corners=align_corners), ["conv", "image"]),
    }
    compare("resize", models.Graph(table), tmp_path / "resize.onnx", [(1, 3, 3), (3, 10, 17), (1, 31, 8)])


def test_only_what_nobody_else_reads_is_folded(tmp_path, rng):
    table = {
        "conv": (layers.Conv2d(3, 4, 3, rng, pad=1, bias=False), ["image"]),
        "norm": (layers.BatchNorm2d(4), ["conv"]),
        "again": (layers.Conv2d(4, 4, 1, rng), ["norm"]),
        "norm_again": (layers.BatchNorm2d(4), ["again"]),
        "sum": (layers.Add(), ["conv", "norm_again"]),
    }
    network = stirred(models.Graph(table))
    model = compare("folded", network, tmp_path / "network.onnx", [(2, 9, 7)], fold=True)
    assert [node.op_type for node in model.graph.node] == ["Conv", "BatchNormalization", "Conv", "Add"]
    with pytest.raises(InputError, match="prepared for inference.*fold=True"):
        weights.save_onnx(tmp_path / "network.onnx", network.prepare())


def test_an_operator_of_a_later_version_is_refused(tmp_path, rng):
    class Later(layers.ReLU):
        onnx_operator = "Mish"  # of opset 18

    network = models.Graph({"conv": (layers.Conv2d(3, 4, 3, rng), ["image"]), "later": (Later(), ["conv"])})
    with pytest.raises(InputError, match=r"^later \(Later\): its operator Mish is none of those of opset 11"):
        weights.save_onnx(tmp_path / "network.onnx", network)


def test_what_is_folded_shares_no_weights_with_what_it_was_made_of():
    network = models.fcn("8s", "mini", 3, "same", width=2)
    own, others = (graph.parameters().values() for graph in (network.folded(), network))
    assert not any(np.shares_memory(p.value, other.value) for p in own for other in others)


def test_what_is_folded_learns_as_the_convolution_did(rng):
    """Where that has no bias, its bias as beta did."""
    for bias in (True, False):
        conv, norm = layers.Conv2d(3, 4, 3, rng, bias=bias), layers.BatchNorm2d(4)
        conv.weight.frozen, conv.weight.lr_mult = True, 3.0
        folded = models.Sequential(conv=conv, norm=norm, relu=layers.ReLU()).folded()["conv"]
        for found, given in ((folded.weight, conv.weight), (folded.bias, conv.bias or norm.beta)):
            for key in ("frozen", "lr_mult", "decay_mult"):
                assert getattr(found, key) == getattr(given, key)


def test_an_adaptive_average_of_a_known_map_is_a_plain_one(tmp_path, rng):
    table = {
        "conv": layers.Conv2d(3, 4, 3, rng, pad=1),
        "average": layers.AdaptiveAvgPool2d((4, 2)),
        "flatten": layers.Flatten(),
        "fc": layers.Linear(32, 5, rng),
    }
    network = models.Sequential(**table, card=Card("small", {"num_classes": 5}, native=8))
    compare("adaptive", network, tmp_path / "network.onnx", [(3, 8, 8)])
    network.card.native = 9
    with pytest.raises(InputError, match=r"average .*equal parts"):
        weights.save_onnx(tmp_path / "network.onnx", network)


def test_the_file_has_the_networks_names_numbers_and_card(tmp_path):
    """Bit for bit; an upsampling's kernel is written out, as nothing in ONNX repeats it for each channel."""
    network = stirred(models.fcn("8s", "mini", 4, width=2, at_once=True))
    network.card.classes = ("background", "Kätzchen", "cow", "dog")
    network.card.palette = np.arange(768, dtype=np.uint8).reshape(256, 3)
    model = written(tmp_path / "network.onnx", network)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, array in network.state_dict().items():
        if name.endswith("kernel_1d"):
            kernel = arrays[name.replace("kernel_1d", "weight")]
            assert np.array_equal(kernel, np.broadcast_to(np.outer(array, array), (4, 1, array.size, array.size)))
        else:
            assert arrays[name].dtype == array.dtype
            assert np.array_equal(arrays[name], array)
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    attributes = {one.name: one.f for one in norm.attribute}
    assert attributes == pytest.approx({"epsilon": 1e-5, "momentum": 0.9})  # the share of the statistics that stays
    assert [node.name for node in model.graph.node if node.name in network.nodes] == list(network.nodes)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 11)]
    assert model.ir_version == 6
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata == json.loads(json.dumps(network.card.describe()))
    (shape,) = ([d.dim_value or d.dim_param for d in out.type.tensor_type.shape.dim] for out in model.graph.output)
    assert shape == ["batch", 4, "height", "width"]


def test_what_takes_one_size_only_says_so(tmp_path):
    model = written(tmp_path / "network.onnx", narrow_vgg())
    (shape,) = ([d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in model.graph.input)
    assert shape == ["batch", 3, 224, 224]


def test_several_outputs_keep_their_names(tmp_path, rng):
    table = {name: (layers.Conv2d(3, classes, 1, rng), ["image"]) for name, classes in (("semantic", 2), ("centre", 1))}
    network = models.Graph(table, ["semantic", "centre"])
    session = session_of(written(tmp_path / "network.onnx", network))
    x = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    found = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"image": x}), strict=True))
    for name, expected in network.forward(x).items():
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="one output"):
        weights.save_onnx(tmp_path / "pixels.onnx", network, pixels=True)


def test_double_precision_stays(tmp_path):
    network = stirred(models.unet(width=2, depth=1, padding="same", upsampling="bilinear")).astype(np.float64)
    model = written(tmp_path / "network.onnx", network)
    x = np.random.default_rng(1).normal(size=(1, 3, 9, 6))
    found = reference.ReferenceEvaluator(model).run(None, {"image": x})[0]
    np.testing.assert_allclose(found, network.forward(x), rtol=0, atol=1e-12)


SPREAD = Preprocessing(stretch=True)


@pytest.mark.parametrize("preprocessing", [Preprocessing(), CAFFE, GREY, SPREAD], ids=["RGB", "BGR", "grey", "stretch"])
def test_pixels_become_what_the_network_is_given_to_the_same_bits(preprocessing, tmp_path, rng):
    network = models.unet(3, width=2, depth=1, padding="same", channels=len(preprocessing.mean))
    network.card.preprocessing = preprocessing
    model = written(tmp_path / "network.onnx", stirred(network), pixels=True)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("image"))
    session = session_of(model)
    for height, width in ((1, 1), (7, 5), (33, 40), (100, 100)):
        images = rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8)
        images[1] = images[1] // 6 + 90  # each image is spread by itself
        labels, image = session.run(None, {"pixels": images})
        assert (labels.dtype, labels.shape) == (np.uint8, images.shape[:3])
        for found, seen, photo in zip(labels, image, images, strict=True):
            expected = preprocessing.apply(preprocessing.stretched(photo))
            assert seen.dtype == expected.dtype
            assert np.array_equal(seen, expected)
            assert (found == inference.predict(network, photo)).mean() > 0.999


def test_the_label_of_more_classes_than_bytes_count(tmp_path, rng):
    network = stirred(models.mini(300))
    session = session_of(written(tmp_path / "network.onnx", network, pixels=True))
    images = rng.integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    (found,) = session.run(None, {"pixels": images})
    expected = network.forward(np.stack([network.card.preprocessing.apply(image) for image in images])).argmax(axis=1)
    assert found.dtype == np.int64
    assert np.array_equal(found, expected)


def test_what_cannot_be_written_is_said_in_one_line(tmp_path, monkeypatch):
    network = tiny()
    monkeypatch.setattr("minifcn.weights.onnx.writer._MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"x\.onnx: .*2 GiB"):
        weights.save_onnx(tmp_path / "x.onnx", network)
    monkeypatch.undo()
    next(iter(network.parameters().values())).value[0] = np.nan
    with pytest.raises(InputError, match="'vgg.conv1_1.weight' NaN"):
        weights.save_onnx(tmp_path / "x.onnx", network)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(FileNotFoundError, match=r"pip install 'minifcn\[onnx\]'"):
        weights.save_onnx(tmp_path / "x.onnx", network)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_file_of_ones_own_and_of_ours(tmp_path, capsys):
    weights.save(tmp_path / "own.npz", stirred(tiny()))
    for source, options in ((str(tmp_path / "own.npz"), []), ("nuclei", ["--pixels", "--fold"])):
        target = tmp_path / f"{len(options)}.onnx"
        assert cli.main(["export", source, str(target), *options]) == 0
        assert f"written: {target}" in capsys.readouterr().err
        assert session_of(str(target)).get_inputs()[0].name == ("pixels" if options else "image")
        assert cli.main(["export", source, str(target)]) == 2
        assert "exists already" in capsys.readouterr().err
    assert cli.main(["convert", str(tmp_path / "0.onnx"), str(tmp_path / "back.npz")]) == 0
    assert models.load(tmp_path / "back.npz").card.describe() == models.load(tmp_path / "own.npz").card.describe()
    assert cli.main(["predict", "--weights", str(target), str(DOCS / "photos/chelsea.jpg")]) == 2
    assert (
        "takes pixels already, for other programs; for use in minifcn export it without --pixels"
        in capsys.readouterr().err
    )
    assert cli.main(["export", "nuclei", str(tmp_path / "x.pb")]) == 2
    assert "ending in .onnx" in capsys.readouterr().err


def test_the_pages_program_says_what_a_photograph_shows(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "onnx.md").read_text(encoding="utf-8"), re.DOTALL)
    weights.save_onnx(tmp_path / "animals.onnx", models.pretrained("animals"), fold=True, pixels=True)
    shutil.copy(DOCS / "photos/chelsea.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out == "['background', 'cat']\n"


@pytest.mark.slow
@pytest.mark.skipif("MINIFCN_VOC" not in os.environ, reason="MINIFCN_VOC names no VOCdevkit folder")
@pytest.mark.parametrize("name", models.trained())
@pytest.mark.parametrize("fold", [False, True], ids=["as-trained", "folded"])
def test_photographs_get_the_same_labels(name, fold, tmp_path):
    files = sorted(Path(os.environ["MINIFCN_VOC"]).glob("VOC2012/JPEGImages/*.jpg"))[:20]
    network, path = models.pretrained(name), tmp_path / "network.onnx"
    written(path, network, pixels=True, fold=fold)
    session, pixels, alike = session_of(str(path)), 0, 0
    for file in files:
        image = data.images.read_image(file)
        (found,) = session.run(None, {"pixels": image[None]})
        alike += (found[0] == inference.predict(network, image)).sum()
        pixels += found.size
    print(f"{name}: {len(files)} photographs, {pixels - alike} of {pixels} pixels have other labels")
    assert len(files) == 20
    assert alike >= 0.9999 * pixels


@pytest.mark.parametrize("name", ["labels", "pixels"])
def test_a_node_by_a_name_of_the_files_own_is_refused(name, tmp_path, rng):
    network = models.fcn("32s", "mini", 2, width=1)
    table = {**network.nodes, name: (layers.Softmax(), list(network.outputs))}
    with pytest.raises(InputError, match=f"^{name}: a name that the file needs for itself; rename this node"):
        weights.save_onnx(tmp_path / "network.onnx", models.Graph(table, card=network.card), pixels=True)
    assert not any(tmp_path.iterdir())
    compare(name, stirred(models.Graph(table)), tmp_path / "network.onnx", [(1, 9, 7)])  # scores need no such name
