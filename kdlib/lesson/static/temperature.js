// The temperature hero: an image, its logits, its label and softmax(z / T), and the entropy over T.

const ROW = 26;
const TOP = 30;
const COLUMN = { name: 112, logit: 124, label: 222, soft: 292, percent: 532 };
const WIDTH = { logit: 70, label: 52, soft: 236, all: 600 };
const CURVE = { left: 46, right: 336, top: 30, bottom: 250, width: 350, height: 300, points: 80 };

function bars(classes, count) {
  const chart = drawing(WIDTH.all, TOP + ROW * count + 6, "Logits, label and soft target of each class");
  const rows = classes.map((name, index) => {
    const y = TOP + ROW * index;
    const middle = y + ROW / 2 + 1;
    const bar = (column, role) =>
      svg("rect", { class: role, x: COLUMN[column], y: y + 4, width: 0, height: ROW - 8 });
    const row = {
      name: text(name, { x: COLUMN.name - 8, y: middle, class: "kd-end" }),
      logit: bar("logit", "kd-muted"),
      label: bar("label", "kd-label"),
      soft: bar("soft", "kd-teacher"),
      hard: bar("soft", "kd-label"),
      percent: text("", { x: WIDTH.all - 2, y: middle, class: "kd-end kd-number" }),
    };
    const track = (column) =>
      svg("rect", { class: "kd-track", x: COLUMN[column], y: y + 4, width: WIDTH[column], height: ROW - 8 });
    chart.append(track("label"), track("soft"), ...Object.values(row));
    return row;
  });
  return { chart, rows };
}

function entropyCurve(scale, minimum, maximum) {
  const chart = drawing(CURVE.width, CURVE.height, "Entropy of the soft target over the temperature");
  const x = (temperature) => CURVE.left + scale.position(temperature) * (CURVE.right - CURVE.left);
  const line = svg("path", { class: "kd-line" });
  const stem = svg("line", { class: "kd-stem", y1: CURVE.bottom });
  const marker = svg("circle", { class: "kd-marker", r: 7 });
  const value = text("", { x: 4, y: 14, class: "kd-number kd-strong" });
  const ticks = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64].filter((tick) => tick >= minimum && tick <= maximum);
  chart.append(
    svg("path", { class: "kd-axis", d: `M${CURVE.left} ${CURVE.top}V${CURVE.bottom}H${CURVE.right}` }),
    text("temperature T", { x: (CURVE.left + CURVE.right) / 2, y: CURVE.height - 8, class: "kd-middle" }),
    ...ticks.map((tick) => text(String(tick), { x: x(tick), y: CURVE.bottom + 18, class: "kd-middle" })),
  );
  return { chart, x, line, stem, marker, value };
}

function render({ model, el }) {
  const [images, logits, labels, classes] = ["images", "logits", "labels", "classes"].map((n) => model.get(n));
  const [minimum, maximum] = [model.get("minimum"), model.get("maximum")];
  const mixed = model.get("alpha") !== null;
  const { state, send, follow } = sharedState(model, ["selected", "temperature", "alpha"]);
  const scale = logScale(minimum, maximum);
  const uniform = Math.log(classes.length);
  const y = (nats) => CURVE.bottom - (nats / uniform) * (CURVE.bottom - CURVE.top);

  const picture = html("img", { class: "kd-picture" });
  const title = html("figcaption");
  const { chart, rows } = bars(classes, classes.length);
  const curve = entropyCurve(scale, minimum, maximum);
  const top = svg("line", { class: "kd-stem", x1: CURVE.left, x2: CURVE.right, y1: y(uniform), y2: y(uniform) });
  const topName = text(`all ${classes.length} alike: ${uniform.toFixed(2)}`, { x: CURVE.right, y: CURVE.top - 8 });
  topName.setAttribute("class", "kd-end");
  curve.chart.append(top, topName, curve.line, curve.stem, curve.marker, curve.value);
  const heading = text("", { x: COLUMN.soft, y: 18, class: "kd-strong" });
  chart.append(
    text("logit z", { x: COLUMN.logit, y: 18 }),
    text("label", { x: COLUMN.label, y: 18 }),
    heading,
  );

  function drawTemperature() {
    const soft = softmax(logits[state.selected], state.temperature);
    const hard = oneHot(classes.length, labels[state.selected]);
    const alpha = mixed ? state.alpha : 1;
    const target = mix(alpha, soft, hard);
    rows.forEach((row, index) => {
      const width = tenths(alpha * soft[index] * WIDTH.soft);
      set(row.soft, { width });
      const rest = hard[index] ? { x: COLUMN.soft + width, width: (1 - alpha) * WIDTH.soft } : { width: 0 };
      set(row.hard, rest);
      write(row.percent, `${(100 * target[index]).toFixed(1)} %`);
    });
    const nats = entropy(soft);
    const [cx, cy] = [curve.x(state.temperature), y(nats)];
    set(curve.marker, { cx, cy });
    set(curve.stem, { x1: cx, x2: cx, y2: cy });
    write(curve.value, `entropy ${nats.toFixed(2)} nats`);
  }

  function drawImage() {
    const row = logits[state.selected];
    const reach = Math.max(...row.map(Math.abs), 1e-9);
    const zero = COLUMN.logit + WIDTH.logit / 2;
    rows.forEach((parts, index) => {
      const width = (Math.abs(row[index]) / reach) * (WIDTH.logit / 2);
      set(parts.logit, { x: row[index] < 0 ? zero - width : zero, width });
      set(parts.label, { width: index === labels[state.selected] ? WIDTH.label : 0 });
    });
    set(picture, { src: images[state.selected], alt: model.get("names")[state.selected] });
    title.textContent = `label: ${classes[labels[state.selected]]}`;
    const points = Array.from({ length: CURVE.points + 1 }, (_, index) => {
      const temperature = scale.value(index / CURVE.points);
      return `${curve.x(temperature)} ${y(entropy(softmax(row, temperature)))}`;
    });
    set(curve.line, { d: `M${points.join("L")}` });
  }

  const temperature = slider({
    label: "temperature T",
    scale,
    onMove: (value) => {
      state.temperature = value;
      drawTemperature();
    },
    onRest: send,
  });
  const alpha = slider({
    label: "alpha α",
    scale: linearScale(0, 1),
    onMove: (value) => {
      state.alpha = value;
      drawTemperature();
    },
    onRest: send,
  });
  const choices = picker({
    images,
    names: model.get("names"),
    onPick: (index) => {
      state.selected = index;
      redraw();
      send();
    },
  });

  function redraw() {
    choices.show(state.selected);
    temperature.show(state.temperature);
    if (mixed) alpha.show(state.alpha);
    heading.textContent = mixed ? "α softmax(z / T) + (1 − α) label" : "softmax(z / T)";
    drawImage();
    drawTemperature();
  }

  const sliders = html("div", { class: "kd-row" }, temperature.node);
  if (mixed) sliders.append(alpha.node);
  const image = html("figure", { class: "kd-image" }, picture, title);
  const panels = html("div", { class: "kd-row" }, image, chart, curve.chart);
  const caption = html("p", { class: "kd-caption" }, model.get("caption"));
  el.append(html("div", { class: "kd-hero" }, sliders, panels, choices.node, caption));
  redraw();
  return follow(redraw);
}

export default { render };
