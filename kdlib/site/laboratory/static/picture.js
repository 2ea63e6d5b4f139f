// Files that a reader hands in: looked at before they are opened, and opened by the browser.

const SIGNATURES = {
  PNG: (bytes) => startsWith(bytes, "\x89PNG\r\n\x1a\n"),
  JPEG: (bytes) => startsWith(bytes, "\xff\xd8\xff"),
  WEBP: (bytes) => startsWith(bytes, "RIFF") && startsWith(bytes.subarray(8), "WEBP"),
  BMP: (bytes) => startsWith(bytes, "BM"),
  GIF: (bytes) => startsWith(bytes, "GIF87a") || startsWith(bytes, "GIF89a"),
};

// What stands once at the head of an animation or, in a GIF, before each of its pictures.
const OF_ANIMATIONS = { PNG: "acTL", WEBP: "ANIM", GIF: "\x21\xf9\x04" };

/** A file that is not taken, and why, in a sentence for the reader. */
class Refused extends Error {}

function startsWith(bytes, text) {
  return bytes.length >= text.length && [...text].every((letter, index) => bytes[index] === letter.charCodeAt(0));
}

function isAnimation(bytes, format) {
  const mark = OF_ANIMATIONS[format];
  if (!mark) return false;
  let found = 0;
  for (let at = 0; (at = bytes.indexOf(mark.charCodeAt(0), at)) >= 0; at++)
    if (startsWith(bytes.subarray(at), mark) && (format !== "GIF" || bytes[at + 7] === 0)) found++;
  return found >= (format === "GIF" ? 2 : 1);
}

/**
 * The middle of the picture in a file as size x size grey values, and whether the file is an animation, of which
 * that is the first picture. Raises Refused.
 */
async function pictureOf(blob, limits, size) {
  if (blob.size === 0) throw new Refused("The file is empty.");
  if (blob.size > limits.bytes) {
    const [size, most] = [blob.size, limits.bytes].map((bytes) => bytes / 2 ** 20);
    throw new Refused(`This file is too large: ${size.toFixed(1)} MiB; at most ${most} are taken.`);
  }
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const format = limits.formats.find((name) => SIGNATURES[name](bytes));
  if (!format) throw new Refused(`This is no picture of a known format; known are ${limits.formats.join(", ")}.`);
  const bitmap = await opened(bytes);
  if (bitmap.width * bitmap.height > limits.pixels) {
    const most = `at most ${limits.pixels / 1e6} million are taken`;
    throw new Refused(`The picture has ${bitmap.width} × ${bitmap.height} pixels; ${most}.`);
  }
  const grey = seenOf(middleOf(bitmap), size);
  bitmap.close();
  return { grey, animation: isAnimation(bytes, format) };
}

async function opened(bytes) {
  try {
    // Without the colours' profile, which Pillow does not apply either; upright, as the camera noted.
    return await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
  } catch {
    throw new Refused("The picture is damaged, or of more pixels than this browser can open.");
  }
}

/** Without most of what no network sees of a very long picture; what is transparent becomes white. */
function middleOf(bitmap) {
  const longest = 2 * Math.min(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.min(side, longest));
  const canvas = html("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  const [left, top] = [bitmap.width - width, bitmap.height - height].map((spare) => Math.floor(spare / 2));
  context.drawImage(bitmap, -left, -top);
  const { data } = context.getImageData(0, 0, width, height);
  const colours = new Uint8Array(3 * width * height);
  for (let pixel = 0; pixel < width * height; pixel++)
    for (let channel = 0; channel < 3; channel++) colours[3 * pixel + channel] = data[4 * pixel + channel];
  return { width, height, data: colours };
}
