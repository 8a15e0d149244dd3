// --- Controls ------------------------------------------------------------------------------------------------------
function setView(view) {
  state.view = view;
  $("view").value = view;
}

function drawControls() {
  const option = (value, text) => element("option", { value }, text);
  $("view").append(option("mask", "the mask"), option("channel", "the chosen channel"), option("nothing", "nothing"),
    ...classes.map((name, k) => option(`class ${k}`, `how probable: ${name}`)));
  $("view").addEventListener("change", () => { state.view = $("view").value; drawLayer(); });
  $("opacity").addEventListener("input", () => { $("layer").style.opacity = $("opacity").value; });
  $("layer").style.opacity = $("opacity").value;
  $("channel").addEventListener("change", () => { setView("channel"); chooseChannel(Number($("channel").value) || 0); });
  $("grid").addEventListener("click", (event) => {
    const column = Math.floor(event.offsetX / grid.wide), row = Math.floor(event.offsetY / grid.tall);
    if (row * grid.columns + column >= nodes[state.node].shape[0]) return;
    setView("channel");
    chooseChannel(row * grid.columns + column);
  });
  $("maps").addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.columns, ArrowUp: -grid.columns }[event.key];
    if (!way) return;
    event.preventDefault();
    setView("channel");
    chooseChannel(state.channel + way);
  });
  const stage = $("stage");
  stage.addEventListener("click", (event) => {
    const box = stage.getBoundingClientRect();
    choosePixel((event.clientY - box.top) / box.height * photo.height, (event.clientX - box.left) / box.width * photo.width);
  });
  stage.addEventListener("keydown", (event) => {
    const way = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!way) return;
    event.preventDefault();
    const far = (event.shiftKey ? 10 : 1) * step * kept;
    choosePixel(state.y + far * way[0], state.x + far * way[1]);
  });
  if (branches.length < 2) return;
  branches.forEach((branch, b) => {
    const input = element("input", { type: "range", min: 0, max: 2, step: 0.05, value: 1, id: `factor${b}` }), value = element("output", { for: `factor${b}` }, "1.00");
    const mute = element("button", { type: "button", "aria-label": `mute ${branch.name}` }, "mute");
    const set = (factor) => {
      state.factors[b] = factor;
      input.value = factor;
      value.textContent = factor.toFixed(2);
      mute.textContent = factor ? "mute" : "unmute";
      drawBars();
      requestLayer();
    };
    input.addEventListener("input", () => set(Number(input.value)));
    mute.addEventListener("click", () => set(state.factors[b] ? 0 : 1));
    const label = element("label", { for: `factor${b}` }, `${branch.name}, of ${brief(nodes[branch.source])} (${scaleOf(nodes[branch.node])})`);
    $("sliders").append(element("div", { class: "slider" }, element("span", { class: "dot", style: `background:${PARTS[b % PARTS.length]}` }), label,
      element("span", {}, input, " ", value), mute));
  });
}

let asked = false;
function requestLayer() {  // at most once a frame, however fast a slider moves
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; drawLayer(); });
}

function firstPixel() {  // where the score of the most frequent class but the first is highest; the middle if there is none
  const { label } = labels(), counts = classes.map(() => 0);
  for (const k of label) counts[k]++;
  const k = counts.indexOf(Math.max(...counts.slice(1)), 1);
  let best = [inside.top + inside.height / 2, inside.left + inside.width / 2], highest = -Infinity;
  for (let i = 0; k > 0 && counts[k] && i < cells; i++) {
    const gy = Math.floor(i / gridWidth), gx = i % gridWidth, value = score(k, gy, gx);
    if (label[i] === k && value > highest) { highest = value; best = [inside.top + gy * step, inside.left + gx * step]; }
  }
  return best;
}

async function start() {
  $("layer").width = photo.width;
  $("layer").height = photo.height;
  for (const branch of branches) parts.push(enlarged(branch, new Float32Array(await bytes(branch.scores))));
  drawControls();
  drawNetwork();
  choosePixel(...firstPixel());
  await (page.looks.length ? chooseNode(page.looks[0].node, page.looks[0].channel) : chooseNode(branches.at(-1).source));
  document.body.dataset.ready = "controls";
  let width = $("maps").clientWidth;
  window.addEventListener("resize", async () => {
    if (width === $("maps").clientWidth) return;
    width = $("maps").clientWidth;
    await drawMaps(await mapsOf(state.node));
    chooseChannel(state.channel);
  });
  await drawThumbnails();
}
if (window.DecompressionStream) start();
else $("old").hidden = false;
