// The picture that the networks see, which the reader may draw on: by mouse, finger or keys.

const KEPT = 100; // pictures that undo can bring back
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Make a canvas of size x size pixels an easel. `brush()` gives {width, tone}; `onChange(grey)` runs after every
 * change of the reader's, `say(text)` tells a screen reader where the cursor of the keys is. `about()` gives what the
 * page says of the picture on show, and `tell(about)`, before `onChange`, takes what it has to say from now on.
 */
function easel({ canvas, cursor, size, brush, about, tell, onChange, say }) {
  const context = canvas.getContext("2d");
  let grey = new Uint8Array(size * size);
  const before = [];
  let place = [size >> 1, size >> 1]; // of the cursor: column, row
  let stroke = null; // the pixel that the pointer was at, while it is down

  function draw() {
    const image = context.createImageData(size, size);
    grey.forEach((tone, index) => image.data.set([tone, tone, tone, 255], 4 * index));
    context.putImageData(image, 0, 0);
  }

  function keep() {
    before.push({ grey: grey.slice(), about: about() });
    if (before.length > KEPT) before.shift();
  }

  function change(next) {
    grey = next;
    draw();
    onChange(grey);
  }

  function dab([column, row]) {
    const { width, tone } = brush();
    const first = -((width - 1) >> 1);
    for (let y = row + first; y < row + first + width; y++)
      for (let x = column + first; x < column + first + width; x++)
        if (x >= 0 && x < size && y >= 0 && y < size) grey[y * size + x] = tone;
  }

  function line([fromColumn, fromRow], [column, row]) {
    const steps = Math.max(Math.abs(column - fromColumn), Math.abs(row - fromRow), 1);
    for (let step = 0; step <= steps; step++) {
      const at = (from, to) => Math.round(from + ((to - from) * step) / steps);
      dab([at(fromColumn, column), at(fromRow, row)]);
    }
    change(grey);
  }

  function pixelAt({ clientX, clientY }) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return [Math.floor(((clientX - left) / width) * size), Math.floor(((clientY - top) / height) * size)];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    keep();
    stroke = pixelAt(event);
    line(stroke, stroke);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    const from = stroke;
    stroke = pixelAt(event);
    line(from, stroke);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (stroke = null));

  function showCursor() {
    [cursor.style.left, cursor.style.top] = place.map((index) => `${(100 * index) / size}%`);
  }

  function sayPlace() {
    const [column, row] = place;
    say(`Row ${row + 1}, column ${column + 1}, brightness ${grey[row * size + column]} of 255.`);
  }

  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step && ![" ", "Enter"].includes(event.key)) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // else the page would scroll
    const from = place;
    if (step) place = place.map((index, axis) => Math.min(size - 1, Math.max(0, index + step[axis])));
    showCursor();
    if (!step || event.shiftKey) {
      keep();
      line(from, place);
    }
    sayPlace();
  });
  canvas.addEventListener("focus", showCursor);

  draw();
  return {
    /** Another picture; undo brings the old one back, and what was said of it. */
    show(next, aboutNext) {
      keep();
      tell(aboutNext);
      change(next.slice());
    },
    invert: () => {
      keep();
      change(grey.map((tone) => 255 - tone));
    },
    undo: () => {
      if (before.length === 0) return;
      const last = before.pop();
      tell(last.about);
      change(last.grey);
    },
    grey: () => grey,
  };
}
