// What all heroes share: sliders above, an image beside its charts, the picker of images and the caption below.

/**
 * Lay out a hero and keep it in step with Python. Of each slider, `controls` holds label and scale by the name of
 * the trait that it moves. `draw(state)` runs at every move, and `drawImage(state)` before it where another image
 * is chosen. `charts` stand beside the image, `below` under it. `data(state)` are the tables of what is drawn.
 */
function hero({ model, el }, { controls, charts, below = [], drawImage = () => {}, draw, data }) {
  const [images, names, labels, classes] = ["images", "names", "labels", "classes"].map((n) => model.get(n));
  const { state, send, follow } = sharedState(model, ["selected", ...Object.keys(controls)]);
  const picture = html("img", { class: "kd-picture" });
  const title = html("figcaption");
  const numbers = dataBelow((place) => place.replaceChildren(...data(state)));
  const sliders = Object.entries(controls).map(([name, { label, scale }]) => {
    const onMove = (value) => {
      state[name] = value;
      draw(state);
      numbers.refresh();
    };
    return { name, ...slider({ label, scale, onMove, onRest: send }) };
  });
  const choices = picker({
    images,
    names,
    onPick: (index) => {
      state.selected = index;
      redraw();
      send();
    },
  });

  function redraw() {
    choices.show(state.selected);
    for (const { name, show } of sliders) show(state[name]);
    set(picture, { src: images[state.selected], alt: names[state.selected] });
    write(title, `label: ${classes[labels[state.selected]]}`);
    drawImage(state);
    draw(state);
    numbers.refresh();
  }

  const row = (...parts) => html("div", { class: "kd-row" }, ...parts);
  const image = html("figure", { class: "kd-image" }, picture, title);
  const caption = html("p", { class: "kd-caption" }, model.get("caption"));
  const top = row(...sliders.map((control) => control.node));
  el.append(html("div", { class: "kd-hero" }, top, row(image, ...charts), ...below, choices.node, caption, numbers.node));
  redraw();
  return follow(redraw);
}

/**
 * Draw the axes of a chart over the temperature, which `scale` spreads; returns where a temperature lies on it.
 * The name of the axis stands 42 units below it.
 */
function temperatureAxis(chart, { left, right, top, bottom }, scale) {
  const x = (temperature) => tenths(left + scale.position(temperature) * (right - left));
  const [minimum, maximum] = [scale.value(0), scale.value(1)];
  const ticks = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64].filter((tick) => tick >= minimum && tick <= maximum);
  chart.append(
    svg("path", { class: "kd-axis", d: `M${left} ${top}V${bottom}H${right}` }),
    text("temperature T", { x: (left + right) / 2, y: bottom + 42, class: "kd-middle" }),
    ...ticks.map((tick) => text(String(tick), { x: x(tick), y: bottom + 18, class: "kd-middle" })),
  );
  return x;
}

/** So many temperatures from one end of the scale to the other. */
function temperaturesOf(scale, count) {
  return Array.from({ length: count }, (_, index) => scale.value(index / (count - 1)));
}
