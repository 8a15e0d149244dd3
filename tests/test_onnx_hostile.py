"""Hostile and broken ONNX files end in one line, in little memory."""

import tracemalloc

import numpy as np
import pytest
from onnx_files import CONV, KERNEL, TensorProto, chain, external, helper, lying, model, read, value

from minifcn.errors import InputError
from minifcn.weights import load_onnx

pytestmark = pytest.mark.onnx


def squared(times):
    """A size multiplied by itself again and again."""
    names = ["a", *(f"a{i}" for i in range(times))]
    nodes = [("Mul", [a, a], [b], {}) for a, b in zip(names, names[1:], strict=False)]
    return chain(*nodes, ("Relu", ["x"], ["y"], {}), a=np.array([99]))


def normalised(gamma, variance, **attributes):
    arrays = {"gamma": gamma, "beta": [0, 0, 0], "mean": [0, 0, 0], "variance": variance}
    arrays = {name: np.array(array, np.float32) for name, array in arrays.items()}
    return chain(("BatchNormalization", ["x", *arrays], ["y"], attributes), **arrays)


def bytes_as_image():
    made = chain(("Einsum", ["x"], ["y"], {}))  # known or not
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return made


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
    "a map that stays transposed": (
        lambda: chain(("Transpose", ["x"], ["y"], {}), ("Relu", ["y"], ["z"], {})),
        "'n1' .*a transposed map",
    ),
    "a map that is transposed around nothing": (
        lambda: chain(("Transpose", ["x"], ["y"], {}), ("Transpose", ["y"], ["z"], {})),
        "'n1' .*around a Softmax",
    ),
    "a transposition with an axis twice": (
        lambda: chain(("Transpose", ["x"], ["y"], {"perm": [0, 1, 1, 2]})),
        "'n0' .*each once",
    ),
    "a softmax that is transposed elsewhere": (
        lambda: chain(
            ("Transpose", ["x"], ["y"], {"perm": [0, 3, 1, 2]}),
            ("Softmax", ["y"], ["z"], {}),
            ("Transpose", ["z"], ["u"], {"perm": [0, 3, 1, 2]}),
        ),
        "'n2' .*there and back",
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
    "more inputs than a node has": (lambda: chain(("Relu", ["x", "w"], ["y"], {})), "'n0' .*2 inputs"),
    "fewer inputs than a node has": (lambda: chain(("Conv", ["x"], ["y"], {})), "'n0' .*1 inputs"),
    "an attribute left out": (lambda: chain(("Concat", ["x", "x"], ["y"], {})), "'n0' .*no attribute 'axis'"),
    "an axis that is not there": (lambda: chain(("Concat", ["x", "x"], ["y"], {"axis": 5})), "'n0' .*axes .5. of 4"),
    "a mean along an axis that is not there": (
        lambda: chain(("ReduceMean", ["x"], ["y"], {"axes": [2, 7]})),
        "'n0' .*axes .2, 7. of 4",
    ),
    "a pad along an axis that is not there": (
        lambda: chain(("Pad", ["x", "p", "", "a"], ["y"], {}), p=np.array([1, 1]), a=np.array([6]), opset=18),
        "'n0' .*axes .6. of 4",
    ),
    "a slice along one axis twice": (
        lambda: chain(
            ("Slice", ["x", "s", "e", "a"], ["y"], {}), s=np.array([0, 0]), e=np.array([1, 1]), a=np.array([2, -2])
        ),
        "'n0' .*each once",
    ),
    "a negative variance": (lambda: normalised([1, 1, 1], [1, 1, -1]), "'n0' .*negative variance"),
    "a normalisation that is no number": (lambda: normalised([1, np.nan, 1], [1, 1, 1]), "'gamma' NaN"),
    "an epsilon that is no number": (lambda: normalised([1, 1, 1], [1, 1, 1], epsilon=np.nan), "'n0' .*'epsilon'"),
    "maps of other channels": (
        lambda: chain(("Conv", ["x", "w"], ["a"], {}), ("Add", ["x", "a"], ["y"], {})),
        "'n1' .*maps of 3 and 2 channels",
    ),
    "a constant for other channels": (
        lambda: chain(("Mul", ["five", "x"], ["y"], {}), five=np.ones((5, 1, 1), np.float32)),
        "'n0' .*maps of 5 and 3 channels",
    ),
    "a division by zero": (
        lambda: chain(("Div", ["x", "none"], ["y"], {}), none=np.zeros((3, 1, 1), np.float32)),
        "'n0' .*division by zero",
    ),
    "bytes as an image": (bytes_as_image, "takes pixels already.*without --pixels"),
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


def test_a_file_of_messages_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    """What is no array takes up to a hundred times its bytes once it is parsed."""
    made = model([CONV], KERNEL)
    made.graph.doc_string = "x" * (9 << 20)
    with pytest.raises(InputError, match=r"bytes beside the numbers of arrays"):
        read(made, tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"\x3a\x80\x80\x40" + b"\x0a\x00" * (1 << 19))  # so many empty nodes
    with pytest.raises(InputError, match=r"a message of more than 262144 fields"):
        load_onnx(tmp_path / "model.onnx")


def test_numbers_beside_a_file_are_read_once(tmp_path):
    """Else a small file could ask for a large one again and again."""
    np.arange(6, dtype="<f4").tofile(tmp_path / "w.bin")
    made = external(location="w.bin")
    made.graph.initializer.append(made.graph.initializer[0])
    made.graph.initializer[1].name = "again"
    with pytest.raises(InputError, match="'again' out of 'w.bin', of which more was read than it holds"):
        read(made, tmp_path)
