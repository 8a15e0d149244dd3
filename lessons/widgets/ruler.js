// What an output row looks at, layer by layer, and where a crop puts a mask.
// numbers: layers [[name, kind, kernel, stride, pad, size]] from the image on, image (H, W, 3), label (H, W), mask: the
// labels before the crop, larger by 40 rows and columns; size: of the image that the ruler is laid on; crop: the right one.
function widget(root, numbers) {
  const { layers, size, mask, label, image } = numbers;
  root.innerHTML = `
    <p><label>output row <input name="row" type="range" min="0" max="${size - 1}" value="${size >> 1}"></label>
    <label>crop <input name="crop" type="range" min="0" max="40" value="${numbers.crop}"></label></p>
    <p><output></output></p><div class="rows"></div>
    <p><canvas width="${image.shape[1]}" height="${image.shape[0]}" role="img"
      aria-label="The image with the mask over it, cropped as chosen"></canvas></p><p><output></output></p>`;
  const [row, crop] = root.querySelectorAll("input");
  const [said, judged] = root.querySelectorAll("output");
  const rows = root.querySelector(".rows");
  const canvas = root.querySelector("canvas");
  const bytes = (array) => Uint8Array.from(atob(array.bytes), (c) => c.charCodeAt(0));
  const [pixels, truth, guess] = [image, label, mask].map(bytes);

  // Each map's own place: pixel u of the image is at a·u + b of it.
  const maps = [{ name: "image", a: 1, b: 0, size }];
  for (const [name, kind, k, s, p, n] of layers) {
    const last = maps.at(-1);
    const [a, b] = kind === "deconv" ? [s, (k - 1) / 2 - p] : [1 / s, (p - (k - 1) / 2) / s];
    maps.push({ name, a: a * last.a, b: a * last.b + b, size: n });
  }
  const shown = maps.filter((map) => /image|pool|fc6|upscore/.test(map.name)).reverse();
  const margin = 0.3 * size; // what is drawn of the padding, on each side
  for (const map of shown) {
    const line = rows.appendChild(document.createElement("div"));
    line.innerHTML = `<span>${map.name}</span><i><b></b></i><span></span>`;
    const cell = 100 / map.a / (size + 2 * margin);
    const from = 100 * ((-0.5 - map.b) / map.a + margin) / (size + 2 * margin);
    const edge = `${from}%, #8888 calc(${from}% + 1px), #0000 calc(${from}% + 1px), #0000 ${from + cell}%`;
    if (cell > 1) line.children[1].style.background = `repeating-linear-gradient(90deg, #8888 ${edge}) #8883`;
  }

  // The first and last cell of every map that row i of the uncropped output depends on; edges are cut off.
  function windows(i) {
    let [low, high] = [i, i];
    const found = { [layers.at(-1)[0]]: [low, high] };
    for (let n = layers.length - 1; n >= 0; n--) {
      const [, kind, k, s, p] = layers[n];
      if (kind === "deconv") [low, high] = [Math.ceil((low + p - k + 1) / s), Math.floor((high + p) / s)];
      else [low, high] = [s * low - p, s * high - p + k - 1];
      low = Math.max(low, 0);
      high = Math.min(high, maps[n].size - 1);
      found[maps[n].name] = [low, high];
    }
    return found;
  }

  function draw() {
    const i = Number(row.value), c = Number(crop.value), seen = windows(i + c);
    shown.forEach((map, n) => {
      const [low, high] = seen[map.name];
      const [bar, text] = [rows.children[n].querySelector("b"), rows.children[n].lastChild];
      const left = (low - 0.5 - map.b) / map.a + margin, right = (high + 0.5 - map.b) / map.a + margin;
      bar.style.left = `${100 * left / (size + 2 * margin)}%`;
      bar.style.width = `max(2px, ${100 * (right - left) / (size + 2 * margin)}%)`;
      bar.hidden = low > high;
      text.textContent = low > high ? "padding" : low === high ? low : `${low}–${high}`;
    });
    const end = maps.at(-1), reads = (i + c - end.b) / end.a, [low, high] = seen.image;
    const field = low > high ? "only padding" : `pixels ${low} to ${high}`;
    said.textContent = `Output row ${i} sees ${field} and stands for pixel ${reads}` +
      (reads === i ? ", its own." : `: ${Math.abs(reads - i)} too far ${reads < i ? "up" : "down"}.`);
  }

  function lay() {
    const c = Number(crop.value), [H, W] = label.shape, stride = mask.shape[1];
    const context = canvas.getContext("2d"), out = context.createImageData(W, H);
    const same = new Float64Array(256), either = new Float64Array(256);
    for (let y = 0; y < H; y++) for (let x = 0; x < W; x++) {
      const at = y * W + x, k = guess[(y + c) * stride + x + c], t = truth[at];
      for (let n = 0; n < 3; n++) out.data[4 * at + n] = (pixels[3 * at + n] + numbers.colours[k][n]) / 2;
      out.data[4 * at + 3] = 255;
      if (t === 255) continue;
      if (t === k) same[k]++, either[k]++;
      else either[t]++, either[k]++;
    }
    context.putImageData(out, 0, 0);
    const iou = [...same].map((n, k) => n / either[k]).filter((n) => !Number.isNaN(n));
    judged.textContent = `Cropped at ${c}, the mask has a mean IoU of ` +
      `${(100 * iou.reduce((a, b) => a + b) / iou.length).toFixed(1)} %.`;
  }

  const follow = (event) => {
    const box = rows.querySelector("i").getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * (size + 2 * margin) - margin;
    row.value = Math.round(Math.min(Math.max(at, 0), size - 1));
    draw();
  };
  rows.addEventListener("pointermove", follow);
  rows.addEventListener("pointerdown", follow);
  row.addEventListener("input", draw);
  crop.addEventListener("input", () => { draw(); lay(); });
  draw();
  lay();
}
