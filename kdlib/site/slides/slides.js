// The slides: what the keys do, and how large a figure is that moves, where reveal.js leaves it open.

const CONTROL = "input, select, textarea, button, summary, .kd-tables";
const LARGEST = 1.6;
const STEP = 0.05;

/** Enlarge a figure that moves as far as its slide has room. */
function fit(part) {
  const content = part.firstElementChild;
  if (part.dataset.fitted || !part.clientHeight) return;
  let zoom = LARGEST;
  const fits = () => {
    content.style.zoom = zoom;
    return part.scrollHeight <= part.clientHeight && part.scrollWidth <= part.clientWidth;
  };
  while (!fits() && zoom > 2 * STEP) zoom -= STEP;
  part.dataset.fitted = "true";
}

const fitAll = (root) => root.querySelectorAll(".part.live").forEach(fit);

// A slider that has the keyboard keeps the arrow keys, and so do tables, which they scroll; the line that opens them
// keeps Space. They give the keyboard back on Escape, and PageDown and PageUp, which a presenter's remote control sends,
// turn the page from everywhere.
document.addEventListener(
  "keydown",
  (event) => {
    const turn = { PageDown: "next", PageUp: "prev" }[event.key];
    const control = event.target.closest?.(CONTROL);
    if (turn) Reveal[turn]();
    else if (event.key === "Escape" && control) control.blur();
    else return;
    event.preventDefault();
    event.stopPropagation();
  },
  true,
);

// What has the keyboard on one slide must not keep it on the next; not every browser takes it from what is hidden.
Reveal.on("slidechanged", ({ currentSlide }) => {
  document.activeElement?.blur?.();
  fitAll(currentSlide);
});
Reveal.on("ready", ({ currentSlide }) => fitAll(currentSlide));
Reveal.on("pdf-ready", () => fitAll(document));

// What the speaker view sends has no target.
const isForSlides = ({ target }) => !target?.closest?.(CONTROL);

Reveal.initialize({
  width: 1280,
  height: 720,
  margin: 0,
  center: false,
  hash: true,
  keyboardCondition: isForSlides,
  slideNumber: "c/t",
  transition: "none",
  pdfSeparateFragments: false,
  scrollActivationWidth: 0, // on a phone, too, these are slides
  plugins: [RevealNotes],
});
