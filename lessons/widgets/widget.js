// What the widgets share.
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// A number as it is read: with a true minus, and none before a zero.
const brief = (value, digits = 2) => value.toFixed(digits).replace("-", "−").replace(/^−(0\.?0*)$/, "$1");

// A grid of numbers (rows of columns) under a title. marks(i, j): the classes of a cell.
function numbers(title, rows, { digits = 2, marks = () => "" } = {}) {
  const cells = rows.flatMap((row, i) => row.map((value, j) => element("span",
    { class: marks(i, j), "data-value": value }, Number.isFinite(value) ? brief(value, digits) : "")));
  const columns = `grid-template-columns: repeat(${rows[0].length}, ${1.45 + 0.5 * digits}rem)`;
  const grid = element("div", { class: "grid", style: columns }, ...cells);
  return element("figure", {}, element("figcaption", {}, title), grid);
}

// A number, small ones as a power of ten: 0.13, 3e−8.
const power = (value) => value >= 0.001 || value === 0 ? String(Number(value.toPrecision(2)))
  : value.toExponential(Math.abs(Math.log10(value) % 1) > 1e-9 ? 1 : 0).replace("-", "−");
