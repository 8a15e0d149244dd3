"""The widgets of the lessons, in Chromium: what they show is what Python computes."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import in_page, needs_browser
from networks import stirred, tiny

from minifcn import data, inference, models, ops
from minifcn.data.labels import colourise
from minifcn.data.toyvoc import CLASSES, draw_scene
from minifcn.metrics import ConfusionMatrix

sys.path.insert(0, str(Path(__file__).parents[1] / "lessons"))

import buglab  # noqa: E402
import film  # noqa: E402
import lesson  # noqa: E402

SIZE, CROP = 150, 40 - 1 - 1.5 - 12 + 3.5  # the padding, two poolings, fc6's three cells, the stamp
LAYERS = [("conv1_1", "conv", 3, 1, 40), ("pool1", "pool", 2, 2, 0), ("conv2_1", "conv", 3, 1, 1)]
LAYERS += [("pool2", "pool", 2, 2, 0), ("fc6", "conv", 7, 1, 0), ("upscore", "deconv", 8, 4, 0)]


def page(folder, name, numbers):
    path = folder / "page.html"
    path.write_text(f"<!DOCTYPE html><html><head></head><body>{lesson.widget_html(name, numbers)}</body></html>")
    return path


def outputs(x):
    """A network of the layers' windows along one axis, all weights 1. -> (its last map, the caches of its layers)"""
    caches = []
    for _, kind, k, s, p in LAYERS:
        w = np.ones((1, 1, k, 1))
        run = ops.conv_transpose2d_forward if kind == "deconv" else ops.conv2d_forward
        hang = (s - 1 if kind == "pool" else 0, 0)  # a pooling keeps the last window that hangs over
        extra = ((p, p + hang[0]), (0, 0)) if kind != "deconv" else 0
        x, cache = run(x, w, stride=(s, 1), pad=extra)
        caches.append(cache)
    return x, caches


def seen(row):
    """{map: its first and last cell on which a row of the output depends}, by a gradient sent back."""
    y, caches = outputs(np.zeros((1, 1, SIZE, 1)))
    dy = np.zeros_like(y)
    dy[0, 0, row] = 1
    found = {}
    for (name, kind, *_), cache in reversed(list(zip(LAYERS, caches, strict=True))):
        found[name] = ends(dy)
        dy = (ops.conv_transpose2d_backward if kind == "deconv" else ops.conv2d_backward)(dy, cache)[0]
    return found | {"image": ends(dy)}


def ends(dy):
    """The first and last cell that a gradient reaches, or None."""
    reached = np.flatnonzero(dy)
    return (reached[0], reached[-1]) if len(reached) else None


def sizes():
    n, found = SIZE, []
    for _, kind, k, s, p in LAYERS:
        n = s * (n - 1) + k - 2 * p if kind == "deconv" else -(-(n + 2 * p - k) // s) + 1
        found.append(n)
    return found


def ruler():
    image, label = draw_scene(np.random.default_rng(3), 40)
    mask = np.pad(np.where(label == 255, 0, label), ((29, 11), (29, 11)))
    layers = [[*layer, n] for layer, n in zip(LAYERS, sizes(), strict=True)]
    colours = np.random.default_rng(0).integers(0, 256, (len(CLASSES), 3)).tolist()
    return {
        "layers": layers,
        "size": SIZE,
        "crop": CROP,
        "image": image,
        "label": label,
        "mask": mask,
        "colours": colours,
    }


@needs_browser
def test_the_ruler_says_what_a_gradient_reaches_and_what_a_crop_costs(tmp_path):
    numbers = ruler()
    y, _ = outputs(np.zeros((1, 1, SIZE, 1)))
    assert y.shape[2] == sizes()[-1]
    script = """
        const root = document.querySelector(".widget"), [row, crop] = root.querySelectorAll("input"), found = [];
        for (const [r, c] of [[75, 29], [0, 29], [149, 40], [75, 0], [0, 0]]) {
          row.value = r; row.dispatchEvent(new Event("input"));
          crop.value = c; crop.dispatchEvent(new Event("input"));
          found.push([r, c, Object.fromEntries([...root.querySelectorAll(".rows div")].map(
            (line) => [line.firstChild.textContent, line.lastChild.textContent])),
            ...[...root.querySelectorAll("output")].map((said) => said.textContent)]);
        }
        return found;
    """
    for row, crop, shown, said, judged in in_page(page(tmp_path, "ruler", numbers), script):
        expected = seen(row + crop)
        assert set(shown) == {"image", "pool1", "pool2", "fc6", "upscore"}
        for name, text in shown.items():
            low, high = expected[name] or (None, None)
            assert text == ("padding" if low is None else str(low) if low == high else f"{low}–{high}"), (
                row,
                crop,
                name,
            )
        low, high = expected["image"] or (None, None)
        assert said.startswith(
            f"Output row {row} sees " + ("only padding" if low is None else f"pixels {low} to {high}")
        )
        height, width = numbers["label"].shape
        matrix = ConfusionMatrix(len(CLASSES))
        matrix.update(numbers["label"], numbers["mask"][crop : crop + height, crop : crop + width])
        assert judged == f"Cropped at {crop}, the mask has a mean IoU of {100 * matrix.mean_iou():.1f} %."


@needs_browser
def test_the_ruler_follows_a_finger_and_names_a_wrong_crop(tmp_path):
    script = """
        const root = document.querySelector(".widget"), [row, crop] = root.querySelectorAll("input");
        const box = root.querySelector(".rows i").getBoundingClientRect();
        const at = box.left + box.width * (0.3 + 40.2 / 150) / 1.6;
        root.querySelector(".rows").dispatchEvent(new PointerEvent("pointerdown", { clientX: at }));
        crop.value = 20; crop.dispatchEvent(new Event("input"));
        return [row.value, root.querySelector("output").textContent];
    """
    row, said = in_page(page(tmp_path, "ruler", ruler()), script, width=500)
    assert row == "40"
    middle = float(re.search(r"stands for pixel ([\d.]+)", said)[1])
    assert middle == 40 + 20 - CROP


def kernel():
    """Numbers of one decimal, as the widget shows them: x (7, 6), w (3, 3), dy large enough for every setting."""
    rng = np.random.default_rng(5)
    sizes = {"x": (7, 6), "w": (3, 3), "dy": (9, 8)}
    return {name: rng.normal(size=size).round(1) for name, size in sizes.items()}


SLIDE = """
    const root = document.querySelector(".widget"), slider = root.querySelector("input"), found = [];
    const choose = (name, value) => {
      const select = root.querySelector(`[name=${name}]`);
      select.value = value; select.dispatchEvent(new Event("change"));
    };
    const move = (n) => { slider.value = n; slider.dispatchEvent(new Event("input")); };
    const grids = () => Object.fromEntries([...root.querySelectorAll(".grids figure")].map((figure) => [
      figure.querySelector("figcaption").textContent, [...figure.querySelectorAll("span")].map((cell) => Number(cell.dataset.value))]));
    const cells = (mark) => [...root.querySelectorAll(".grids figure")].map((figure) =>
      [...figure.querySelectorAll("span")].flatMap((cell, n) => cell.classList.contains(mark) ? [n] : []));
"""


@needs_browser
def test_the_sliding_kernel_computes_what_the_library_does_both_ways(tmp_path):
    given = kernel()
    x, w, dy = (given[name][None, None] for name in ("x", "w", "dy"))
    script = """
        for (const stride of [1, 2, 3]) for (const pad of [0, 1, 2]) for (const dilation of [1, 2]) {
          Object.entries({ stride, pad, dilation }).forEach(([name, value]) => choose(name, value));
          const last = Number(slider.max), steps = [];
          for (const n of [0, last >> 1, last]) {
            choose("pass", "forward"); move(n);
            const forward = grids(), said = root.querySelector("output").textContent;
            choose("pass", "backward");
            steps.push([n, forward, said, grids()]);
          }
          found.push([{ stride, pad, dilation }, last, steps]);
        }
        return found;
    """
    plain = {name: array.tolist() for name, array in given.items()}
    results = in_page(page(tmp_path, "kernel", plain), SLIDE + script)
    assert len(results) == 18
    for settings, last, steps in results:
        y, cache = ops.conv2d_forward(x, w, **settings)
        assert last == y.size - 1
        for n, forward, said, backward in steps:
            i, j = divmod(n, y.shape[3])
            np.testing.assert_allclose(forward["y"][: n + 1], y.ravel()[: n + 1], rtol=0, atol=1e-12)
            assert len(forward["y"]) == y.size and np.isnan(forward["y"][n + 1 :]).all()
            np.testing.assert_allclose(sum(forward["w · x"]), y[0, 0, i, j], rtol=0, atol=1e-12)
            assert said.startswith(f"y[{i}, {j}] = ")
            assert abs(float(said.rpartition(" = ")[2].replace("−", "-")) - y[0, 0, i, j]) < 0.0051
            so_far = dy[:, :, : y.shape[2], : y.shape[3]].copy()
            so_far.reshape(-1)[n + 1 :] = 0
            dx, dw, _ = ops.conv2d_backward(so_far, cache)
            np.testing.assert_allclose(backward["dx so far"], dx.ravel(), rtol=0, atol=1e-12)
            np.testing.assert_allclose(backward["dw so far"], dw.ravel(), rtol=0, atol=1e-12)


@needs_browser
@pytest.mark.parametrize("width", [420, 1280])
def test_the_sliding_kernel_follows_a_finger_and_marks_its_window(width, tmp_path):
    script = """
        const cell = root.querySelectorAll(".target span")[7].getBoundingClientRect();
        root.querySelectorAll(".target span")[7].dispatchEvent(new PointerEvent("pointerdown",
          { clientX: cell.left + cell.width / 2, clientY: cell.top + cell.height / 2, bubbles: true }));
        return [slider.value, slider.getAttribute("aria-valuetext"), cells("now").at(-1), cells("on")[0],
          document.documentElement.scrollWidth <= innerWidth];
    """
    plain = {name: array.tolist() for name, array in kernel().items()}
    value, said, now, window, fits = in_page(page(tmp_path, "kernel", plain), SLIDE + script, width)
    assert (value, said, now) == ("7", "row 2, column 1", [7])
    rows, columns = (np.add(2 * start, range(3)) for start in (2, 1))  # stride 2: in x with its ring of one
    assert window == [8 * row + column for row in rows for column in columns]
    assert fits


@pytest.fixture(scope="module")
def lab():
    """What the bug lab shows."""
    return buglab.numbers()


def worst(bug, check, dtype, lab, e=1e-5):
    """The relative error of one check in the lab."""
    found = next(one for one in lab["bugs"] if one["name"].startswith(bug))
    return found["results"][check][dtype]["errors"][lab["steps"].index(e)]


def test_the_lab_measures_the_library_with_a_bug_in_it(lab):
    rng = np.random.default_rng(7)
    x, w = rng.permutation(32).reshape(2, 1, 4, 4) / 8 - 2, rng.normal(size=(1, 1, 3, 3))
    g = rng.normal(size=(2, 1, 4, 4))
    right, turned, exchanged, one, *_ = lab["bugs"]
    _, cache = ops.conv2d_forward(x, w, pad=1)
    dx, dw, _ = ops.conv2d_backward(g, cache)
    (check, *_), dtype = lab["checks"], "float64"
    for bug, expected in (
        (right, dx),
        (turned, ops.conv2d_backward(g, (cache[0], w[:, :, ::-1, ::-1], *cache[2:]))[0]),
        (exchanged, ops.conv2d_backward(g.swapaxes(2, 3), cache)[0]),
        (one, ops.conv2d_backward(g[:1], ops.conv2d_forward(x[:1], w, pad=1)[1])[1]),
    ):
        np.testing.assert_allclose(bug["results"][check][dtype]["analytic"], expected[0, 0], rtol=1e-3)
        assert (bug["lines"][0] == bug["lines"][1]) == (bug is right)
    quotients = lab["quotients"]
    np.testing.assert_allclose(quotients["dx of a convolution"][check][dtype][4], dx[0, 0], rtol=1e-3)
    np.testing.assert_allclose(quotients["dw of a convolution"][check][dtype][4], dw[0, 0], rtol=1e-3)


def test_the_lab_s_story_is_true(lab):
    strong, ones, single = lab["checks"]
    error = {
        (bug["name"], check, dtype): worst(bug["name"], check, dtype, lab, {"float64": 1e-5, "float32": 1e-2}[dtype])
        for bug in lab["bugs"]
        for check in lab["checks"]
        for dtype in lab["tolerances"]
    }
    slips = {key for key, value in error.items() if value < lab["tolerances"][key[2]]}
    none, _, exchanged, first, pixel, tie = (bug["name"] for bug in lab["bugs"])
    everywhere = {
        (name, check, dtype) for name in (none, tie) for check in lab["checks"] for dtype in lab["tolerances"]
    }
    weak = {(exchanged, ones, dtype) for dtype in lab["tolerances"]} | {
        (first, single, dtype) for dtype in lab["tolerances"]
    }
    assert slips == everywhere | weak | {(pixel, strong, "float32")}
    assert worst(none, strong, "float32", lab) > lab["tolerances"]["float32"]  # at 1e-5 even the right code fails


def test_the_lab_says_which_line_it_does_not_find():
    bug = buglab.BUGS[1]._replace(right="no such line")
    with (
        pytest.raises(ValueError, match="conv.reference: expected 'no such line' once in input_gradient"),
        buglab.planted(bug),
    ):
        pass


@needs_browser
def test_the_lab_shows_what_was_measured_and_judges_by_it(lab, tmp_path):
    script = """
        const root = document.querySelector(".widget"), [bug, check, dtype] = root.querySelectorAll("select");
        const slider = root.querySelector("input"), buttons = root.querySelectorAll("button"), found = [];
        const put = (input, value, event) => { input.value = value; input.dispatchEvent(new Event(event)); };
        for (let b = 0; b < bug.length; b++) for (let c = 0; c < check.length; c++) for (let d = 0; d < dtype.length; d++) {
          put(bug, b, "change"); put(check, c, "change"); put(dtype, d, "input");
          for (const step of [0, 5, 8]) {
            put(slider, step, "input");
            const hidden = root.querySelector("output").textContent;
            buttons[(b + c + d) % 2].click();
            found.push([b, c, d, step, hidden, root.querySelector("output").textContent, root.querySelector("pre").textContent,
              [...root.querySelectorAll(".grids .grid")].map((grid) => [...grid.children].map((cell) => Number(cell.dataset.value))),
              [...root.querySelectorAll(`[data-dtype]`)].map((g) => [...g.querySelectorAll("circle")].map((dot) => Number(dot.dataset.error)))]);
          }
        }
        return found;
    """
    path, dtypes = page(tmp_path, "buglab", lab), list(lab["tolerances"])
    fresh, tries, right = set(), 0, 0
    for b, c, d, step, hidden, said, code, grids, curves in in_page(path, script):
        bug, check, dtype = lab["bugs"][b], lab["checks"][c], dtypes[d]
        result, tolerance = bug["results"][check][dtype], lab["tolerances"][dtype]
        analytic, numeric = (
            np.array(result["analytic"]),
            np.array(lab["quotients"][bug["gradient"]][check][dtype][step]),
        )
        for shown, expected in zip(grids, (analytic, numeric, analytic - numeric), strict=True):
            np.testing.assert_allclose(shown, expected.ravel(), rtol=0, atol=1e-12)
        assert curves == [bug["results"][check][name]["errors"] for name in dtypes]
        complains, buggy = result["errors"][step] >= tolerance, b > 0
        verdict = {
            (True, True): "It complains: caught.",
            (True, False): "a false alarm.",
            (False, True): "the bug slips through.",
            (False, False): "and the code is right.",
        }
        assert verdict[complains, buggy] in said and bug["said"] in said
        assert all(line in code for line in bug["lines"])
        if (b, c, d) not in fresh:  # the first guess counts, and shows what was hidden
            assert hidden == "" and not fresh.add((b, c, d))
            tries, right = tries + 1, right + (complains == ((b + c + d) % 2 == 0))
        assert said.endswith(f"Guessed right: {right} of {tries}.")


@needs_browser
@pytest.mark.parametrize("width", [420, 1280])
def test_the_lab_fits_its_window(width, lab, tmp_path):
    script = """document.querySelector(".widget button").click();
        return [document.documentElement.scrollWidth <= innerWidth, document.querySelector("svg").getBoundingClientRect().width > 250];"""
    assert in_page(page(tmp_path, "buglab", lab), script, width) == [True, True]


@needs_browser
def test_the_film_shows_what_each_network_predicted_at_a_step(tmp_path):
    scenes = [draw_scene(np.random.default_rng(seed), 60) for seed in (1, 2)]
    samples = [data.Sample(image[:40, :40], label[:40, :40], str(i)) for i, (image, label) in enumerate(scenes)]
    shown, rng, nets = film.Film(samples, ("left", "right"), every=10), np.random.default_rng(0), {}
    for way, after in (("left", 0), ("left", 20), ("right", 0)):
        for step in (0, 5, 10, 20):
            net = nets[way, after + step] = models.fcn("8s", "mini", len(CLASSES), alignment="same", width=2)
            net["score_pool3"].weight.value[:] = rng.normal(size=net["score_pool3"].weight.value.shape)
            shown.of(way, after)(step, net)
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><html><head></head><body>{shown.html()}</body></html>", encoding="utf-8")
    script = """
        const slider = document.querySelector("input"), picture = document.querySelector(".predicted"), found = [];
        for (let i = 0; i <= slider.max; i++) {
          slider.value = i; slider.dispatchEvent(new Event("input"));
          await picture.decode();
          const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
          [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
          context.drawImage(picture, 0, 0);
          found.push([document.querySelector("output").textContent, canvas.height, [...context.getImageData(0, 0, canvas.width, canvas.height).data]]);
        }
        return found;
    """
    found = in_page(path, script)
    assert len(found) == 3  # 40 of the right way was never kept, nor 5
    for step, (said, height, pixels) in zip((0, 10, 20), found, strict=True):
        pixels, words = np.reshape(pixels, (height, -1, 4))[:, :, :3], []
        for n, way in enumerate(("left", "right")):
            matrix = ConfusionMatrix(len(CLASSES))
            for i, sample in enumerate(samples):
                labels = inference.predict(nets[way, step], sample.image)
                part = pixels[44 * n : 44 * n + 40, 44 * i : 44 * i + 40]
                np.testing.assert_array_equal(part, colourise(labels))
                matrix.update(sample.label, labels)
            words.append(f"{way} {100 * matrix.mean_iou():.1f}")
        assert said == f"iteration {step}: mean IoU of these images: {'; '.join(words)}"


@needs_browser
@pytest.mark.parametrize("width", [420, 1280])
def test_the_explorer_in_a_lesson_sums_and_mutes_branches(width, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lesson, "OUTPUT", tmp_path / "output")
    image = draw_scene(np.random.default_rng(4), 60)[0][:48, :48]
    network = stirred(tiny("8s", "same", 3, width=2))
    network.card.classes = ("background", "disc", "ring")
    lesson.explorer("explored", "A scene", network, image)
    path = tmp_path / "output" / "explored.html"
    assert str(path) in capsys.readouterr().out
    framed = lesson.framed(path.read_text(encoding="utf-8"), "A scene")
    outer = tmp_path / "page.html"
    style = "<style>body { color: #111; } body[data-theme=dark] { color: #ddd; }</style>"
    outer.write_text(f"<!DOCTYPE html><html><head>{style}</head><body>{framed}</body></html>", encoding="utf-8")
    script = """
        const frame = document.querySelector("iframe");
        await until(() => frame.contentDocument?.body?.dataset.ready === "all");
        const inner = frame.contentDocument, stage = inner.getElementById("stage"), box = stage.getBoundingClientRect();
        stage.dispatchEvent(new MouseEvent("click", { clientX: box.left + box.width * 20.5 / 48, clientY: box.top + box.height * 30.5 / 48, bubbles: true }));
        const bars = () => Object.fromEntries([...inner.querySelectorAll("#bars tbody tr")].map((row) =>
          [row.dataset.class, [...row.querySelectorAll("[data-value]")].map((cell) => Number(cell.dataset.value))]));
        const mask = () => Array.from(frame.contentWindow.labels().label);
        const before = [bars(), mask()];
        inner.querySelector("[aria-label='mute score_pool3']").click();
        await until(() => Math.abs(frame.offsetHeight - inner.body.scrollHeight) < 12);
        const papers = [];
        for (const theme of ["light", "dark", "light"]) {
          document.body.dataset.theme = theme;
          await sleep(50);
          papers.push(getComputedStyle(inner.body).backgroundColor);
        }
        return [papers, before, [bars(), mask()], inner.getElementById("pixel").textContent, frame.offsetHeight, inner.getElementById("looks").offsetHeight, document.documentElement.scrollWidth <= innerWidth];
    """
    papers, whole, muted, pixel, height, hidden, fits = in_page(outer, script, width)
    assert papers == ["rgb(255, 255, 255)", "rgb(20, 24, 29)", "rgb(255, 255, 255)"]  # those of the page around it
    assert pixel == "row 30, column 20"
    prepared, state = network.card.preprocessing.apply(image)[None], network.state_dict()
    for (bars, mask), without in ((whole, ()), (muted, ("score_pool3.weight", "score_pool3.bias"))):
        network.load_state_dict({name: 0 * value if name in without else value for name, value in state.items()})
        logits = network.forward(prepared)[0]
        for k, (total, *parts) in bars.items():
            np.testing.assert_allclose([total, sum(parts)], logits[int(k), 30, 20], rtol=0, atol=1e-5)
        assert np.mean(np.equal(mask, logits.argmax(axis=0).ravel())) > 0.999
    assert whole[1] != muted[1]
    assert fits and hidden == 0 and height > 700
