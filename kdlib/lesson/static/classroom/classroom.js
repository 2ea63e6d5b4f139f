// PageDown and PageUp, the keys that a presenter's remote control sends, go to the next figure and to the one before,
// also from a slider, and put the keyboard on the slider of the figure that they show.
const SLIDER = "input[type=range], [role=slider]";

function go(step) {
  const slides = [...document.querySelectorAll(".kd-slide")];
  const shown = slides.findLastIndex((slide) => slide.getBoundingClientRect().top < innerHeight / 2);
  const target = slides[Math.min(Math.max(shown + step, 0), slides.length - 1)];
  const below = (node) => target.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING;
  target.scrollIntoView();
  [...document.querySelectorAll(SLIDER)].find(below)?.focus({ preventScroll: true });
}

document.addEventListener(
  "keydown",
  (event) => {
    const step = { PageDown: 1, PageUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    go(step);
  },
  true, // before the slider that has the focus takes the key
);

// With the tabulator, a figure comes whole as soon as its heading is reached.
document.addEventListener("focusin", ({ target }) => target.closest(".kd-slide")?.scrollIntoView());
