// A kernel that slides: forward the window, its products and their sum; backward where dy is added, into dw and into dx.
// numbers: x (rows of columns), w (square), dy: at least as large as any output; of it, what the output needs is used.
function widget(root, { x, w, dy }) {
  const k = w.length, [H, W] = [x.length, x[0].length];
  const choice = (name, values, chosen) => `<label>${name} <select name="${name}">${values.map((value) =>
    `<option${value === chosen ? " selected" : ""}>${value}</option>`).join("")}</select></label>`;
  root.innerHTML = `<p>${choice("pass", ["forward", "backward"])} ${choice("stride", [1, 2, 3], 2)}
    ${choice("pad", [0, 1, 2], 1)} ${choice("dilation", [1, 2], 1)}</p>
    <p><label>output position <input type="range" min="0" value="0"></label></p>
    <div class="grids"></div><p><output></output></p>`;
  const selects = [...root.querySelectorAll("select")], slider = root.querySelector("input");
  const [grids, said] = [root.querySelector(".grids"), root.querySelector("output")];
  let at = { s: 2, p: 1, d: 1, rows: 0, columns: 0, back: false };

  const zeros = (rows, columns) => Array.from({ length: rows }, () => new Array(columns).fill(0));
  // Where tap (u, v) of the window of output (i, j) lies in x; outside of it is padding.
  const place = (i, j, u, v) => [i * at.s + u * at.d - at.p, j * at.s + v * at.d - at.p];
  const inside = (row, column) => row >= 0 && row < H && column >= 0 && column < W;
  const pixel = (row, column) => inside(row, column) ? x[row][column] : 0;
  const taps = Array.from({ length: k * k }, (_, n) => [Math.floor(n / k), n % k]);
  const view = (i, j, f) => w.map((line, u) => line.map((weight, v) => f(weight, ...place(i, j, u, v))));
  const sum = (rows) => rows.flat().reduce((a, b) => a + b, 0);
  const position = (n) => [Math.floor(n / at.columns), n % at.columns];

  const padded = () => Array.from({ length: H + 2 * at.p }, (_, row) => Array.from({ length: W + 2 * at.p },
    (_, column) => pixel(row - at.p, column - at.p)));

  function draw() {
    const n = Number(slider.value), [i, j] = position(n);
    const seen = new Set(taps.map(([u, v]) => String(place(i, j, u, v))));
    const ring = (row, column) => inside(row - at.p, column - at.p) ? "" : " pad";
    const under = (row, column) => (seen.has(String([row - at.p, column - at.p])) ? "on" : "") + ring(row, column);
    const here = (a, b) => a === i && b === j ? "now" : a * at.columns + b > n ? "later" : "";
    const image = numbers("x", padded(), { digits: 1, marks: under });
    const kernel = numbers("w", w, { digits: 1, marks: () => "on" });
    if (at.back) {
      const [dx, dw] = [zeros(H, W), zeros(k, k)];
      for (let m = 0; m <= n; m++) {
        const [a, b] = position(m);
        for (const [u, v] of taps) {
          const [row, column] = place(a, b, u, v);
          dw[u][v] += dy[a][b] * pixel(row, column);
          if (inside(row, column)) dx[row][column] += dy[a][b] * w[u][v];
        }
      }
      const came = dy.slice(0, at.rows).map((line) => line.slice(0, at.columns)), g = dy[i][j];
      grids.replaceChildren(numbers("dy", came, { digits: 1, marks: here }), kernel, image,
        numbers("dy · x, goes to dw", view(i, j, (_, row, column) => g * pixel(row, column)), { marks: () => "on" }),
        numbers("dw so far", dw, { marks: () => "on" }),
        numbers("dy · w, goes to dx", view(i, j, (weight) => g * weight), { marks: () => "on" }),
        numbers("dx so far", dx, { marks: (row, column) => under(row + at.p, column + at.p) }));
      said.textContent = `dy[${i}, ${j}] = ${brief(g, 1)}, output ${n + 1} of ${at.rows * at.columns}. Each weight collects `
        + "it times the x that it met, each pixel of the window times the w that it met. What falls on the padding is lost.";
    } else {
      const products = view(i, j, (weight, row, column) => weight * pixel(row, column));
      const y = zeros(at.rows, at.columns).map((line, a) => line.map((_, b) => a * at.columns + b > n ? NaN
        : sum(view(a, b, (weight, row, column) => weight * pixel(row, column)))));
      grids.replaceChildren(image, kernel, numbers("w · x", products, { marks: () => "on" }),
        numbers("y", y, { marks: here }));
      said.textContent = `y[${i}, ${j}] = ${products.flat().map((value) => brief(value)).join(" + ").replaceAll("+ −", "− ")} = ${brief(y[i][j])}`;
    }
    slider.setAttribute("aria-valuetext", `row ${i}, column ${j}`);
    grids.children[at.back ? 0 : 3].lastChild.classList.add("target");
  }

  function set() {
    const [pass, ...given] = selects.map((select) => select.value), [s, p, d] = given.map(Number);
    const size = (length) => Math.floor((length + 2 * p - d * (k - 1) - 1) / s) + 1;
    const [i, j] = at.columns ? position(Number(slider.value)) : [0, 0];  // stay where it was, as far as that is there
    at = { s, p, d, rows: size(H), columns: size(W), back: pass === "backward" };
    slider.max = at.rows * at.columns - 1;
    slider.value = Math.min(i, at.rows - 1) * at.columns + Math.min(j, at.columns - 1);
    draw();
  }

  const follow = (event) => {
    const target = event.target.closest(".target");
    if (!target || (event.type === "pointermove" && !event.buttons)) return;
    const box = target.getBoundingClientRect(), cell = (at, size, count) => Math.min(Math.max(Math.floor(at / size * count), 0), count - 1);
    slider.value = cell(event.clientY - box.top, box.height, at.rows) * at.columns + cell(event.clientX - box.left, box.width, at.columns);
    draw();
  };
  grids.addEventListener("pointerdown", follow);
  grids.addEventListener("pointermove", follow);
  slider.addEventListener("input", draw);
  for (const select of selects) select.addEventListener("change", set);
  set();
}
