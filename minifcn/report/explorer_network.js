// --- The network drawn, and the maps of a layer -------------------------------------------------------------------
const scaleOf = (node) => node.step === null ? "whole map" : node.step === "1" ? "1" : `1/${node.step}`;
const stepOf = (i) => nodes[i].at ? 1 / nodes[i].at[0] : nodes[i].inputs.length ? stepOf(nodes[i].inputs[0]) : 1;
const steps = nodes.map((_, i) => stepOf(i)), scales = [...new Set(steps)].sort((a, b) => a - b);
// Behind the first map at the coarsest scale, what is finer again belongs to the way back up.
const coarsest = steps.indexOf(scales.at(-1)), back = nodes.map((_, i) => i > coarsest && (steps[i] < scales.at(-1) || branches.some((branch) => branch.node === i)));
const levels = scales.map((scale) => branches.find((branch) => steps[branch.source] === scale)?.source
  ?? nodes.reduce((last, _, i) => steps[i] === scale && !back[i] ? i : last, -1)).filter((i) => i >= 0);
if (!levels.includes(page.output)) levels.push(page.output);

const WIDE = 42, TALL = 43, GAP = 5, ROW = 2 * (TALL + 3) + 22, MARGIN = 38;
function placed() {  // where each box lies: a row for each scale, in it the blocks side by side, in two lines, down and then right
  const groups = [], rows = scales.map(() => [0, 0]);  // the way down from the left, the way back up at the right
  nodes.forEach((node, i) => {
    const name = node.name.split(".").slice(0, -1).join("."), row = scales.indexOf(steps[i]), up = Number(back[i]);
    const before = groups.findLast((group) => group.row === row && group.up === up);
    if (before?.name === name) before.members.push(i);
    else groups.push({ name, row, up, members: [i] });
  });
  for (const group of groups) {
    group.column = rows[group.row][group.up];
    rows[group.row][group.up] += Math.ceil(group.members.length / 2) * (WIDE + 2) + GAP;
  }
  const width = MARGIN + Math.max(...rows.map(([down, up]) => down + up + (down && up ? 12 : 0)));
  const at = [];
  for (const group of groups) {
    group.left = group.up ? width - rows[group.row][1] + group.column : MARGIN + group.column;
    group.top = group.row * ROW;
    group.members.forEach((i, n) => { at[i] = [group.left + Math.floor(n / 2) * (WIDE + 2), group.top + 13 + (n % 2) * (TALL + 3)]; });
  }
  return { groups, at, width };
}

function drawNetwork() {
  const { groups, at, width } = placed(), height = scales.length * ROW;
  const box = element("div", { style: `width:${width}px;height:${height}px` }), lines = element("svg", { width, height, "aria-hidden": "true" });
  box.append(lines);
  scales.forEach((scale, row) => box.append(element("span", { class: "scale", style: `left:0;top:${row * ROW + 24}px` }, scale === 1 ? "1" : `1/${Math.round(scale)}`)));
  for (const { name, left, top, members } of groups) {
    const wide = Math.ceil(members.length / 2) * (WIDE + 2);
    box.append(element("span", { class: "group", style: `left:${left}px;top:${top}px;width:${wide}px` }, name.split(".").at(-1)));
  }
  nodes.forEach((node, i) => {
    for (const from of node.inputs) {
      const [[x1, y1], [x2, y2]] = [at[from], at[i]].map(([x, y]) => [x + WIDE / 2, y + 15]);
      const far = Math.abs(x2 - x1) > 2 * WIDE && Math.abs(y2 - y1) < TALL;  // around what lies between
      const d = far ? `M${x1},${y1}C${x1},${Math.min(y1, y2) - 34} ${x2},${Math.min(y1, y2) - 34} ${x2},${y2}` : `M${x1},${y1}C${x1},${(y1 + y2) / 2} ${x2},${(y1 + y2) / 2} ${x2},${y2}`;
      lines.append(element("path", { d, "data-from": from, "data-to": i }));
    }
    const button = element("button", {
      class: "node", type: "button", style: `left:${at[i][0]}px;top:${at[i][1]}px`, tabindex: -1, "aria-pressed": "false",
      title: node.name, "aria-label": `${node.name}: ${node.kind}, ${node.shape.join(" × ")}`, "data-node": i,
    }, element("canvas", { width: 4, height: 3 }), element("span", {}, node.label));
    button.addEventListener("click", () => chooseNode(i));
    box.append(button);
  });
  $("network").replaceChildren(box);
  for (const name of box.querySelectorAll(".node span")) {  // one that is too long is squeezed
    Object.assign(name.style, { transform: `scaleX(${name.clientWidth / name.scrollWidth})`, width: `${name.scrollWidth}px` });
  }
  $("network").addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const next = Math.min(Math.max(state.node + way, 0), nodes.length - 1);
    chooseNode(next).then(() => buttonOf(next).focus());
  });
}
const buttonOf = (i) => $("network").querySelector(`button[data-node="${i}"]`);

async function drawThumbnails() {
  for (let i = 0; i < nodes.length; i++) {
    const maps = await mapsOf(i), drawn = picture(nodes[i], maps, strongest(maps)), old = buttonOf(i).querySelector("canvas");
    drawn.setAttribute("aria-hidden", "true");
    old.replaceWith(drawn);
  }
  document.body.dataset.ready = "all";
}
function strongest(maps) {  // the channel whose values differ most
  const count = maps.low.length, size = maps.cells.length / count, spread = new Float64Array(count);
  for (let c = 0; c < count; c++) {
    let sum = 0, squares = 0;
    for (let i = c * size; i < (c + 1) * size; i++) { sum += maps.cells[i]; squares += maps.cells[i] ** 2; }
    spread[c] = (maps.high[c] - maps.low[c]) ** 2 * (squares / size - (sum / size) ** 2);
  }
  return spread.indexOf(Math.max(...spread));
}

async function chooseNode(i, channel = null) {
  const node = nodes[i], maps = await mapsOf(i);
  buttonOf(state.node).setAttribute("tabindex", -1);
  buttonOf(state.node).setAttribute("aria-pressed", "false");
  state.node = i;
  buttonOf(i).setAttribute("tabindex", 0);
  buttonOf(i).setAttribute("aria-pressed", "true");
  for (const path of $("network").querySelectorAll("path")) path.classList.toggle("on", path.dataset.from === `${i}` || path.dataset.to === `${i}`);
  $("node-title").textContent = node.name;
  const [count, h, w] = node.shape;
  const reads = node.inputs.length ? `reads ${node.inputs.map((from) => nodes[from].name).join(" and ")}` : "reads the image";
  $("node-text").textContent = `${node.kind}: ${count} channel${count > 1 ? "s" : ""} of ${h} × ${w} cells, `
    + `${node.step === null ? "of the whole image" : `one every ${node.step} pixel${node.step === "1" ? "" : "s"}`}; ${reads}.`
    + (node.factor > 1 ? ` Shown averaged over ${node.factor} × ${node.factor} cells.` : "");
  $("channel").max = count - 1;
  await drawMaps(maps);
  return chooseChannel(channel ?? strongest(maps));
}

let grid = null;
async function drawMaps(maps) {
  const node = nodes[state.node], [h, w] = node.cells, count = node.shape[0], room = $("maps").clientWidth - 4;
  const scale = Math.max(1, Math.round(56 / w)), wide = w * scale + 3, tall = h * scale + 3, columns = Math.max(1, Math.min(count, Math.floor(room / wide)));
  grid = { wide, tall, columns };
  const canvas = $("grid"), rows = Math.ceil(count / columns);
  canvas.width = columns * wide; canvas.height = rows * tall;
  canvas.setAttribute("aria-label", `${count} maps of ${node.name}`);
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  for (let c = 0; c < count; c++) {
    const left = (c % columns) * wide, top = Math.floor(c / columns) * tall, table = tableOf(maps.low[c], maps.high[c]);
    for (let y = 0; y < h * scale; y++) {
      const from = (c * h + Math.floor(y / scale)) * w;
      for (let x = 0; x < w * scale; x++) {
        const q = 4 * maps.cells[from + Math.floor(x / scale)];
        image.data.set(table.subarray(q, q + 4), 4 * ((top + y + 1) * canvas.width + left + x + 1));
      }
    }
  }
  context.putImageData(image, 0, 0);
}

function chooseChannel(channel) {
  const count = nodes[state.node].shape[0], { wide, tall, columns } = grid;
  state.channel = Math.min(Math.max(Math.round(channel), 0), count - 1);
  $("channel").value = state.channel;
  const left = (state.channel % columns) * wide, top = Math.floor(state.channel / columns) * tall, box = $("maps");
  Object.assign($("frame").style, { left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${tall}px` });
  if (top < box.scrollTop || top + tall > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  drawSeen();
  drawLooks();
  describeChannel();
  return drawLayer();
}

async function describeChannel() {
  const node = nodes[state.node], maps = await mapsOf(state.node), [h, w] = node.cells;
  const row = Math.floor(cellAt(node, state.y, 0) / node.factor), column = Math.floor(cellAt(node, state.x, 1) / node.factor);
  const [low, high] = [maps.low[state.channel], maps.high[state.channel]];
  const value = low + (high - low) * maps.cells[(state.channel * h + row) * w + column] / 255;
  $("channel-text").textContent = `of ${node.shape[0]}${isScore(state.node) ? `: ${classes[state.channel]}` : ""}; at the pixel ${short(value)}`;
}

function drawLooks() {
  const look = page.looks.find((one) => one.node === state.node && one.channel === state.channel), box = $("looks");
  box.replaceChildren();
  const name = channelName(state.node, state.channel);
  if (look?.ascent) {
    box.append(element("figure", {}, element("img", { class: "ascent", src: look.ascent, alt: `Image made to excite ${name}` }),
      element("figcaption", {}, "An image made by gradient ascent on the mean of this channel.")));
  }
  if (look?.windows.length) {
    box.append(element("figure", {}, element("div", { class: "windows" }, ...look.windows.map((one, i) =>
      element("img", { src: one.picture, title: short(one.value), alt: `Window ${i + 1}, which excites it to ${short(one.value)}` }))),
    element("figcaption", {}, `The windows of the data that excite it most, ${short(look.windows[0].value)} to ${short(look.windows.at(-1).value)}, cut out by receptive field.`)));
  }
  if (!look) box.append(element("p", { class: "small" }, "Not worked out for this channel (--channels chooses)."));
  const others = page.looks.filter((one) => one !== look);
  if (!others.length) return;
  box.append(element("p", { class: "small" }, "Worked out for:"), ...others.map((one) => {
    const button = element("button", { type: "button" }, `${nodes[one.node].name}, ${channelName(one.node, one.channel)}`);
    button.addEventListener("click", () => { setView("channel"); chooseNode(one.node, one.channel); });
    return button;
  }));
}
