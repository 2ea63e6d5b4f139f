// A strip of ready pictures: one slider, or two, choose which of them is shown. No kernel is asked.

function stopScale(stops) {
  const last = stops.length - 1;
  return {
    step: 1 / last,
    value: (position) => Math.round(position * last),
    position: (index) => index / last,
    write: (index) => stops[index],
    characters: Math.max(...stops.map((stop) => stop.length)),
  };
}

function render({ model, el }) {
  const [labels, stops, frames] = ["labels", "stops", "frames"].map((name) => model.get(name));
  const urls = frames.map((frame) => URL.createObjectURL(new Blob([frame], { type: "image/png" })));
  const [width, height] = model.get("pixels");
  const pictures = urls.map((src) => html("img", { src, width, height, alt: model.get("caption") }));
  const { state, send, follow } = sharedState(model, ["indices"]);
  let shown = pictures[0];

  const tables = model.get("tables") ?? []; // what an older version saved has none
  const placeOf = () => state.indices.reduce((sum, index, axis) => sum * stops[axis].length + index, 0);
  const data = dataBelow((below) => (below.innerHTML = tables[placeOf()]));
  const show = () => {
    const place = placeOf();
    shown.classList.remove("kd-shown");
    shown = pictures[place];
    shown.classList.add("kd-shown");
    data.refresh();
  };
  const sliders = stops.map((names, axis) =>
    slider({
      label: labels[axis],
      scale: stopScale(names),
      onMove: (index) => {
        state.indices = state.indices.with(axis, index);
        show();
      },
      onRest: send,
    }),
  );
  const redraw = () => {
    sliders.forEach((control, axis) => control.show(state.indices[axis]));
    show();
  };
  const frame = html("div", { class: "kd-frames", style: `width: ${width}px` }, ...pictures);
  const caption = html("p", { class: "kd-caption" }, model.get("caption"));
  const controls = html("div", { class: "kd-row" }, ...sliders.map((control) => control.node));
  const below = tables.some(Boolean) ? [data.node] : [];
  el.append(html("div", { class: "kd-strip" }, controls, frame, caption, ...below));
  redraw();
  const unfollow = follow(redraw);
  return () => {
    unfollow();
    urls.forEach((url) => URL.revokeObjectURL(url));
  };
}

export default { render };
