"""ONNX files made by hand, for tests of their reader."""

import numpy as np
import pytest

from minifcn import weights

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


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


KERNEL = {"w": np.ones((2, 3, 1, 1), np.float32)}
CONV = helper.make_node("Conv", ["x", "w"], ["y"], "c")


def chain(*nodes, opset=17, **arrays):
    nodes = [helper.make_node(*node[:3], f"n{i}", **node[3]) for i, node in enumerate(nodes)]
    return model(nodes, {**KERNEL, **arrays}, opset=opset)


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
