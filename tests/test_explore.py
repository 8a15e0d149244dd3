"""`minifcn explore`: what each branch contributes, what each cell sees, what a channel looks for, and the page that shows it."""

import re
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from browser import in_page, needs_browser
from networks import ALIGNMENTS, VARIANTS, narrow_fcn, picture, stirred, tiny
from PIL import Image

from minifcn import cli, layers, models, weights
from minifcn.errors import InputError
from minifcn.inference import ascent, contributions, maps
from minifcn.inference.explore import chosen, explore
from minifcn.models.fields import fields
from minifcn.preprocessing import CAFFE, GREY, TORCHVISION
from minifcn.report import explorer


def photograph(height=70, width=90, seed=3):
    """Blotches of colour."""
    small = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def named(network):
    network.card.classes = tuple(f"class {i}" for i in range(network.card.num_classes))
    return network


# --- The sum of the branches -----------------------------------------------------------------------------------------


def found_branches(network, x):
    output = network.outputs[0]
    ends, _ = contributions.tail(network, output)
    values = network.features(x, [*(name for name, _ in ends), output])
    found, why = contributions.branches(network, output, values, network.shapes(x.shape))
    assert why is None
    return found, values[output][0]


@pytest.mark.parametrize("size", [(45, 61), (64, 64), (1, 3)])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_branches_contribute_adds_up_to_the_scores(variant, alignment, size):
    network, x = stirred(tiny(variant, alignment, 3, width=2)), picture(*size)
    found, logits = found_branches(network, x)
    assert [branch.name for branch in found] == ["score_fr", "score_pool4", "score_pool3"][
        : VARIANTS.index(variant) + 1
    ]
    assert contributions.check_sum(found, logits) < 1e-5 * np.abs(logits).max()
    found, logits = found_branches(network.astype(np.float64), x.astype(np.float64))
    assert contributions.check_sum(found, logits) < 1e-12 * np.abs(logits).max()


def test_the_sum_of_many_classes_is_checked_class_by_class():
    found, logits = found_branches(stirred(tiny("8s", "same", 60, width=2)), picture(45, 61))
    tracemalloc.start()
    contributions.check_sum(found, logits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < logits.nbytes


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_branch_contributes_what_the_network_gives_with_the_others_at_zero(alignment):
    network, x = stirred(tiny("8s", alignment, 3, width=2)).astype(np.float64), picture(45, 61, np.float64)
    found, _ = found_branches(network, x)
    state = network.state_dict()
    for branch in found:
        others = [b.name for b in found if b.name != branch.name]
        network.load_state_dict({k: 0 * v if k.rpartition(".")[0] in others else v for k, v in state.items()})
        alone = network.forward(x)[0]
        np.testing.assert_allclose(branch.part() + branch.bias_part(), alone, rtol=0, atol=1e-12 * np.abs(alone).max())
        network.load_state_dict(
            {k: 0 * v if k == f"{branch.name}.bias" else v for k, v in network.state_dict().items()}
        )
        np.testing.assert_allclose(branch.part(), network.forward(x)[0], rtol=0, atol=1e-12 * np.abs(alone).max())


def test_parts_that_do_not_add_up_are_a_bug():
    found, logits = found_branches(stirred(tiny("8s", "paper", 3)), picture(45, 61))
    with pytest.raises(AssertionError, match="the parts of the branches add up to"):
        contributions.check_sum(found, logits + 1e-3 * np.abs(logits).max())
    with pytest.raises(AssertionError):
        contributions.check_sum(found[:2], logits)


def test_which_networks_scores_are_such_sums():
    def ends(network, output=None):
        found, why = contributions.tail(network, output or network.outputs[0])
        return [name for name, _ in found] or why

    assert ends(models.deeplab("aspp", num_classes=2, rates=(1, 2))) == ["score_1", "score_2"]
    assert ends(models.deeplab("v3plus", num_classes=2)) == ["score"]
    assert ends(models.unet(2, width=1, depth=1)) == ["score"]
    panoptic = models.panoptic("mini", decoder="fcn", num_classes=2)
    assert ends(panoptic, "semantic") == ["score_fr", "score_pool4", "score_pool3"]
    assert "learned" in ends(tiny("8s", upsampling="learned"))


# --- Receptive fields --------------------------------------------------------------------------------------------------


def alive(network):
    """The network with weights that are all positive, so that no ReLU and no cancellation hides what a cell sees."""
    network.load_state_dict({name: np.abs(value) for name, value in network.state_dict().items()})
    return network


def enlarging():
    """Nothing but upsampling and a crop."""
    rng, image = np.random.default_rng(0), "image"
    nodes = {
        "up": (layers.Upsample(3, kernel=6), [image]),
        "learned": (layers.ConvTranspose2d(3, 2, 3, rng, stride=2, pad=1), ["up"]),
    }
    return models.Graph(nodes | {"crop": (layers.CropLike(5), ["learned", image])})


SEEING = {
    "transposed convolutions": (lambda: alive(enlarging()), (16, 19)),
    **{
        f"FCN-8s, {alignment}": (lambda a=alignment: alive(stirred(narrow_fcn("8s", a))), (37, 50))
        for alignment in ALIGNMENTS
    },
    "EfficientNet-Lite0": (lambda: stirred(models.fcn("8s", "efficientnet_lite0", 2, "same")), (37, 52)),
    "U-Net, unpadded": (lambda: alive(models.unet(2, width=1, depth=2)), (60, 64)),
    "U-Net, padded": (lambda: alive(models.unet(2, width=1, depth=2, padding="same", upsampling="bilinear")), (21, 30)),
    "DeepLabv3+": (lambda: stirred(models.deeplab("v3plus", num_classes=2)), (37, 40)),
}


ALONG = {"rows": 2, "columns": 3}
LONG = [("EfficientNet-Lite0", "rows"), ("DeepLabv3+", "columns")]


@pytest.mark.parametrize(
    ("name", "along"),
    [
        pytest.param(name, along, marks=pytest.mark.slow if (name, along) in LONG else ())
        for name in SEEING
        for along in ALONG
    ],
)
def test_receptive_fields_are_what_changes_with_a_row_or_column_of_the_image(name, along):
    (make, size), axis = SEEING[name], ALONG[along]
    network, rng, x = make().astype(np.float64), np.random.default_rng(5), np.abs(picture(*size, np.float64))
    of_node, lines = fields(network, x.shape), x.shape[axis]
    drawn = [node for node in network.prepare().nodes if node in of_node]
    names = list(dict.fromkeys([*drawn[:: -(-len(drawn) // 12)], network.outputs[0]]))
    before, seen = network.features(x, names), dict.fromkeys(names, False)
    for _ in range(3):
        others = np.repeat(x, lines, axis=0)  # in each of which another line is brighter
        for line, other in enumerate(others):
            place = other[:, line] if axis == 2 else other[:, :, line]
            place += np.abs(rng.normal(0, 30, place.shape))
        for node, after in network.features(others, names).items():
            gap = np.abs(after - before[node]).max(axis=tuple({1, 2, 3} - {axis}))  # (lines of the image, cells)
            seen[node] = seen[node] | (gap > 1e-9 * np.abs(before[node]).max())
    for node in names:
        for cell, (first, last) in enumerate(of_node[node][axis - 2]):
            changed = np.flatnonzero(seen[node][:, cell])
            found = (changed[0], changed[-1]) if changed.size else (0, -1)
            assert found == ((first, last) if first <= last else (0, -1)), f"{node}, cell {cell}"


def test_a_fields_size_far_from_borders_is_that_of_explain():
    network = narrow_fcn("8s", "same")
    of_node, rows = fields(network, (1, 3, 320, 320)), models.explain(network, 320).rows
    for row in rows[: [row.name for row in rows].index("vgg.pool5") + 1]:
        spans = of_node[row.name].rows
        assert np.diff(spans[len(spans) // 2]) + 1 == row.field, row.name


def test_a_resized_map_lies_on_the_one_that_lends_its_size():
    network = models.deeplab("v3plus", num_classes=2)
    of_node = fields(network, (1, 3, 60, 70))
    assert of_node["decoder.up"].at == of_node["low.relu"].at == (Fraction(1, 4), Fraction(-3, 8))
    assert of_node["crop"].at == (1, 0)
    assert of_node["image.average"].at is None


def test_a_cell_lies_in_the_middle_of_what_it_sees():
    network = narrow_fcn("8s", "paper")
    for name, field in fields(network, (1, 3, 96, 96)).items():
        if field.at is None or name.startswith(("up", "fuse", "crop")):
            continue
        for cell, (first, last) in enumerate(field.rows):
            if 0 < first <= last < 95:
                assert cell == field.at.a * (first + last) / 2 + field.at.b, name


# --- What a channel looks for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["vgg.pool4", "score_fr"])
@pytest.mark.parametrize("order", ["RGB", "BGR", "grey"])
def test_the_ascents_gradient_is_that_of_the_excitement(node, order):
    network = stirred(
        models.panoptic(None, decoder="unet", num_classes=2, channels=1) if order == "grey" else tiny("8s", width=2)
    )
    network.card.preprocessing = {"RGB": TORCHVISION, "BGR": CAFFE, "grey": GREY}[order]
    node = [name for name in network.nodes if "relu" in name][5] if order == "grey" else node
    part, rng = ascent.until(network.astype(np.float64), node), np.random.default_rng(0)
    pixels, direction = rng.uniform(0, 255, (2, 40, 40, 3)), rng.normal(size=(2, 40, 40, 3))
    channels = [0, 1]
    means, gradient = ascent.excitement_gradient(part, pixels, channels)
    whole = np.rint(pixels).astype(np.uint8)
    x = np.stack([network.card.preprocessing.apply(image) for image in whole]).astype(np.float64)
    values = network.features(x, [node])[node]
    expected = [values[n, channel].mean() for n, channel in enumerate(channels)]
    found = ascent.excitement_gradient(part, whole.astype(float), channels)[0]
    np.testing.assert_allclose(
        found, expected, rtol=1e-3, atol=1e-4
    )  # `apply` works in float32, and in whole numbers for grey
    assert not np.allclose(means, means[::-1], rtol=1e-2)
    up, down = (ascent.excitement_gradient(part, pixels + step * direction, channels)[0] for step in (1e-5, -1e-5))
    expected = (up - down) / 2e-5
    np.testing.assert_allclose((gradient * direction).sum(axis=(1, 2, 3)), expected, rtol=1e-5, atol=1e-9)


def test_the_ascent_computes_what_inference_does_and_leaves_the_network_alone():
    network, x = stirred(tiny("8s", width=2)), picture(40, 40)
    state = network.state_dict()
    part = ascent.until(network, "vgg.relu7")
    expected = network.features(x, ["vgg.relu7"])["vgg.relu7"]
    np.testing.assert_allclose(part.forward(x, train=True), expected, rtol=1e-3, atol=1e-4)
    ascent.ascend(network, "vgg.relu7", [0], steps=1)
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert not any(p.frozen for p in network.parameters().values() if p.value.ndim == 4)


def test_ascent_excites_the_channel_that_was_asked_for(monkeypatch, rng):
    monkeypatch.setattr(ascent, "SIDES", (24, 32))
    network = stirred(tiny("8s", width=4))
    part, count = ascent.until(network, "vgg.pool3"), network["vgg.conv3_1"].weight.value.shape[0]
    noise = np.random.default_rng(1).normal(ascent.GREY, ascent.NOISE, (count, 32, 32, 3))
    at_rest, _ = ascent.excitement_gradient(part, noise, range(count))
    channels = np.argsort(-at_rest)[:2].tolist()
    images = ascent.ascend(network, "vgg.pool3", channels, seed=0, steps=16)
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, ascent.ascend(network, "vgg.pool3", channels, seed=0, steps=16))
    excited, _ = ascent.excitement_gradient(part, images.astype(float), channels)
    pixels = images.reshape(2, -1, 3).astype(float)
    shuffled, _ = ascent.excitement_gradient(part, rng.permuted(pixels, axis=1).reshape(images.shape), channels)
    assert (excited > 1.1 * at_rest[channels]).all() and (excited > 1.05 * shuffled).all() and (shuffled > 0).all()


def test_ascent_takes_sizes_that_an_unpadded_network_takes():
    network = models.unet(2, width=1, depth=1)
    assert ascent.ascend(network, "score", [1], steps=1).shape[1] == network["size"].fitting(ascent.SIDES[-1])


def test_windows_are_the_parts_of_images_that_excite_a_channel_most():
    network = stirred(tiny("8s", "same", width=2)).prepare()
    images = [photograph(40 + 4 * i, 60, seed=i) for i in range(5)]
    found = maps.windows(network, images, [("vgg.pool3", 2), ("score_fr", 0)], count=3)
    for (name, channel), windows in found.items():
        highest = {}
        for number, image in enumerate(images):
            x = network.card.preprocessing.apply(image)[None]
            values = network.features(x, [name])[name][0, channel]
            row, column = np.unravel_index(values.argmax(), values.shape)
            field = fields(network, x.shape)[name]
            (top, bottom), (left, right) = field.rows[row], field.columns[column]
            highest[number] = values.max(), image[top : bottom + 1, left : right + 1]
        order = sorted(highest, key=lambda number: -highest[number][0])[:3]
        assert [window.source for window in windows] == order
        for window in windows:
            assert window.excitement == highest[window.source][0]
            np.testing.assert_array_equal(window.pixels, highest[window.source][1])


# --- The page ----------------------------------------------------------------------------------------------------------

MOST = 8_000_000  # bytes


def written(folder, network, image, *more):
    """The page of an image in a network, by the command. -> (its path, what `explore` found)"""
    weights.save(folder / "network.npz", named(network))
    Image.fromarray(image).save(folder / "photo.png")
    command = [
        "explore",
        str(folder / "photo.png"),
        "--weights",
        str(folder / "network.npz"),
        "--out",
        str(folder / "page.html"),
    ]
    assert cli.main([*command, *(more or ["--channels"])]) == 0
    return folder / "page.html", explore(weights_loaded(folder / "network.npz"), image, 1 << 22)


def weights_loaded(path):
    return models.load_segmenter(path)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """FCN-8s as published, three classes. -> (page, found)"""
    return written(tmp_path_factory.mktemp("eight"), stirred(tiny("8s", "paper", 3, width=4)), photograph())


def test_the_page_is_one_file_that_loads_nothing(eight):
    text = eight[0].read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) == {
        "http://www.w3.org/2000/svg"
    }  # a name, which is not loaded
    assert not re.findall(r"(?:src|href)=(?![\"']data:)|@import|url\(|fetch\(|XMLHttpRequest|<link", text)
    assert "default-src 'none'" in text
    assert not re.findall(r"<!--\w+-->", text)


def test_a_page_of_the_network_that_comes_along_is_small_enough(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    page = tmp_path / "new" / "page.html"
    assert cli.main(["explore", str(tmp_path / "noise.png"), "--out", str(page), "--channels"]) == 0
    assert page.stat().st_size <= MOST
    assert str(page) in capsys.readouterr().err


CLICK = """
const stage = document.getElementById("stage").getBoundingClientRect();
const click = (y, x, within = 0.5) => document.getElementById("stage").dispatchEvent(new MouseEvent("click", { bubbles: true,
  clientX: stage.left + (x + within) / page.photo.width * stage.width, clientY: stage.top + (y + within) / page.photo.height * stage.height }));
const numbers = (rows) => [...document.querySelectorAll(rows)].map((row) => [Number(row.dataset.class), ...[...row.querySelectorAll("[data-value]")].map((cell) => Number(cell.dataset.value))]);
const bars = () => numbers("#bars tbody tr");
const shown = (view) => until(() => document.getElementById("layer").dataset.view?.startsWith(view));
const show = (view) => { const choice = document.getElementById("view"); choice.value = view; choice.dispatchEvent(new Event("change")); };
function mask() {
  const canvas = document.getElementById("layer"), { top, left, width, height } = page.inside;
  const data = canvas.getContext("2d").getImageData(left, top, width, height).data;
  const names = page.colours.map(String);
  return Array.from({ length: width * height }, (_, i) => names.indexOf(String([...data.slice(4 * i, 4 * i + 3)])));
}
function slide(b, value) { const input = document.getElementById(`factor${b}`); input.value = value; input.dispatchEvent(new Event("input")); }
await until(() => document.body.dataset.ready === "all");
"""
WIDTHS = pytest.mark.parametrize("width", [1280, 420])


@needs_browser
@WIDTHS
def test_a_click_shows_what_the_pixels_score_is_made_of(width, eight, tmp_path):
    page, found = eight
    shown = in_page(page, CLICK + "click(20, 71, 0.85); return bars();", width)
    assert sorted(row[0] for row in shown) == [0, 1, 2]
    assert [row[1] for row in shown] == sorted((row[1] for row in shown), reverse=True)
    for k, total, *parts in shown:
        expected = [branch.part()[k, 20, 71] for branch in found.branches]
        expected.append(sum(branch.bias_part()[k, 20, 71] for branch in found.branches))
        np.testing.assert_allclose(parts, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose([total, sum(parts)], found.logits[k, 20, 71], rtol=0, atol=1e-5)


@needs_browser
def test_the_mask_follows_the_sliders(eight):
    page, found = eight
    script = 'click(40, 12); await shown("mask 1 1 1"); const before = mask(); slide(1, 0.35); slide(2, 0); await shown("mask 1 0.35 0");'
    script += "return [before, mask(), bars(), document.getElementById('changed').textContent];"
    before, after, shown, said = in_page(page, CLICK + script)
    agree = before == found.labels.reshape(-1)
    assert agree.all() or agree.mean() >= 0.999
    weighted = sum(f * (b.part() + b.bias_part()) for f, b in zip((1, 0.35, 0), found.branches, strict=True))
    expected = weighted.argmax(axis=0)
    assert (after == expected.reshape(-1)).mean() >= 0.999
    changed = (expected != found.labels).mean()
    assert changed > 0.05 and f"{100 * changed:.1f} %" in said
    assert shown[0][0] == expected[40, 12] and np.isclose(shown[0][1], weighted[:, 40, 12].max(), atol=1e-5)


@needs_browser
def test_classes_are_shown_as_probabilities(eight, tmp_path):
    page, found = eight
    script = """show("class 2"); await shown("class 2");
    const pixels = document.getElementById("layer").getContext("2d").getImageData(0, 0, page.inside.width, page.inside.height).data;
    const levels = new Map(Array.from({ length: 256 }, (_, q) => [String([...tableOf(0, 1).slice(4 * q, 4 * q + 3)]), q]));
    return Array.from({ length: pixels.length / 4 }, (_, i) => levels.get(String([...pixels.slice(4 * i, 4 * i + 3)])));"""
    levels = in_page(page, CLICK + script)
    exponentials = np.exp(found.logits - found.logits.max(axis=0))
    expected = 255 * (exponentials / exponentials.sum(axis=0))[2].reshape(-1)
    np.testing.assert_allclose(levels, expected, rtol=0, atol=2)  # neighbouring levels may share a colour


@needs_browser
def test_fields_and_maps_are_those_of_the_library(eight, tmp_path):
    page, found = eight
    script = """click(33, 50); const seen = [];
    for (let i = 0; i < page.nodes.length; i++) {
      document.querySelector(`button[data-node="${i}"]`).click();
      await until(() => document.getElementById("node-title").textContent === page.nodes[i].name && document.getElementById("layer").dataset.view.split(" ").at(-2) === `${i}`);
      const maps = await mapsOf(i), [h, w] = page.nodes[i].cells;
      seen.push([page.nodes[i].name, JSON.parse(document.querySelector(`#seen tr[data-node="${i}"]`).dataset.field), document.getElementById("channel-text").textContent,
        Array.from(maps.cells.slice(0, h * w), (q) => maps.low[0] + (maps.high[0] - maps.low[0]) * q / 255)]);
    }
    return seen;"""
    shown = in_page(page, CLICK + script)
    assert [name for name, *_ in shown] == list(found.nodes)
    values = weights_loaded(page.parent / "network.npz").prepare().features(found.seen.x, list(found.nodes))
    for name, field, text, cells in shown:
        node = found.nodes[name]
        row, column = (
            min(max(int(np.floor(float(node.field.at.a) * pixel + float(node.field.at.b) + 0.5)), 0), side - 1)
            for pixel, side in zip((33, 50), node.shape[2:], strict=True)
        )
        rows, columns = node.field.rows[row], node.field.columns[column]
        assert field == ([*rows, *columns] if rows[0] <= rows[1] and columns[0] <= columns[1] else None), name
        if node.pictures.factor == 1:
            maps = values[name][0, node.pictures.spread().argmax()]  # that a layer begins with
            shown = float(text.rpartition(" ")[2].replace("−", "-"))
            np.testing.assert_allclose(shown, maps[row, column], rtol=0, atol=np.ptp(maps) / 500 + 0.051)
            maps = values[name][0, 0]
            np.testing.assert_allclose(cells, maps.reshape(-1), rtol=0, atol=np.ptp(maps) / 255)


@needs_browser
def test_keys_do_what_a_mouse_does(eight, tmp_path):
    script = """const press = (id, key, shiftKey = false) => document.getElementById(id).dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey, bubbles: true }));
    click(35, 45); const seen = [document.getElementById("pixel").textContent];
    press("stage", "ArrowRight"); press("stage", "ArrowUp", true); seen.push(document.getElementById("pixel").textContent);
    const title = () => document.getElementById("node-title").textContent, before = title();
    press("network", "ArrowLeft"); await until(() => title() !== before); seen.push(before, title());
    const channel = document.getElementById("channel"); await until(() => document.activeElement.dataset.node); channel.value = 0; channel.dispatchEvent(new Event("change"));
    press("maps", "ArrowRight"); seen.push(channel.value, document.getElementById("view").value);
    return seen;"""
    before, after, title, other, channel, view = in_page(eight[0], CLICK + script)
    assert (before, after) == ("row 35, column 45", "row 25, column 46")
    names = list(eight[1].nodes)
    assert names.index(other) == names.index(title) - 1
    assert (channel, view) == ("1", "channel")


@needs_browser
def test_a_channel_that_is_no_whole_number_is_the_nearest(eight, tmp_path):
    script = """const channel = document.getElementById("channel"); channel.value = "1.6"; channel.dispatchEvent(new Event("change"));
    await shown("channel"); return [channel.value, document.getElementById("scale").textContent];"""
    value, said = in_page(eight[0], CLICK + script)
    assert value == "2" and "channel 2" in said


@needs_browser
@pytest.mark.parametrize("unpacks", [True, False])
def test_a_browser_that_cannot_unpack_arrays_is_told(unpacks, eight, tmp_path):
    text, gone = eight[0].read_text(encoding="utf-8"), "" if unpacks else "delete window.DecompressionStream;"
    (tmp_path / "page.html").write_text(text.replace("<head>", f"<head><script>{gone}</script>", 1), encoding="utf-8")
    script = """const told = () => document.getElementById("old").checkVisibility();
    await until(() => told() || document.body.dataset.ready === "all"); return [told(), document.body.dataset.ready ?? ""];"""
    told, ready = in_page(tmp_path / "page.html", script)
    assert told == (not unpacks) and bool(ready) == unpacks


HOSTILE = ("</script><script>document.title = 1</script>", "<b>\"'&", "<!--<script>")
NAMES = ["\"'><img src=x onerror='document.title = 1'><!--css-->&.png", "\udcff.png"]


@needs_browser
@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not allow")
@pytest.mark.parametrize("name", NAMES, ids=["markup", "no UTF-8"])
def test_names_are_text_whatever_stands_in_them(name, tmp_path):
    network = stirred(tiny("8s", "paper", 3, width=2))
    network.card.classes = HOSTILE
    weights.save(tmp_path / "network.npz", network)
    Image.fromarray(photograph(20, 30)).save(tmp_path / name)
    page = tmp_path / "page.html"
    command = [
        "explore",
        str(tmp_path / name),
        "--weights",
        str(tmp_path / "network.npz"),
        "--out",
        str(page),
        "--channels",
    ]
    assert cli.main(command) == 0
    script = """return [document.title, document.querySelector("h1").textContent, document.images.length,
      [...document.querySelectorAll("#bars tbody td:first-child")].map((cell) => cell.textContent)];"""
    title, heading, images, classes = in_page(page, CLICK + script)
    assert title == heading == f"{name} in FCN-8s".replace("\udcff", "?")
    assert images == 1 and sorted(classes) == sorted(HOSTILE)


@needs_browser
def test_a_page_says_that_scores_of_some_rows_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(explorer, "SCORES", 4000)
    page, found = written(tmp_path, stirred(tiny("8s", "paper", 3, width=2)), photograph())
    script = 'click(25, 37); return [page.step, document.getElementById("scale").textContent, document.getElementById("pixel").textContent, bars()];'
    step, said, pixel, shown = in_page(page, CLICK + script)
    row, column = map(int, re.findall(r"\d+", pixel))
    assert step > 1 and f"every {step}th row and column" in said
    assert (row, column) == (25 // step * step, 37 // step * step)
    for k, total, *_ in shown:
        np.testing.assert_allclose(total, found.logits[k, row, column], rtol=0, atol=1e-5)


@needs_browser
@pytest.mark.parametrize("size", [(1, 1), (2, 300)])
def test_a_photograph_may_have_any_shape(size, tmp_path):
    image = photograph(*size)
    page, found = written(tmp_path, stirred(tiny("8s", "paper", 3, width=2)), image)
    shown = in_page(page, CLICK + "click(0, page.photo.width - 1); return bars();")
    for k, total, *_ in shown:
        np.testing.assert_allclose(total, found.logits[k, 0, -1], rtol=0, atol=1e-5)


def test_maps_that_are_not_finite_are_named():
    network = stirred(tiny("8s", "paper", 3, width=2))
    network["score_pool4"].weight.value[:] = np.nan
    with pytest.raises(InputError, match="^score_pool4: expected finite numbers in its maps, got NaN"):
        explore(network, photograph(20, 30), 1 << 20)


@needs_browser
@WIDTHS
def test_the_page_is_no_wider_than_the_window(width, eight, tmp_path):
    script = """const named = (e) => e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.[0]?.textContent.trim() || e.alt;
    const cut = [...document.querySelectorAll(".node span")].filter((e) => e.scrollWidth > e.offsetWidth || e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right);
    return [document.documentElement.scrollWidth, innerWidth, [...document.querySelectorAll("button, input, select, img, [role]")].filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80)), cut.map((e) => e.textContent)];"""
    page, window, nameless, cut = in_page(eight[0], CLICK + script, width)
    assert page <= window and nameless == cut == []


OTHERS = {
    "U-Net, unpadded": (lambda: models.unet(3, width=2, depth=2), False),
    "DeepLabv3+": (lambda: models.deeplab("v3plus", num_classes=3), False),
    "learned upsampling": (lambda: tiny("16s", "paper", 3, width=2, upsampling="learned"), True),
    "panoptic": (lambda: models.panoptic("mini", decoder="fcn", num_classes=3, width=2), False),
}


@needs_browser
@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_show_what_applies(name, tmp_path):
    make, no_sum = OTHERS[name]
    page, found = written(tmp_path, stirred(make()), photograph(50, 60))
    script = """click(page.inside.top + 13, page.inside.left + 22); await sleep(200);
    return [bars(), document.getElementById("bars").textContent, document.getElementById("pixel").textContent, mask(),
      [...document.querySelectorAll("#by-channel [data-value]")].map((cell) => Number(cell.dataset.value)), document.getElementById("by-channel").textContent, page.inside];"""
    bars, text, pixel, mask, channels, said, at = in_page(page, CLICK + script)
    part = found.seen.picture[at["top"] : at["top"] + at["height"], at["left"] : at["left"] + at["width"]]
    np.testing.assert_array_equal(part, photograph(50, 60))
    row, column = map(int, re.findall(r"\d+", pixel))
    assert max(abs(row - 13), abs(column - 22)) <= (6 if found.read is not None else 0)
    for k, total, *parts in bars:
        np.testing.assert_allclose(
            total, found.logits[k, row, column], rtol=0, atol=1e-4 * max(1, np.abs(found.logits).max())
        )
        assert len(parts) == (0 if no_sum else len(found.branches) + 1)
    assert ("no sum of branches" in text) == no_sum
    assert np.mean(mask == found.labels.reshape(-1)) >= 0.999
    assert bool(channels) == (found.read is not None)
    if channels:
        *parts, total = channels
        np.testing.assert_allclose([sum(parts), total], found.logits[bars[0][0], row, column], rtol=1e-4, atol=1e-4)
        assert "For class" in said


@needs_browser
def test_what_channels_look_for_is_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(ascent, "SIDES", (24, 32))
    (tmp_path / "images").mkdir()
    for i in range(11):
        Image.fromarray(photograph(40, 50, seed=i)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    network = stirred(tiny("8s", "same", 3, width=2))
    page, found = written(
        tmp_path, network, photograph(), "--channels", "vgg.pool3:5", "score_fr:1", "--data", str(tmp_path / "images")
    )
    script = """const title = () => document.getElementById("node-title").textContent, started = title();
    document.querySelector("#looks button").click(); await until(() => title() !== started && document.querySelectorAll("#looks img").length === 10);
    await Promise.all([...document.querySelectorAll("#looks img")].map((image) => image.decode()));
    return [started, title(), document.getElementById("channel").value, document.querySelectorAll("#looks .windows img").length,
      document.querySelector("#looks .ascent").naturalWidth, [...document.querySelectorAll("#looks .windows img")].map((image) => image.title)];"""
    *seen, values = in_page(page, CLICK + script)
    assert seen == ["vgg.pool3", "score_fr", "1", 9, 32]
    values = [float(value.replace("−", "-")) for value in values]
    assert values == sorted(values, reverse=True)
    notes = page.read_text(encoding="utf-8")
    assert "out of 11 images" in notes and "2 of 40 steps each" in notes


def test_channels_that_are_chosen_are_those_of_the_branches(eight):
    found = eight[1]
    channels = chosen(found)
    assert {name for name, _ in channels} == {"score_fr", *(branch.source for branch in found.branches)} - (
        {"score_fr"} if found.labels.max() == 0 else set()
    )
    assert all(0 <= channel < found.nodes[name].shape[1] for name, channel in channels)


WRONG = {
    "no image": (["{text}"], "text.txt: "),
    "no such photograph": (["nowhere.jpg"], "nowhere.jpg: "),
    "a classifier's weights": (["{photo}", "--weights", "{classifier}"], "got a classifier's weights"),
    "a folder to write": (["{photo}", "--out", "{folder}"], "expected the name of a page to write"),
    "another photograph": (["{photo}", "--out", "{folder}/other.jpg"], "expected the name of a page to write"),
    "the photograph itself": (["{photo}", "--out", "{photo}"], "expected the name of a page to write"),
    "below a file": (["{photo}", "--out", "{text}/page.html"], "text.txt"),
    "no such node": (["{photo}", "--channels", "pool9:1"], "expected NODE:CHANNEL"),
    "no such channel": (["{photo}", "--channels", "score_fr:7"], "channels 0 to 6"),
    "no data": (["{photo}", "--channels", "score_fr:1", "--data", "{folder}/none"], "none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_line(name, tmp_path, capsys):
    arguments, told = WRONG[name]
    places = {
        "folder": tmp_path,
        "photo": tmp_path / "photo.png",
        "text": tmp_path / "text.txt",
        "classifier": tmp_path / "c.npz",
    }
    Image.fromarray(photograph(20, 30)).save(places["photo"])
    places["text"].write_text("no image")
    weights.save(places["classifier"], models.mini(3))
    before = set(tmp_path.iterdir())
    assert cli.main(["explore", "--out", str(tmp_path / "page.html"), *(a.format(**places) for a in arguments)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("minifcn: ") and told in line
    assert set(tmp_path.iterdir()) == before


def test_without_an_image_that_can_be_read_there_is_no_page(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"images/{name}.png").write_bytes(b"no image")
    Image.fromarray(photograph(20, 30)).save(tmp_path / "photo.png")
    words = ["photo.png", "--out", "new/page.html", "--data", "images"]
    assert cli.main(["explore", *(w if w[0] == "-" else str(tmp_path / w) for w in words)]) == 1
    assert capsys.readouterr().err.count("skipped: ") == 2 and not (tmp_path / "new").exists()


def test_the_same_is_found_on_every_device(device):
    network, image = named(stirred(tiny("8s", "paper", 3))), photograph(40, 50)
    found = explore(network, image, 1 << 20)
    expected = network.forward(device.put(network.card.preprocessing.apply(image)[None]))
    np.testing.assert_allclose(found.logits, device.get(expected)[0], rtol=0, atol=1e-4)
    assert found.difference < 1e-4 and len(found.branches) == 3
    assert ascent.ascend(network, "vgg.pool1", [0], steps=1).shape == (1, 128, 128, 3)
