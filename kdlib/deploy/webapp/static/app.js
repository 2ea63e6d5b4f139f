// The page of `kdlib serve`: a picture goes to the server, its answer becomes bars. No library; addresses are
// relative, so that the page works below any prefix, such as that of jupyter-server-proxy.

const SHOWN = 3; // classes with a bar
const LONGEST = 1600; // pixels: a large photograph is shrunk to this before it is sent
const LARGE = 1_000_000; // bytes: from here on it is looked at whether a picture needs shrinking
const SMALL = 64; // pixels: up to here a picture is shown with its pixels visible
const RETRIES = 5;

const find = (id) => document.getElementById(id);
const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

let limits = { bytes: Infinity };
let current = null; // the picture on show: { blob, name }
let request = 0; // the number of the latest question: the answer to an older one is dropped

async function start() {
  try {
    const answer = await fetch("model");
    const about = await answer.json();
    if (!answer.ok) throw new Error(about.error);
    limits = about.limits;
    showModels(about.models);
    showSamples(about.samples);
    showGreyNote(about.models, about.samples.length > 0);
  } catch (error) {
    complain(`The server does not answer: ${error.message}`);
  }
}

function showModels(models) {
  for (const model of models) {
    const item = document.createElement("li");
    const name = document.createElement("strong");
    name.textContent = model.name;
    const colours = model.channels === 1 ? "grey" : "colour";
    const size = `${model.width} × ${model.height} pixels, ${colours}`;
    item.append(name, `: ${model.classes.length} classes, ${size}, ${inBytes(model.bytes)}`);
    item.title = model.classes.join(", ");
    find("models").append(item);
  }
}

function inBytes(bytes) {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function showSamples(samples) {
  find("samples").hidden = samples.length === 0;
  for (const { file, label } of samples) {
    const button = document.createElement("button");
    const image = document.createElement("img");
    button.type = "button";
    image.src = `samples/${file}`;
    image.alt = "";
    button.append(image, label);
    button.addEventListener("click", async () => {
      try {
        classify(await (await fetch(image.src)).blob(), `sample: ${label}`);
      } catch (error) {
        complain(`The sample cannot be fetched: ${error.message}`);
      }
    });
    find("sample-list").append(button);
  }
}

function showGreyNote(models, fashion) {
  const grey = models.find((model) => model.channels === 1);
  find("grey").hidden = !grey;
  if (!grey) return;
  const size = `${grey.width} × ${grey.height}`;
  const cut = `The middle of a picture is cut out, made grey and reduced to ${size} pixels.`;
  const taught = "This network has only ever seen one piece of light clothing on black (Fashion-MNIST). Where yours is dark on a bright ground, swap the two.";
  find("grey-note").textContent = fashion ? `${cut} ${taught}` : cut;
}

// --- asking ----------------------------------------------------------------------------------------------

async function classify(blob, name) {
  current = { blob, name };
  const mine = ++request;
  find("answer").classList.add("waiting");
  find("result").setAttribute("aria-busy", "true"); // a screen reader waits for the whole answer
  try {
    const answer = await ask(await shrunk(blob));
    if (mine === request) show(answer);
  } catch (error) {
    if (mine === request) complain(error.message);
  }
  if (mine !== request) return;
  find("answer").classList.remove("waiting");
  find("result").removeAttribute("aria-busy");
}

async function ask(blob) {
  if (blob.size > limits.bytes) throw new Error(`This file is too large (${inBytes(blob.size)}).`);
  const form = new FormData();
  form.append("image", blob, "picture");
  const address = `predict?seen=1${find("invert").checked ? "&invert=1" : ""}`;
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(address, { method: "POST", body: form });
    const body = await answer.json();
    if (answer.ok) return body;
    if (answer.status !== 429 || attempt === RETRIES) throw new Error(sentence(body.error));
    await new Promise((resume) => setTimeout(resume, 1000)); // the server has its hands full
  }
}

// A photograph from a phone has more pixels than any network here looks at. What the browser cannot read is sent
// as it is: the server says what is wrong with it.
async function shrunk(blob) {
  if (blob.size < LARGE) return blob;
  const bitmap = await createImageBitmap(blob).catch(() => null);
  const scale = bitmap ? LONGEST / Math.max(bitmap.width, bitmap.height) : 1;
  if (scale >= 1) return blob;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // as the server does with what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return toBlob(canvas);
}

function toBlob(canvas) {
  return new Promise((resume) => canvas.toBlob(resume, "image/jpeg", 0.92));
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + ".";
}

// --- showing ---------------------------------------------------------------------------------------------

function complain(message) {
  find("error").textContent = message;
  find("summary").textContent = "";
  find("answer").hidden = true;
  find("empty").hidden = true;
  bringIntoView();
}

// In a narrow window the answer stands below all that a picture is chosen by.
function bringIntoView() {
  if (find("result").getBoundingClientRect().top > 0.7 * innerHeight) find("result").scrollIntoView();
}

function show({ models }) {
  find("error").textContent = "";
  find("empty").hidden = true;
  find("answer").hidden = false;
  find("summary").textContent = summary(models);
  const picture = find("picture");
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(current.blob);
  find("file-name").textContent = current.name;
  find("answers").replaceChildren(...models.map(card));
  bringIntoView();
}

function summary(models) {
  const [first, second] = models.map((model) => model.predictions[0].label);
  if (second === undefined) return `${models[0].name} says: ${first}.`;
  if (first === second) return `Both say: ${first}.`;
  return `They disagree: ${models[0].name} says ${first}, ${models[1].name} says ${second}.`;
}

function card(model) {
  const article = find("answer-template").content.cloneNode(true).firstElementChild;
  article.querySelector("h2").textContent = model.name;
  article.querySelector("ol").append(...model.predictions.slice(0, SHOWN).map(row));
  const seen = article.querySelector("img");
  seen.src = model.seen;
  seen.alt = `The picture as ${model.name} saw it`;
  showPixels(seen);
  article.querySelector("figcaption").textContent = "its input";
  article.querySelector(".time").textContent = `${model.milliseconds.toFixed(1)} ms in the network`;
  return article;
}

function row({ label, probability }) {
  const item = document.createElement("li");
  const text = element("div", "text");
  text.append(element("span", "label", label), " ", element("span", "percent", percent(probability)));
  const track = element("div", "track");
  const bar = element("div", "bar");
  track.setAttribute("aria-hidden", "true");
  bar.style.width = `${100 * probability}%`;
  track.append(bar);
  item.append(text, track);
  return item;
}

function element(tag, name, text = "") {
  const made = document.createElement(tag);
  made.className = name;
  made.textContent = text;
  return made;
}

function showPixels(image) {
  image.addEventListener("load", () => {
    image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
  });
}

// --- where pictures come from ------------------------------------------------------------------------------

function takeFiles(files) {
  if (files.length > 1) complain("One picture at a time, please.");
  else if (files.length === 1) classify(files[0], files[0].name);
}

find("file").addEventListener("change", ({ target }) => {
  takeFiles([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});

const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  find("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("drop").classList.remove("over"); // the window has been left
});
addEventListener("drop", (event) => {
  find("drop").classList.remove("over");
  if (!holdsFiles(event)) return;
  event.preventDefault();
  takeFiles([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => takeFiles([...event.clipboardData.files]));
find("invert").addEventListener("change", () => current && classify(current.blob, current.name));

// --- the camera: only where the browser lets a page use it (https or this machine) -------------------------

let stream = null;

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find("viewfinder").hidden = true;
  find("open-camera").hidden = false;
}

find("camera").hidden = !navigator.mediaDevices?.getUserMedia;
find("open-camera").addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    find("video").srcObject = stream;
    find("open-camera").hidden = true;
    find("viewfinder").hidden = false;
    await find("video").play();
    find("take").focus();
  } catch (error) {
    closeCamera();
    complain(`The camera cannot be used: ${error.message}`);
  }
});
find("close-camera").addEventListener("click", closeCamera);
find("take").addEventListener("click", async () => {
  const video = find("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await toBlob(canvas);
  closeCamera();
  find("open-camera").focus();
  classify(blob, "from the camera");
});

showPixels(find("picture"));
start();
