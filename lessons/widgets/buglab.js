// Choose a bug and a check, guess, run: the gradients beside each other, the error by the step e, and the verdict.
// given: what lessons/buglab.py worked out by the library's own code with the bug in it.
function widget(root, { bugs, quotients, steps, tolerances, checks }) {
  const options = (texts) => texts.map((text, i) => `<option value="${i}">${text}</option>`).join("");
  const dtypes = Object.keys(tolerances);
  root.innerHTML = `<p><label>bug <select name="bug">${options(bugs.map((bug) => bug.name))}</select></label></p><pre></pre>
    <p><label>check with <select name="check">${options(checks)}</select></label>
    <label>in <select name="dtype">${options(dtypes.map((name) => `${name}, tolerance ${power(tolerances[name])}`))}</select></label>
    <label>step e <input type="range" min="0" max="${steps.length - 1}" value="${steps.indexOf(1e-5)}"> <span></span></label></p>
    <p>Will the check complain? <button type="button">It will: run it</button> <button type="button">It will not: run it</button></p>
    <p><output></output></p><div class="found"></div>`;
  const [bugs_, check_, dtype_] = root.querySelectorAll("select"), slider = root.querySelector("input");
  const [code, shownStep, said, found] = ["pre", "label span", "output", ".found"].map((part) => root.querySelector(part));
  const guesses = root.querySelectorAll("button");
  let right = 0, tries = 0, guess = null;  // none yet for what is chosen

  const chosen = () => {
    const bug = bugs[bugs_.value], check = checks[check_.value], dtype = dtypes[dtype_.value], step = Number(slider.value);
    const { analytic, errors } = bug.results[check][dtype];
    return { bug, check, dtype, step, analytic, numeric: quotients[bug.gradient][check][dtype][step], errors, tolerance: tolerances[dtype] };
  };

  function describe() {
    const { bug, step } = chosen(), [before, after] = bug.lines, line = (sign, text) => element("span", { class: sign === "−" ? "old" : sign === "+" ? "new" : "" }, `${sign} ${text}\n`);
    code.replaceChildren(`# ops/${bug.module.replaceAll(".", "/")}.py, ${bug.function}\n`,
      ...(before === after ? [line(" ", before)] : [line("−", before), line("+", after || "(the line is gone)")]));
    shownStep.textContent = power(steps[step]);
    slider.setAttribute("aria-valuetext", power(steps[step]));
  }

  function show() {
    describe();
    if (guess === null) {
      said.textContent = "";
      found.replaceChildren();
      return;
    }
    const { bug, dtype, step, analytic, numeric, errors, tolerance } = chosen(), error = errors[step];
    const complains = error >= tolerance, buggy = bug.lines[0] !== bug.lines[1];
    const verdict = complains ? (buggy ? "It complains: caught." : "It complains, and the code is right: a false alarm.")
      : buggy ? "It says nothing: the bug slips through." : "It says nothing, and the code is right.";
    said.textContent = `Relative error ${power(error)}, tolerance ${power(tolerance)}. ${verdict} ${bug.said}`
      + (tries ? ` Guessed right: ${right} of ${tries}.` : "");
    const largest = Math.max(...[...analytic, ...numeric].flat().map(Math.abs)) || 1;
    const colour = (rows) => (i, j) => ["", "on", "now"][Math.min(2, Math.round(2 * Math.abs(rows[i][j]) / largest))];
    const difference = analytic.map((row, i) => row.map((value, j) => value - numeric[i][j]));
    const grids = [[`backward's ${bug.gradient}`, analytic], ["quotients", numeric], ["difference", difference]].map(([title, rows]) =>
      numbers(title, rows, { digits: Math.max(...rows.flat().map(Math.abs)) < 0.1 ? 4 : 2, marks: colour(rows) }));
    found.replaceChildren(element("div", { class: "grids" }, ...grids), plot(chosen()));
  }

  // The error by e, both axes logarithmic, in each dtype; dashed, what it tolerates.
  function plot({ bug, check, dtype, step }) {
    const wide = 520, tall = 240, left = 64, margin = 28, low = -16, high = 1;
    const x = (i) => left + (wide - left - margin) * i / (steps.length - 1);
    const y = (value) => 12 + (tall - 44) * (high - Math.log10(Math.max(value, 1e-16))) / (high - low);
    const colours = { float64: "#2f7fd1", float32: "#d9622b" };
    const text = (at, up, anchor, what, fill = "currentColor") => `<text x="${at}" y="${up}" text-anchor="${anchor}" fill="${fill}">${what}</text>`;
    const curves = dtypes.map((name) => {
      const errors = bug.results[check][name].errors, points = errors.map((value, i) => `${x(i)},${y(value)}`);
      const dot = errors.map((value, i) => `<circle cx="${x(i)}" cy="${y(value)}" r="${name === dtype && i === step ? 6 : 3}" fill="${colours[name]}" data-error="${value}"/>`);
      return `<g data-dtype="${name}"><polyline points="${points.join(" ")}" fill="none" stroke="${colours[name]}" stroke-width="2"/>${dot.join("")}
        <path d="M${left},${y(tolerances[name])}H${wide - margin}" stroke="${colours[name]}" stroke-dasharray="5 4"/></g>
        ${text(wide - margin, y(tolerances[name]) - 5, "end", `${name} tolerates`, colours[name])}`;
    });
    const ticks = [0, -4, -8, -12, -16].map((n) => text(left - 6, y(10 ** n) + 4, "end", power(10 ** n)));
    const along = steps.flatMap((e, i) => i % 3 ? [] : [text(x(i), tall - 11, "middle", power(e))]);
    const figure = element("figure");
    figure.innerHTML = `<figcaption>relative error, by the step e</figcaption><svg viewBox="0 0 ${wide} ${tall + 8}" role="img"
      aria-label="The relative error in float64 and in float32 at every step e"><path d="M${left},8V${tall - 32}H${wide - margin}" stroke="currentColor" fill="none"/>
      ${ticks.join("")}${along.join("")}${text((left + wide) / 2, tall + 5, "middle", "e")}${curves.join("")}</svg>`;
    return figure;
  }

  guesses.forEach((button, i) => button.addEventListener("click", () => {
    const { errors, step, tolerance } = chosen();
    if (guess === null) {  // the first counts
      tries++;
      right += (errors[step] >= tolerance) === (i === 0);
    }
    guess = i;
    show();
  }));
  for (const select of [bugs_, check_]) select.addEventListener("change", () => { guess = null; show(); });
  for (const input of [dtype_, slider]) input.addEventListener("input", show);
  show();
}
