// The widgets of a page that has no Python: each finds its state in the page and draws itself.
// page_views.py puts this behind `drawn`, the `render` of every kind of widget.

/** What a widget asks for its values. Nobody else changes them, and nobody is told. */
function modelOf(state) {
  const listeners = {};
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const listen of listeners[`change:${name}`] ?? []) listen();
    },
    save_changes() {},
    on: (event, listen) => (listeners[event] ??= new Set()).add(listen),
    off: (event, listen) => listeners[event]?.delete(listen),
  };
}

function picture(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/webp" });
}

/** Draw a widget in place of the words that stand for it. */
function enliven(place) {
  const state = JSON.parse(place.querySelector("script").textContent);
  const { pictures, ground } = state;
  if (pictures) {
    const blobs = pictures.map(picture);
    state.frames = state.frames.map((number) => blobs[number]);
  }
  place.replaceChildren();
  drawn[place.dataset.kdWidget]({ model: modelOf(state), el: place });
  if (ground) {
    const address = URL.createObjectURL(picture(ground));
    place.querySelector(".kd-frames").style.backgroundImage = `url(${address})`;
  }
}

const enlivenAll = () => document.querySelectorAll(".kd-live").forEach(enliven);
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", enlivenAll);
else enlivenAll();
