// The gradient hero: how label and teacher push the student's logits, and the mix of both as alpha moves.

const ROW = 26;
const TOP = 50;
const COLUMN = { name: 112, task: 122, distill: 264, total: 406 };
const WIDTH = { column: 132, all: 545 };
const PLANE = { size: 300, margin: 50 };
const TERMS = {
  task: { title: "label", role: "kd-label" },
  distill: { title: "teacher", role: "kd-teacher" },
  total: { title: "mix", role: "kd-mix" },
};

function pushes(classes) {
  const chart = drawing(WIDTH.all, TOP + ROW * classes.length + 6, "Push on each logit of the student");
  const rows = classes.map((name, index) => {
    const y = TOP + ROW * index;
    chart.append(text(name, { x: COLUMN.name - 8, y: y + ROW / 2 + 1, class: "kd-end" }));
    return Object.fromEntries(
      Object.entries(TERMS).map(([term, { role }]) => {
        const bar = svg("rect", { class: role, y: y + 4, height: ROW - 8, width: 0 });
        chart.append(bar);
        return [term, bar];
      }),
    );
  });
  const columns = (COLUMN.task + COLUMN.total + WIDTH.column) / 2;
  chart.append(text("push on each logit of the student, from", { x: columns, y: 12, class: "kd-middle" }));
  for (const [term, { title }] of Object.entries(TERMS)) {
    const middle = COLUMN[term] + WIDTH.column / 2;
    chart.append(
      text(title, { x: middle, y: 36, class: "kd-middle kd-strong" }),
      svg("path", { class: "kd-axis", d: `M${middle} ${TOP}v${ROW * classes.length}` }),
    );
  }
  return { chart, rows };
}

function arrows() {
  const chart = drawing(PLANE.size, PLANE.size, "The two gradients and their mix as arrows in their plane");
  const between = svg("line", { class: "kd-stem" });
  chart.append(between);
  const parts = Object.fromEntries(
    Object.entries(TERMS).map(([term, { title, role }]) => {
      const arrow = { line: svg("line", { class: `kd-arrow ${role}` }), head: svg("path", { class: role }) };
      chart.append(arrow.line, arrow.head);
      return [term, { ...arrow, name: text(title, { class: "kd-middle kd-name" }) }];
    }),
  );
  chart.append(...Object.values(parts).map((part) => part.name)); // above every arrow
  return { chart, between, parts };
}

/** Draw one arrow from the origin; its head is a triangle turned into its direction. */
function point(part, origin, tip) {
  const [dx, dy] = [tip.x - origin.x, tip.y - origin.y];
  const length = Math.hypot(dx, dy) || 1;
  set(part.line, { x1: origin.x, y1: origin.y, x2: tip.x, y2: tip.y });
  const turn = (Math.atan2(dy, dx) * 180) / Math.PI;
  set(part.head, { d: "M2 0L-12 6V-6Z", transform: `translate(${tip.x} ${tip.y}) rotate(${turn})` });
  set(part.name, { x: tip.x + (30 * dx) / length, y: tip.y + (16 * dy) / length });
}

function render(view) {
  const { model } = view;
  const names = ["student_logits", "teacher_logits", "labels", "classes"];
  const [students, teachers, labels, classes] = names.map((name) => model.get(name));
  const { chart, rows } = pushes(classes);
  const plane = arrows();
  const numbers = html("p", { class: "kd-numbers", "aria-live": "off" });

  function draw({ selected, temperature, alpha }) {
    const terms = gradients(students[selected], teachers[selected], labels[selected], temperature, alpha);
    const reach = Math.max(...terms.task.map(Math.abs), ...terms.distill.map(Math.abs), 1e-9);
    for (const term of Object.keys(TERMS)) {
      const zero = COLUMN[term] + WIDTH.column / 2;
      rows.forEach((row, index) => {
        const push = -terms[term][index] / reach; // a descent step moves against the gradient
        const width = tenths(Math.abs(push) * (WIDTH.column / 2));
        set(row[term], { x: push < 0 ? zero - width : zero, width });
      });
    }
    drawPlane(terms, alpha);
    const degrees = (angle(terms.task, terms.distill) * 180) / Math.PI;
    numbers.textContent =
      `‖label‖ = ${norm(terms.task).toFixed(3)}   ‖teacher‖ = ${norm(terms.distill).toFixed(3)}   ` +
      `‖mix‖ = ${norm(terms.total).toFixed(3)}   angle = ${degrees.toFixed(0)}°`;
  }

  function data({ selected, temperature, alpha }) {
    const terms = gradients(students[selected], teachers[selected], labels[selected], temperature, alpha);
    const pushes = classes.map((one, index) => [one, ...Object.keys(TERMS).map((term) => (-terms[term][index]).toFixed(3))]);
    const heads = ["class", ...Object.values(TERMS).map(({ title }) => title)];
    const chosen = `label: ${classes[labels[selected]]}, T = ${temperature.toPrecision(3)}, α = ${alpha.toFixed(2)}`;
    return [table(`Push on each logit of the student; ${chosen}`, heads, pushes)];
  }

  function drawPlane(terms, alpha) {
    const [task, distill] = [norm(terms.task), norm(terms.distill)];
    const between = angle(terms.task, terms.distill);
    const unit = (PLANE.size - 2 * PLANE.margin) / Math.max(task, distill, 1e-9);
    const origin = { x: PLANE.margin, y: PLANE.size - PLANE.margin };
    const at = (x, y) => ({ x: origin.x + unit * x, y: origin.y - unit * y });
    // The label's gradient lies along the axis; an obtuse angle needs room to the left of the origin.
    if (between > Math.PI / 2) origin.x = PLANE.size / 2;
    const vectors = {
      task: [task, 0],
      distill: [distill * Math.cos(between), distill * Math.sin(between)],
    };
    vectors.total = mix(alpha, vectors.distill, vectors.task);
    for (const [term, vector] of Object.entries(vectors)) point(plane.parts[term], origin, at(...vector));
    const [start, end] = [at(...vectors.task), at(...vectors.distill)];
    set(plane.between, { x1: start.x, y1: start.y, x2: end.x, y2: end.y });
  }

  const controls = {
    alpha: { label: "alpha α", scale: linearScale(0, 1) },
    temperature: { label: "temperature T", scale: logScale(model.get("minimum"), model.get("maximum")) },
  };
  return hero(view, { controls, charts: [chart, plane.chart], below: [numbers], draw, data });
}

export default { render };
