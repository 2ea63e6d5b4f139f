// Building blocks of the page: elements, sliders with a read-out, a picker of images.

const SVG = "http://www.w3.org/2000/svg";

/** Set attributes of an element; one that has its value already costs no layout. */
export function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes))
    if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  return node;
}

/** A length to a tenth of a pixel. */
export function tenths(length) {
  return Math.round(10 * length) / 10;
}

/** An HTML element with attributes and children. */
export function html(tag, attributes = {}, ...children) {
  const node = set(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

/** An SVG element with attributes and children. */
export function svg(tag, attributes = {}, ...children) {
  const node = set(document.createElementNS(SVG, tag), attributes);
  node.append(...children);
  return node;
}

/** Write a text where another may stand; the same text again costs no layout. */
export function write(node, content) {
  if (node.textContent !== content) node.textContent = content;
}

/** A share of 1 in per cent. */
export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** A text of an SVG drawing. */
export function text(content, attributes) {
  return svg("text", attributes, content);
}

/** An SVG drawing of a given size that shrinks with the page and has a name for screen readers. */
export function drawing(width, height, name) {
  return svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    style: `width: ${width}px; aspect-ratio: ${width} / ${height}`,
    role: "img",
    "aria-label": name,
  });
}

/**
 * A slider with its label and a number beside it. `scale` turns a position in [0, 1] into a value and back, and
 * writes the value in at most so many `characters`, for which room is kept, so that the slider never changes its size;
 * `onMove(value)` runs at every move, `onRest()` when the slider is let go. Returns `{node, show}`;
 * `show(value)` moves it from outside.
 */
export function slider({ label, scale, onMove, onRest }) {
  const range = html("input", {
    type: "range",
    min: 0,
    max: 1,
    step: scale.step,
    "aria-label": label,
    "data-lm-suppress-shortcuts": "true", // else JupyterLab takes the arrow keys
  });
  const readout = html("output", { class: "kd-readout", style: `width: ${scale.characters + 1}ch` });
  const announce = (value) => {
    write(readout, scale.write(value));
    range.setAttribute("aria-valuetext", scale.write(value));
  };
  range.addEventListener("input", () => {
    const value = scale.value(Number(range.value));
    announce(value);
    onMove(value);
  });
  range.addEventListener("change", onRest);
  const show = (value) => {
    range.value = scale.position(value);
    announce(value);
  };
  return { node: html("label", { class: "kd-slider" }, html("span", {}, label), range, readout), show };
}

/**
 * A line that opens the data of a figure. `fill(place)` writes them into the page; it runs when they are opened, and
 * at each `refresh()` while they are open: closed, they cost a slider nothing. Returns `{node, refresh}`.
 */
export function dataBelow(fill) {
  const place = html("div", {});
  const summary = html("summary", {}, "The data of this figure");
  const node = html("details", { class: "kd-data", "data-lm-suppress-shortcuts": "true" }, summary, place);
  const refresh = () => node.open && fill(place);
  node.addEventListener("toggle", refresh);
  return { node, refresh };
}

/** A table whose first column names its rows. */
export function table(title, heads, rows) {
  const row = ([name, ...cells]) =>
    html("tr", {}, html("th", { scope: "row" }, name), ...cells.map((cell) => html("td", {}, cell)));
  const head = html("tr", {}, ...heads.map((name) => html("th", { scope: "col" }, name)));
  return html("table", {}, html("caption", {}, title), html("thead", {}, head), html("tbody", {}, ...rows.map(row)));
}

/** Equal moves of the slider add equal amounts. */
export function linearScale(minimum, maximum) {
  return {
    step: 0.01,
    value: (position) => minimum + position * (maximum - minimum),
    position: (value) => (value - minimum) / (maximum - minimum),
    write: (value) => value.toFixed(2),
    characters: Math.max(...[minimum, maximum].map((value) => value.toFixed(2).length)),
  };
}

/** Equal moves of the slider multiply by equal factors. */
export function logScale(minimum, maximum) {
  return {
    step: 0.005,
    value: (position) => minimum * (maximum / minimum) ** position,
    position: (value) => Math.log(value / minimum) / Math.log(maximum / minimum),
    write: (value) => value.toPrecision(3),
    characters: 5,
  };
}

/** A row of small images of which one is chosen, by mouse or by arrow keys. */
export function picker({ images, names, onPick }) {
  // Of the radio buttons of one name, one is chosen in the whole page, which may hold many pickers, each from a
  // script of its own.
  const group = `kd-picker-${Math.random()}`;
  const radios = images.map((_, index) => {
    const radio = html("input", { type: "radio", name: group, "data-lm-suppress-shortcuts": "true" });
    radio.addEventListener("change", () => onPick(index));
    return radio;
  });
  const choices = images.map((source, index) =>
    html("label", { title: names[index] }, radios[index], html("img", { src: source, alt: names[index] })),
  );
  const node = html("fieldset", { class: "kd-picker" }, html("legend", {}, "image"), ...choices);
  return { node, show: (index) => (radios[index].checked = true) };
}

/**
 * State of one view of a widget, shared with Python when a control comes to rest. Returns the state and
 * functions that change it from a control, send it to Python, and follow what Python sets.
 */
export function sharedState(model, names) {
  const state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const send = () => {
    for (const name of names) model.set(name, state[name]);
    model.save_changes();
  };
  const follow = (redraw) => {
    const listen = () => {
      for (const name of names) state[name] = model.get(name);
      redraw();
    };
    for (const name of names) model.on(`change:${name}`, listen);
    return () => names.forEach((name) => model.off(`change:${name}`, listen));
  };
  return { state, send, follow };
}
