// How a picture becomes what a network sees: the rules of kdlib/deploy/webapp/images.py and, number for number, the
// arithmetic of Pillow, which carries them out there. (Where a picture is tall, Pillow 13 resizes along its columns
// first; that moves some grey values by 1.) A picture is {width, height, data}: red, green, blue by turns.

/** Blocks of factor x factor pixels averaged; what is left over at the right and below makes smaller blocks. */
function reduced({ width, height, data }, factor) {
  if (factor === 1) return { width, height, data };
  const [columns, rows] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const out = new Uint8Array(3 * columns * rows);
  for (let row = 0; row < rows; row++) {
    const bottom = Math.min((row + 1) * factor, height);
    for (let column = 0; column < columns; column++) {
      const right = Math.min((column + 1) * factor, width);
      const count = (bottom - row * factor) * (right - column * factor);
      const share = Math.floor(Math.fround(2 ** 24 / count));
      for (let channel = 0; channel < 3; channel++) {
        let sum = count >> 1;
        for (let y = row * factor; y < bottom; y++)
          for (let x = column * factor; x < right; x++) sum += data[3 * (y * width + x) + channel];
        out[3 * (row * columns + column) + channel] = Math.floor((sum * share) / 2 ** 24);
      }
    }
  }
  return { width: columns, height: rows, data: out };
}

/** For each of `size` new pixels along [from, to]: the first old pixel and the weights, of 2^22, of it and its next. */
function triangleWeights(length, from, to, size) {
  const scale = (to - from) / size;
  const reach = Math.max(scale, 1);
  return Array.from({ length: size }, (_, index) => {
    const centre = from + (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({ length: end - first }, (_, offset) =>
      Math.max(0, 1 - Math.abs((first + offset - centre + 0.5) / reach)),
    );
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => Math.trunc(0.5 + (weight / total) * 2 ** 22)) };
  });
}

/** The box {left, top, right, bottom} of a picture, resized by an antialiasing bilinear filter, first along rows. */
function resized({ width, height, data }, box, size) {
  const wide = new Uint8Array(3 * size * height);
  triangleWeights(width, box.left, box.right, size).forEach(({ first, weights }, column) => {
    for (let at = 0; at < 3 * height; at++) {
      const [row, channel] = [Math.floor(at / 3), at % 3];
      let sum = 2 ** 21;
      weights.forEach((weight, offset) => (sum += weight * data[3 * (row * width + first + offset) + channel]));
      wide[3 * (row * size + column) + channel] = sum >> 22;
    }
  });
  const out = new Uint8Array(3 * size * size);
  triangleWeights(height, box.top, box.bottom, size).forEach(({ first, weights }, row) => {
    for (let at = 0; at < 3 * size; at++) {
      let sum = 2 ** 21;
      weights.forEach((weight, offset) => (sum += weight * wide[3 * (first + offset) * size + at]));
      out[3 * row * size + at] = sum >> 22;
    }
  });
  return { width: size, height: size, data: out };
}

/** The middle of a picture as size x size grey values. */
function seenOf(picture, size) {
  const factor = Math.max(1, Math.floor(Math.min(picture.width, picture.height) / (2 * size)));
  const small = reduced(picture, factor);
  const side = Math.min(small.width, small.height);
  const [left, top] = [(small.width - side) / 2, (small.height - side) / 2];
  const { data } = resized(small, { left, top, right: left + side, bottom: top + side }, size);
  return Uint8Array.from({ length: size * size }, (_, index) => {
    const [red, green, blue] = data.subarray(3 * index, 3 * index + 3);
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
  });
}

/** Grey values 0..255 as the numbers that enter a network, in float32 at each step. */
function networkInput(grey, { mean, std, range: [low, high] }) {
  const float = Math.fround;
  return Float32Array.from(grey, (value) => {
    const scaled = float(float(low) + float(float(high - low) * float(value / 255)));
    return float(scaled - float(mean)) / float(std);
  });
}
