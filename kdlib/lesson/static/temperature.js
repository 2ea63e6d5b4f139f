// The temperature hero: an image, its logits, its label and softmax(z / T), and the entropy over T.

const ROW = 26;
const TOP = 30;
const COLUMN = { name: 112, logit: 124, label: 222, soft: 292, percent: 532 };
const WIDTH = { logit: 70, label: 52, soft: 236, all: 600 };
const CURVE = { left: 46, right: 336, top: 30, bottom: 250, width: 350, height: 300, points: 81 };

function bars(classes) {
  const chart = drawing(WIDTH.all, TOP + ROW * classes.length + 6, "Logits, label and soft target of each class");
  chart.append(
    text("logit z", { x: COLUMN.logit, y: 18 }),
    text("label", { x: COLUMN.label, y: 18 }),
    text("softmax(z / T)", { x: COLUMN.soft, y: 18, class: "kd-strong" }),
  );
  const rows = classes.map((name, index) => {
    const y = TOP + ROW * index;
    const middle = y + ROW / 2 + 1;
    const bar = (column, role, width = 0) =>
      svg("rect", { class: role, x: COLUMN[column], y: y + 4, width, height: ROW - 8 });
    const row = {
      name: text(name, { x: COLUMN.name - 8, y: middle, class: "kd-end" }),
      logit: bar("logit", "kd-muted"),
      label: bar("label", "kd-label"),
      soft: bar("soft", "kd-teacher"),
      percent: text("", { x: WIDTH.all - 2, y: middle, class: "kd-end kd-number" }),
    };
    const tracks = ["label", "soft"].map((column) => bar(column, "kd-track", WIDTH[column]));
    chart.append(...tracks, ...Object.values(row));
    return row;
  });
  return { chart, rows };
}

function entropyCurve(scale, uniform, classes) {
  const chart = drawing(CURVE.width, CURVE.height, "Entropy of the soft target over the temperature");
  const x = temperatureAxis(chart, CURVE, scale);
  const y = (nats) => tenths(CURVE.bottom - (nats / uniform) * (CURVE.bottom - CURVE.top));
  const line = svg("path", { class: "kd-line" });
  const stem = svg("line", { class: "kd-stem", y1: CURVE.bottom });
  const marker = svg("circle", { class: "kd-marker", r: 7 });
  const value = text("", { x: 4, y: 14, class: "kd-number kd-strong" });
  chart.append(
    svg("line", { class: "kd-stem", x1: CURVE.left, x2: CURVE.right, y1: y(uniform), y2: y(uniform) }),
    text(`all ${classes} alike: ${uniform.toFixed(2)}`, { x: CURVE.right, y: CURVE.top - 8, class: "kd-end" }),
    line, stem, marker, value,
  );
  return { chart, x, y, line, stem, marker, value };
}

function render(view) {
  const { model } = view;
  const [logits, labels, classes] = ["logits", "labels", "classes"].map((name) => model.get(name));
  const scale = logScale(model.get("minimum"), model.get("maximum"));
  const { chart, rows } = bars(classes);
  const curve = entropyCurve(scale, Math.log(classes.length), classes.length);

  function draw({ selected, temperature }) {
    const soft = softmax(logits[selected], temperature);
    rows.forEach((row, index) => {
      set(row.soft, { width: tenths(soft[index] * WIDTH.soft) });
      write(row.percent, percent(soft[index]));
    });
    const nats = entropy(soft);
    const [cx, cy] = [curve.x(temperature), curve.y(nats)];
    set(curve.marker, { cx, cy });
    set(curve.stem, { x1: cx, x2: cx, y2: cy });
    write(curve.value, `entropy ${nats.toFixed(2)} nats`);
  }

  function drawImage({ selected }) {
    const row = logits[selected];
    const reach = Math.max(...row.map(Math.abs), 1e-9);
    const zero = COLUMN.logit + WIDTH.logit / 2;
    rows.forEach((parts, index) => {
      const width = (Math.abs(row[index]) / reach) * (WIDTH.logit / 2);
      set(parts.logit, { x: row[index] < 0 ? zero - width : zero, width });
      set(parts.label, { width: index === labels[selected] ? WIDTH.label : 0 });
    });
    const points = temperaturesOf(scale, CURVE.points).map(
      (temperature) => `${curve.x(temperature)} ${curve.y(entropy(softmax(row, temperature)))}`,
    );
    set(curve.line, { d: `M${points.join("L")}` });
  }

  function data({ selected, temperature }) {
    const soft = softmax(logits[selected], temperature);
    const name = `${classes[labels[selected]]}, T = ${scale.write(temperature)}, entropy ${entropy(soft).toFixed(2)} nats`;
    const rows = classes.map((one, index) => [
      one, logits[selected][index].toFixed(2), index === labels[selected] ? "yes" : "", percent(soft[index]),
    ]);
    return [table(`Label: ${name}`, ["class", "logit z", "label", "softmax(z / T)"], rows)];
  }

  const controls = { temperature: { label: "temperature T", scale } };
  return hero(view, { controls, charts: [chart, curve.chart], drawImage, draw, data });
}

export default { render };
