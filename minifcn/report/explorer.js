"use strict";
// The page of one photograph in one network. `page` is what explorer.py wrote; arrays are decoded when they are first needed.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { nodes, branches, classes, colours, photo, inside, step } = page;
const gridHeight = branches[0].rows.start.length, gridWidth = branches[0].columns.start.length, cells = gridHeight * gridWidth;
const PARTS = ["#3b82d6", "#e08a1e", "#3aa76d", "#b25fc4", "#c9504a", "#7f8c99"], BIAS = "#8a8f98";
const state = { y: 0, x: 0, node: 0, channel: 0, view: "mask", factors: branches.map(() => 1) };
const isSum = page.why === null;

function element(tag, attributes = {}, ...children) {
  const made = tag === "svg" || tag === "path" || tag === "rect" || tag === "line"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const decoded = {};
async function bytes(name) {
  return decoded[name] ??= (async () => {
    const packed = Uint8Array.from(atob($(name).textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  })();
}

async function mapsOf(i) {
  const node = nodes[i], count = node.shape[0], buffer = await bytes(node.maps);
  return { low: new Float32Array(buffer, 0, count), high: new Float32Array(buffer, 4 * count, count), cells: new Uint8Array(buffer, 8 * count) };
}

// --- Scores: every branch enlarged, R · S · Cᵀ, and their weighted sum -------------------------------------------
function enlarged(branch, scores) {
  const [h, w] = branch.size, part = new Float32Array(classes.length * cells), line = new Float64Array(w);
  for (let k = 0; k < classes.length; k++) {
    for (let y = 0; y < gridHeight; y++) {
      line.fill(0);
      branch.rows.weights[y].forEach((weight, i) => {
        const from = (k * h + branch.rows.start[y] + i) * w;
        for (let x = 0; x < w; x++) line[x] += weight * scores[from + x];
      });
      const to = (k * gridHeight + y) * gridWidth;
      for (let x = 0; x < gridWidth; x++) {
        const start = branch.columns.start[x], weights = branch.columns.weights[x];
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * line[start + i];
        part[to + x] = sum;
      }
    }
  }
  return part;
}

const parts = [];
const biasAt = (b, k, gy, gx) => branches[b].bias[k] * branches[b].fading[0][gy] * branches[b].fading[1][gx];
function score(k, gy, gx) {
  let sum = 0;
  for (let b = 0; b < branches.length; b++) {
    sum += state.factors[b] * (parts[b][k * cells + gy * gridWidth + gx] + biasAt(b, k, gy, gx));
  }
  return sum;
}

function labels() {
  const best = new Float64Array(cells).fill(-Infinity), label = new Uint8Array(cells), probability = new Float64Array(cells);
  const shown = state.view.startsWith("class ") ? Number(state.view.slice(6)) : -1, sums = new Float64Array(cells);
  for (let k = 0; k < classes.length; k++) {
    for (let gy = 0, i = 0; gy < gridHeight; gy++) {
      for (let gx = 0; gx < gridWidth; gx++, i++) {
        const value = score(k, gy, gx);
        if (value > best[i]) { sums[i] *= Math.exp(best[i] - value); best[i] = value; label[i] = k; }
        sums[i] += Math.exp(value - best[i]);
        if (k === shown) probability[i] = value;
      }
    }
  }
  for (let i = 0; shown >= 0 && i < cells; i++) probability[i] = Math.exp(probability[i] - best[i]) / sums[i];
  return { label, probability };
}

// --- Colours ---------------------------------------------------------------------------------------------------
const STRONG = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const SIGNED = [[190, 225, 255], [47, 127, 209], [11, 13, 16], [217, 98, 43], [255, 214, 165]];
function colour(stops, t) {
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1), i = Math.min(Math.floor(at), stops.length - 2);
  return stops[i].map((value, c) => value + (at - i) * (stops[i + 1][c] - value));
}
function tableOf(low, high) {  // the colour of each of 256 levels
  const reach = Math.max(-low, high) || 1, table = new Uint8ClampedArray(1024);
  for (let q = 0; q < 256; q++) {
    const value = low + (q / 255) * (high - low);
    table.set([...(low < 0 ? colour(SIGNED, (value / reach + 1) / 2) : colour(STRONG, high > low ? q / 255 : 0)), 255], 4 * q);
  }
  return table;
}
function picture(node, maps, channel) {  // one map as a small canvas
  const [h, w] = node.cells, table = tableOf(maps.low[channel], maps.high[channel]);
  const canvas = element("canvas", { width: w, height: h }), context = canvas.getContext("2d"), image = context.createImageData(w, h);
  for (let i = 0; i < h * w; i++) image.data.set(table.subarray(4 * maps.cells[channel * h * w + i], 4 * maps.cells[channel * h * w + i] + 4), 4 * i);
  context.putImageData(image, 0, 0);
  return canvas;
}

// --- Over the photograph -----------------------------------------------------------------------------------------
let untouched = null;
async function drawLayer() {
  const canvas = $("layer"), context = canvas.getContext("2d");
  context.clearRect(0, 0, photo.width, photo.height);
  const { label, probability } = labels();
  untouched ??= label;
  const changed = label.reduce((sum, value, i) => sum + (value !== untouched[i]), 0);
  $("changed").textContent = branches.length < 2 ? "" : state.factors.every((factor) => factor === 1)
    ? "Move a slider: the mask is computed anew from the weighted sum."
    : `With these weights ${(100 * changed / cells).toFixed(1)} % of the pixels have another class.`;
  $("scale").textContent = "";
  if (state.view === "channel") {
    const node = nodes[state.node], maps = await mapsOf(state.node), small = picture(node, maps, state.channel);
    const [a, b] = node.at ?? [node.shape[1] / photo.height, -0.5];
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, photo.width, photo.height);
    const place = (size) => node.at ? size * node.factor / a : size;
    context.drawImage(small, (-b) / a + 0.5 - 0.5 / a, (-b) / a + 0.5 - 0.5 / a, node.at ? place(node.cells[1]) : photo.width, node.at ? place(node.cells[0]) : photo.height);
    const [low, high] = [maps.low[state.channel], maps.high[state.channel]].map(short);
    const blue = maps.low[state.channel] < 0 ? "blue below zero, black at zero, " : "black at the lowest, ";
    $("scale").textContent = `${node.name}, ${channelName(state.node, state.channel)}: ${low} to ${high}; ${blue}bright at the highest.`
      + (node.factor > 1 ? ` Averaged over ${node.factor} × ${node.factor} cells.` : "");
  } else if (state.view !== "nothing") {
    const image = context.createImageData(inside.width, inside.height), table = tableOf(0, 1);
    for (let y = 0, i = 0; y < inside.height; y++) {
      const gy = Math.min(Math.floor(y / step), gridHeight - 1);
      for (let x = 0; x < inside.width; x++, i += 4) {
        const at = gy * gridWidth + Math.min(Math.floor(x / step), gridWidth - 1);
        if (state.view === "mask") image.data.set([...colours[label[at]], 255], i);
        else image.data.set(table.subarray(4 * Math.round(255 * probability[at]), 4 * Math.round(255 * probability[at]) + 4), i);
      }
    }
    context.putImageData(image, inside.left, inside.top);
    if (state.view !== "mask") $("scale").textContent = "Probability (softmax of the scores): black 0, bright 1.";
    if (step > 1) $("scale").textContent += ` Scores are kept for every ${step}th row and column only.`;
  }
  canvas.dataset.view = `${state.view} ${state.factors.join(" ")} ${state.node} ${state.channel}`;  // when it is drawn
}

const short = (value) => value.toFixed(Math.abs(value) < 10 ? 2 : 1).replace("-", "−");
const isScore = (i) => nodes[i].shape[0] === classes.length && i >= Math.min(...branches.map((branch) => branch.node));
const brief = (node) => node.name.startsWith(page.prefix) ? node.name.slice(page.prefix.length) : node.name;
const channelName = (i, channel) => isScore(i) ? `channel ${channel}, ${classes[channel]}` : `channel ${channel}`;
const cellAt = (node, pixel, axis) => node.at ? Math.min(Math.max(Math.floor(node.at[0] * pixel + node.at[1] + 0.5), 0), node.shape[1 + axis] - 1) : 0;

function fieldOf(node) {  // [top, bottom, left, right] in the photograph of the cell at the pixel; null where it sees padding only
  const row = cellAt(node, state.y, 0), column = cellAt(node, state.x, 1);
  const field = [node.rows[0][row], node.rows[1][row], node.columns[0][column], node.columns[1][column]];
  return field[1] < field[0] || field[3] < field[2] ? null : field;
}

function drawBars() {
  const gy = gridAt(state.y, inside.top, gridHeight), gx = gridAt(state.x, inside.left, gridWidth), at = gy * gridWidth + gx;
  $("pixel").textContent = `row ${state.y - inside.top}, column ${state.x - inside.left}`;
  const rows = classes.map((name, k) => {
    const values = branches.map((_, b) => state.factors[b] * parts[b][k * cells + at]);
    const bias = branches.reduce((sum, _, b) => sum + state.factors[b] * biasAt(b, k, gy, gx), 0);
    return { k, name, values: isSum ? [...values, bias] : values, total: score(k, gy, gx) };
  }).sort((one, other) => other.total - one.total).slice(0, 5);
  const largest = Math.max(...rows.map((row) => Math.max(...[1, -1].map((sign) => row.values.reduce((sum, v) => sum + Math.max(sign * v, 0), 0))))) || 1;
  const scalesOf = branches.map((branch) => scaleOf(nodes[branch.node])), distinct = branches.length > 1 && new Set(scalesOf).size === branches.length;
  const head = isSum ? [...branches.map((branch, b) => distinct ? scalesOf[b] : branch.name), "biases"] : [];
  const dot = (fill) => element("span", { class: "dot", style: `background:${fill}` });
  const paint = (i) => isSum && i === branches.length ? BIAS : PARTS[i % PARTS.length];
  const table = element("table", {}, element("thead", {}, element("tr", {}, element("th", {}, "class"), element("th", {}, "score"),
    element("th", {}), ...head.map((name, i) => element("th", {}, dot(paint(i)), name)))), element("tbody"));
  for (const row of rows) {
    const bar = element("svg", { class: "bar", viewBox: "-100 0 200 16", preserveAspectRatio: "none", "aria-hidden": "true" });
    const ends = [0, 0];
    row.values.forEach((value, i) => {
      const width = 98 * Math.abs(value) / largest, side = value < 0 ? 0 : 1;
      bar.append(element("rect", { x: side ? ends[1] : -ends[0] - width, y: 2, width, height: 12, fill: paint(i) }));
      ends[side] += width;
    });
    bar.append(element("line", { x1: 0, x2: 0, y1: 0, y2: 16, stroke: "currentColor" }));
    table.lastChild.append(element("tr", { "data-class": row.k }, element("td", {}, dot(`rgb(${colours[row.k]})`), row.name),
      element("td", { "data-value": row.total }, element("b", {}, short(row.total))), element("td", {}, bar),
      ...(isSum ? row.values : []).map((value) => element("td", { "data-value": value }, short(value)))));
  }
  $("bars").replaceChildren(table, ...(isSum ? [] : [element("p", { class: "small" }, `The score is no sum of branches here: ${page.why}.`)]));
}

function drawSeen() {
  const marks = $("marks"), list = [...levels];
  marks.replaceChildren();
  marks.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
  if (!list.includes(state.node)) list.push(state.node);
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...["layer", "scale", "cell", "rows", "columns", "pixels"].map((t) => element("th", {}, t)))), element("tbody"));
  list.forEach((i, n) => {
    const node = nodes[i], field = fieldOf(node), paint = i === state.node ? "#ffffff" : PARTS[n % PARTS.length];
    const cell = `${cellAt(node, state.y, 0)}, ${cellAt(node, state.x, 1)}`;
    const text = field ? [`${field[0]}–${field[1]}`, `${field[2]}–${field[3]}`, `${field[1] - field[0] + 1} × ${field[3] - field[2] + 1}`] : ["padding only", "", ""];
    table.lastChild.append(element("tr", { "data-node": i, "data-field": JSON.stringify(field) },
      element("td", {}, element("span", { class: "dot", style: `background:${paint}` }), (i === state.node ? "◇ " : "") + brief(node)),
      element("td", {}, scaleOf(node)), element("td", {}, cell), ...text.map((t) => element("td", {}, t))));
    if (!field) return;
    const box = { x: field[2], y: field[0], width: field[3] - field[2] + 1, height: field[1] - field[0] + 1, fill: "none" };
    marks.append(element("rect", { ...box, stroke: "#000", "stroke-width": 3, "vector-effect": "non-scaling-stroke" }),
      element("rect", { ...box, stroke: paint, "stroke-width": 1.8, "vector-effect": "non-scaling-stroke" }));
  });
  for (const [stroke, width] of [["#000", 4], ["#fff", 2]]) {
    for (const [dx, dy] of [[8, 0], [0, 8]]) {
      marks.append(element("line", { x1: state.x + 0.5 - dx, x2: state.x + 0.5 + dx, y1: state.y + 0.5 - dy, y2: state.y + 0.5 + dy, stroke, "stroke-width": width, "vector-effect": "non-scaling-stroke" }));
    }
  }
  $("seen").replaceChildren(table);
}

// The page's grid: the row or column of it that a pixel lies on, of those of which all numbers are kept.
const kept = page.channels?.step ?? 1;
const gridAt = (pixel, start, count) => kept * Math.min(Math.max(Math.floor((pixel - start) / step / kept), 0), Math.floor((count - 1) / kept));

function choosePixel(y, x) {
  state.y = inside.top + step * gridAt(y, inside.top, gridHeight);
  state.x = inside.left + step * gridAt(x, inside.left, gridWidth);
  drawBars();
  drawSeen();
  describeChannel();
  drawChannels();
}

async function drawChannels() {  // of a network with one score layer: what each channel that it reads contributes
  if (!page.channels) return;
  const { size: [h, w], values } = page.channels, [branch] = branches, buffer = new Float32Array(await bytes(values));
  const count = nodes[branch.source].shape[0], from = classes.length * count;
  const gy = gridAt(state.y, inside.top, gridHeight) / kept, gx = gridAt(state.x, inside.left, gridWidth) / kept, rows = [];
  const k = Number($("bars").querySelector("tbody tr").dataset.class);
  for (let c = 0; c < count; c++) rows.push({ c, value: buffer[k * count + c] * buffer[from + (c * h + gy) * w + gx] });
  rows.sort((one, other) => Math.abs(other.value) - Math.abs(one.value));
  const bias = branch.bias[k] * buffer[from + (count * h + gy) * w + gx];
  const rest = rows.slice(6).reduce((sum, row) => sum + row.value, 0), total = rows.reduce((sum, row) => sum + row.value, 0) + bias;
  const line = (name, value) => element("tr", { "data-channel": name }, element("td", {}, name), element("td", { "data-value": value }, short(value)));
  const table = element("table", {}, element("tbody", {}, ...rows.slice(0, 6).map(({ c, value }) => {
    const row = line("", value), button = element("button", { type: "button" }, `channel ${c}`);
    button.addEventListener("click", () => { setView("channel"); chooseNode(branch.source, c); });
    row.firstChild.replaceChildren(button);
    return row;
  }), ...(rows.length > 6 ? [line(`the other ${rows.length - 6}`, rest)] : []), line("bias", bias), line("score", total)));
  const where = step * kept > 1 ? `, of which every ${step * kept}th row and column is kept` : "";
  $("by-channel").replaceChildren(element("p", { class: "small" },
    `The network has one score layer, so its score is a sum over the channels of ${nodes[branch.source].name}. For ${classes[k]}, at this pixel${where}:`), table);
}
