// What the two networks say: tables whose numbers are drawn as bars beside them.

const ROLES = ["teacher", "student"];

const heading = (...content) => html("th", { scope: "col" }, ...content);
const swatchOf = (role) => html("span", { class: `lab-swatch lab-${role}`, "aria-hidden": "true" });

/** A table of classes with a number and a bar for each network. `position(value)` in [0, 1] places the bar's end. */
function barTable({ caption, classes, write: writeNumber }) {
  const rows = classes.map((name) => {
    const bars = ROLES.map((role) => html("span", { class: `lab-bar lab-${role}` }));
    const zero = html("span", { class: "lab-zero" });
    const mark = html("span", { class: "lab-mark", "aria-hidden": "true" }, "◆");
    const numbers = ROLES.map(() => html("td", { class: "lab-number" }));
    const label = html("span", { class: "lab-hidden" });
    const track = html("div", { class: "lab-track", "aria-hidden": "true" }, ...bars, zero);
    const node = html("tr", {}, html("th", { scope: "row" }, mark, name, label), ...numbers, html("td", {}, track));
    return { node, bars, zero, numbers, label };
  });
  const head = html(
    "tr", {}, heading("class"), ...ROLES.map((role) => heading(swatchOf(role), role)), heading("as bars"),
  );
  const node = html(
    "table", { class: "lab-bars" },
    html("caption", {}, caption), html("thead", {}, head), html("tbody", {}, ...rows.map((row) => row.node)),
  );

  function show(values, label, [low, high]) {
    const percent = (value) => (100 * (value - low)) / (high - low);
    rows.forEach((row, index) => {
      row.node.classList.toggle("lab-label", index === label);
      write(row.label, index === label ? " (the label)" : "");
      row.zero.style.left = `${percent(0)}%`;
      ROLES.forEach((role, number) => {
        const value = values[role][index];
        const [from, to] = [0, value].map(percent).sort((a, b) => a - b);
        Object.assign(row.bars[number].style, { left: `${from}%`, width: `${to - from}%` });
        write(row.numbers[number], writeNumber(value));
      });
    });
  }
  return { node, show };
}

/** The two terms of the loss with their weights, and what they add up to. */
function lossTable() {
  const line = (name, role, ...explained) => {
    const numbers = ["weight", "value", "weighted"].map(() => html("td", { class: "lab-number" }));
    const swatch = role ? [swatchOf(role)] : [];
    const title = html("th", { scope: "row" }, ...swatch, name, html("span", { class: "lab-note" }, ...explained));
    return { node: html("tr", {}, title, ...numbers), numbers };
  };
  const lines = {
    task: line("CE", "label-colour", "cross-entropy of the student with the label, at T = 1"),
    distill: line("T² · KL(p ‖ q)", "teacher", "how far the student q is from the teacher p, both at T"),
    total: line("loss", "", "α · T² · KL + (1 − α) · CE"),
  };
  const parts = ["label-colour", "teacher"].map((role) => html("span", { class: `lab-${role}` }));
  const bar = html("div", { class: "lab-sum", "aria-hidden": "true" }, ...parts);
  const head = html("tr", {}, ...["term, in nats", "weight", "value", "weighted"].map((text) => heading(text)));
  const table = html(
    "table", { class: "lab-losses" },
    html("caption", {}, "The two losses, and alpha's total"), html("thead", {}, head),
    html("tbody", {}, ...Object.values(lines).map(({ node }) => node)),
  );

  function show({ task, distill, total }, alpha) {
    const written = {
      task: [1 - alpha, task, (1 - alpha) * task],
      distill: [alpha, distill, alpha * distill],
      total: [NaN, NaN, total],
    };
    for (const [name, values] of Object.entries(written))
      values.forEach((value, index) => {
        write(lines[name].numbers[index], Number.isNaN(value) ? "" : value.toFixed(index === 0 ? 2 : 3));
      });
    const longest = Math.max(task, distill, 1e-9); // no move of alpha leaves this scale
    const lengths = [written.task[2], written.distill[2]];
    parts.forEach((part, index) => (part.style.width = `${(100 * lengths[index]) / longest}%`));
  }
  return { node: html("div", {}, table, bar), show };
}

/** Everything with six decimals, to copy. */
function digitsTable(classes) {
  const names = ["class", "teacher z", "student z", "teacher p", "student q", "T² · p · ln(p / q)"];
  const row = (name) => {
    const cells = names.slice(1).map(() => html("td", { class: "lab-number" }));
    return { node: html("tr", {}, html("th", { scope: "row" }, name), ...cells), cells };
  };
  const rows = classes.map(row);
  const losses = html("p", { class: "lab-digits-of-losses" });
  const table = html(
    "table", { class: "lab-digits", "aria-describedby": "digits-about" },
    html("thead", {}, html("tr", {}, ...names.map((name) => heading(name)))),
    html("tbody", {}, ...rows.map(({ node }) => node)),
  );
  const scrolled = html("div", { class: "kd-scroll" }, table); // in a narrow window

  function show({ logits, softened, terms, temperature }) {
    const logs = ROLES.map((role) => logSoftmax(logits[role], temperature));
    rows.forEach(({ cells }, index) => {
      const shares = ROLES.map((role) => softened[role][index]);
      const share = temperature ** 2 * shares[0] * (logs[0][index] - logs[1][index]);
      const values = [logits.teacher[index], logits.student[index], ...shares, share];
      values.forEach((value, column) => write(cells[column], value.toFixed(6)));
    });
    const written = Object.values(terms).map((value) => value.toFixed(6));
    write(losses, `CE ${written[0]} · T² KL ${written[1]} · loss ${written[2]}`);
  }
  const about = "z: logits; p and q: softmax(z / T). The last column adds up to T² · KL(p ‖ q).";
  const explained = html("p", { class: "lab-note", id: "digits-about" }, about);
  return { node: html("div", {}, explained, scrolled, losses), show };
}
