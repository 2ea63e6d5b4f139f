// Says to a screen reader what ipywidgets leaves unsaid: the name of a slider, its value as it is written beside it,
// and what the picture shows.

function setNames(root, caption) {
  for (const image of root.querySelectorAll("img.widget-image")) set(image, { alt: caption });
  for (const box of root.querySelectorAll(".widget-slider")) {
    const [handle, words, readout] = ["[role=slider]", ".widget-label", ".widget-readout"].map((part) =>
      box.querySelector(part),
    );
    if (!handle || !words || !readout) continue; // it is not drawn yet
    const name = words.textContent;
    set(handle, { "aria-label": name, "aria-valuetext": readout.textContent });
    set(readout, { role: "textbox", "aria-label": `${name}, to be typed` });
  }
}

function render({ model, el }) {
  let frame;
  const name = () => setNames(el.closest(".kd-explorer"), model.get("caption"));
  const observer = new MutationObserver(name);
  // A widget is drawn before it is put into the page.
  const start = () => {
    const root = el.closest(".kd-explorer");
    if (!root) {
      frame = requestAnimationFrame(start);
      return;
    }
    name();
    observer.observe(root, { childList: true, characterData: true, subtree: true });
  };
  start();
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
  };
}

export default { render };
