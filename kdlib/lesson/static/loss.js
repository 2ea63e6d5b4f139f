// The loss hero: softened teacher and student of one image side by side, and the two terms of the loss over T.

const ROW = 25;
const TOP = 50;
const COLUMN = { name: 104, soft: 112, teacher: 454, student: 518 };
const WIDTH = { soft: 262, bars: 520, terms: 430 };
const PLOT = { left: 56, right: 420, top: 28, bottom: 160, height: 304, points: 81, bar: 18 };
const LINE = { formula: 24, factors: 350, value: 428, first: 228, between: 26 };
const ROLES = ["teacher", "student"];

const diamond = (x, y) => svg("path", { class: "kd-label", d: `M${x} ${y - 7}l7 7l-7 7l-7 -7z` });
const swatch = (x, y, role) => svg("rect", { class: role, x, y: y - 7, width: 14, height: 14 });

function probabilityBars(classes) {
  const name = "Softened probabilities of the teacher and of the student for each class, and the label";
  const chart = drawing(WIDTH.bars, TOP + ROW * classes.length + 4, name);
  const [line, end] = [36, COLUMN.soft + WIDTH.soft];
  chart.append(
    text("softened: softmax(z / T)", { x: COLUMN.soft, y: 13, class: "kd-strong" }),
    swatch(COLUMN.soft, line, "kd-teacher"),
    text("teacher p", { x: COLUMN.soft + 20, y: line }),
    swatch(COLUMN.soft + 104, line, "kd-student"),
    text("student q", { x: COLUMN.soft + 124, y: line }),
    diamond(end - 48, line),
    text("label", { x: end - 36, y: line }),
    ...ROLES.map((role, index) => text("pq"[index], { x: COLUMN[role], y: line, class: "kd-end kd-strong" })),
  );
  const rows = classes.map((className, index) => {
    const y = TOP + ROW * index;
    const middle = y + ROW / 2;
    const bar = (role, offset) =>
      svg("rect", { class: `kd-${role}`, x: COLUMN.soft, y: y + offset, width: 0, height: 10 });
    const number = (role) => text("", { x: COLUMN[role], y: middle, class: "kd-end kd-number" });
    const row = {
      name: text(className, { x: COLUMN.name, y: middle, class: "kd-end" }),
      teacher: { bar: bar("teacher", 2), number: number("teacher") },
      student: { bar: bar("student", 12), number: number("student") },
      label: diamond(end, middle),
    };
    chart.append(
      svg("rect", { class: "kd-track", x: COLUMN.soft, y: y + 2, width: WIDTH.soft, height: 20 }),
      row.name, ...ROLES.flatMap((role) => Object.values(row[role])), row.label,
    );
    return row;
  });
  return { chart, rows };
}

/** The terms over T as areas that stand on each other, a bar at the chosen T, and below the terms in numbers. */
function termsChart(scale) {
  const chart = drawing(WIDTH.terms, PLOT.height, "The two terms of the loss over the temperature");
  const area = (role) => svg("path", { class: `kd-area ${role}` });
  const bar = (role) => svg("rect", { class: role, width: PLOT.bar });
  const parts = {
    areas: { task: area("kd-label"), distill: area("kd-teacher") },
    bars: { task: bar("kd-label"), distill: bar("kd-teacher") },
    top: svg("line", { class: "kd-sum" }),
    ticks: [0, 1, 2, 3, 4].map(() => text("", { x: PLOT.left - 18, class: "kd-end kd-number" })),
  };
  chart.append(
    text("loss (nats)", { x: 0, y: 13, class: "kd-strong" }),
    ...Object.values(parts.areas), ...Object.values(parts.bars), parts.top, ...parts.ticks,
  );
  const x = temperatureAxis(chart, PLOT, scale);
  const line = (number, formula, strength = "") => {
    const y = LINE.first + LINE.between * number + (number === 2 ? 6 : 0);
    const written = {
      factors: text("", { x: LINE.factors, y, class: "kd-end kd-number" }),
      value: text("", { x: LINE.value, y, class: `kd-end kd-number ${strength}` }),
    };
    const role = ["kd-label", "kd-teacher"][number];
    if (role) chart.append(swatch(0, y, role));
    chart.append(text(formula, { x: LINE.formula, y, class: strength }), ...Object.values(written));
    return written;
  };
  const lines = {
    task: line(0, "(1 − α) · CE(label), T = 1"),
    distill: line(1, "α · T² · KL(p ‖ q)"),
    total: line(2, "loss", "kd-strong"),
  };
  const rule = LINE.first + 1.6 * LINE.between;
  chart.append(svg("path", { class: "kd-axis", d: `M0 ${rule}H${WIDTH.terms}` }));
  return { chart, x, parts, lines };
}

function render(view) {
  const { model } = view;
  const names = ["student_logits", "teacher_logits", "labels", "classes"];
  const [students, teachers, labels, classes] = names.map((name) => model.get(name));
  const scale = logScale(model.get("minimum"), model.get("maximum"));
  const temperatures = temperaturesOf(scale, PLOT.points);
  const { chart, rows } = probabilityBars(classes);
  const terms = termsChart(scale);
  let [curve, crossEntropy, highest] = [[], 0, 1]; // of the chosen image: T^2 KL over T, CE, the largest of both

  const y = (nats) => tenths(PLOT.bottom - (nats / highest) * (PLOT.bottom - PLOT.top));

  function drawImage({ selected }) {
    const [student, teacher, label] = [students[selected], teachers[selected], labels[selected]];
    curve = temperatures.map((temperature) => lossTerms(student, teacher, label, temperature, 1).distill);
    crossEntropy = lossTerms(student, teacher, label, 1, 0).task;
    // The loss lies between its unweighted terms: no move of a slider leaves this scale.
    highest = Math.max(...curve, crossEntropy, 1e-9);
    terms.parts.ticks.forEach((tick, index) => {
      const value = index * roundStep(highest / 2);
      write(tick, value <= highest ? String(Number(value.toPrecision(2))) : "");
      set(tick, { y: y(value) });
    });
    rows.forEach((row, index) => {
      row.name.classList.toggle("kd-strong", index === label);
      set(row.label, { visibility: index === label ? "visible" : "hidden" });
    });
  }

  function drawBars({ selected, temperature }) {
    for (const [role, logits] of [["teacher", teachers], ["student", students]])
      softmax(logits[selected], temperature).forEach((share, index) => {
        set(rows[index][role].bar, { width: tenths(share * WIDTH.soft) });
        write(rows[index][role].number, percent(share));
      });
  }

  function drawAreas(alpha) {
    const floor = y((1 - alpha) * crossEntropy);
    const tops = curve.map(
      (distill, index) => `${terms.x(temperatures[index])} ${y(alpha * distill + (1 - alpha) * crossEntropy)}`,
    );
    set(terms.parts.areas.task, { d: `M${PLOT.left} ${floor}H${PLOT.right}V${PLOT.bottom}H${PLOT.left}Z` });
    set(terms.parts.areas.distill, { d: `M${tops.join("L")}V${floor}H${PLOT.left}Z` });
  }

  function draw(state) {
    const { selected, temperature, alpha } = state;
    drawBars(state);
    drawAreas(alpha);
    const now = lossTerms(students[selected], teachers[selected], labels[selected], temperature, alpha);
    const [task, distill] = [(1 - alpha) * now.task, alpha * now.distill];
    const [floor, top, left] = [y(task), y(now.total), terms.x(temperature) - PLOT.bar / 2];
    set(terms.parts.bars.task, { x: left, y: floor, height: tenths(PLOT.bottom - floor) });
    set(terms.parts.bars.distill, { x: left, y: top, height: tenths(Math.max(0, floor - top)) });
    set(terms.parts.top, { x1: left - 5, x2: left + PLOT.bar + 5, y1: top, y2: top });
    const [beside, divergence] = [(1 - alpha).toFixed(2), now.distill / temperature ** 2];
    write(terms.lines.task.factors, `${beside} × ${now.task.toFixed(2)}`);
    write(terms.lines.task.value, `= ${task.toFixed(2)}`);
    const written = `${alpha.toFixed(2)} × ${scale.write(temperature)}² × ${divergence.toPrecision(3)}`;
    write(terms.lines.distill.factors, written);
    write(terms.lines.distill.value, `= ${distill.toFixed(2)}`);
    write(terms.lines.total.value, `= ${now.total.toFixed(2)}`);
  }

  function data({ selected, temperature, alpha }) {
    const [teacher, student] = [teachers, students].map((logits) => softmax(logits[selected], temperature));
    const label = labels[selected];
    const probabilities = classes.map((one, index) => [
      one, percent(teacher[index]), percent(student[index]), index === label ? "yes" : "",
    ]);
    const now = lossTerms(students[selected], teachers[selected], label, temperature, alpha);
    const parts = [
      ["(1 − α) · CE(label), T = 1", ((1 - alpha) * now.task).toFixed(2)],
      ["α · T² · KL(p ‖ q)", (alpha * now.distill).toFixed(2)],
      ["loss", now.total.toFixed(2)],
    ];
    const chosen = `T = ${scale.write(temperature)}, α = ${alpha.toFixed(2)}`;
    return [
      table(`Label: ${classes[label]}, ${chosen}`, ["class", "teacher p", "student q", "label"], probabilities),
      table(`The loss at ${chosen}`, ["term", "nats"], parts),
    ];
  }

  const controls = {
    temperature: { label: "temperature T", scale },
    alpha: { label: "alpha α", scale: linearScale(0, 1) },
  };
  return hero(view, { controls, charts: [chart, terms.chart], drawImage, draw, data });
}

export default { render };
