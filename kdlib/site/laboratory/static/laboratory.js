// The page: what the reader sets goes to the networks, and what they say to the tables.

const SIZE = 28;
const PAUSE = 700; // milliseconds of rest before a screen reader is told
const facts = JSON.parse(document.getElementById("facts").textContent);
const find = (id) => document.getElementById(id);
const { classes, first } = facts;

const state = {
  networks: { teacher: first.teacher, student: first.student },
  label: facts.samples[first.sample].label,
  temperature: first.temperature,
  alpha: first.alpha,
  logits: null, // of both networks, for the picture on show
};

// --- telling ---------------------------------------------------------------------------------------------

let telling = 0;

/** Tell a screen reader, once the reader has come to rest. */
function say(text) {
  clearTimeout(telling);
  telling = setTimeout(() => (find("said").textContent = text), PAUSE);
}

function fail(error) {
  write(find("failed"), error.message ?? String(error)); // onnxruntime throws more than Errors
  find("state").hidden = true;
}

// --- the networks' answers -------------------------------------------------------------------------------

const networks = networksOf(facts.networks, SIZE, (name) => {
  find("state").hidden = false;
  write(find("state"), `Loading the network ${name} …`);
});
let asking = false;
let changed = false; // since the networks were asked last

/** Ask both networks; while they think, further changes only make them think once more. */
async function ask() {
  changed = true;
  if (asking) return;
  asking = true;
  find("results").setAttribute("aria-busy", "true");
  try {
    while (changed) {
      changed = false;
      const grey = board.grey().slice();
      const logits = {};
      for (const role of ROLES) logits[role] = await networks.ask(state.networks[role], grey);
      state.logits = logits;
      find("state").hidden = true;
      write(find("failed"), "");
      find("results").hidden = false;
      show();
    }
  } catch (error) {
    fail(error);
  } finally {
    asking = false;
    find("results").removeAttribute("aria-busy");
  }
}

// --- showing ---------------------------------------------------------------------------------------------

const tables = {
  logits: barTable({ caption: "Logits z", classes, write: (value) => value.toFixed(2) }),
  softened: barTable({ caption: "Soft targets: softmax(z / T)", classes, write: percent }),
  losses: lossTable(),
  digits: digitsTable(classes),
};
find("tables").append(tables.logits.node, tables.softened.node);
find("losses").append(tables.losses.node);
find("digits").append(tables.digits.node);

function show() {
  if (!state.logits) return;
  const { logits, label, temperature, alpha } = state;
  const softened = Object.fromEntries(ROLES.map((role) => [role, softmax(logits[role], temperature)]));
  const terms = lossTerms(logits.student, logits.teacher, label, temperature, alpha);
  const all = ROLES.flatMap((role) => logits[role]);
  tables.logits.show(logits, label, [Math.min(0, ...all), Math.max(1, ...all)]);
  tables.softened.show(softened, label, [0, 1]);
  tables.losses.show(terms, alpha);
  if (find("more").open) tables.digits.show({ logits, softened, terms, temperature });
  const answers = ROLES.map((role) => {
    const largest = softened[role].indexOf(Math.max(...softened[role]));
    return `${role}: ${classes[largest]}, ${percent(softened[role][largest])}`;
  });
  const summary = `At T = ${temperature.toPrecision(3)} the ${answers.join("; the ")}.`.replaceAll(" %", "\u00a0%");
  write(find("summary"), summary);
  const [task, distill, total] = [terms.task, terms.distill, terms.total].map((value) => value.toFixed(3));
  say(`${summary} Cross-entropy ${task}, T² KL ${distill}, loss ${total}.`);
}

// --- what the reader sets --------------------------------------------------------------------------------

let given = { name: "", grey: null }; // the picture that was taken last

const board = easel({
  canvas: find("easel"),
  cursor: find("cursor"),
  size: SIZE,
  brush: () => ({ width: Number(find("width").value), tone: Number(find("tone").value) }),
  about: () => ({ given, label: state.label }),
  tell: (about) => {
    if (about.given === given) return; // to undo a stroke does not undo the label that the reader chose
    given = about.given;
    setLabel(about.label);
  },
  onChange: (grey) => {
    find("bright").hidden = !brightAtTheEdge(grey);
    writeName(grey);
    ask();
  },
  say,
});
for (const action of ["undo", "invert"]) find(action).addEventListener("click", board[action]);
find("clear").addEventListener("click", () => {
  board.show(new Uint8Array(SIZE * SIZE), { given: { name: "your drawing", grey: null }, label: state.label });
});

/** What is on the easel: what was given, and whether the reader has painted on it. */
function writeName(grey) {
  const changed = given.grey?.some((tone, index) => tone !== grey[index]);
  write(find("shown"), changed ? `${given.name}, changed by you` : given.name);
}

/** The networks have only ever seen light clothes on black. */
function brightAtTheEdge(grey) {
  const edge = grey.filter((_, index) => {
    const [column, row] = [index % SIZE, Math.floor(index / SIZE)];
    return [0, SIZE - 1].includes(column) || [0, SIZE - 1].includes(row);
  });
  return edge.reduce((sum, tone) => sum + tone, 0) / edge.length > 127;
}

let taken = 0; // the number of the latest picture: an older one that was slow to open is dropped

async function take(blob, name, label = null) {
  const mine = ++taken;
  try {
    const { grey, animation } = await pictureOf(blob, facts.limits, SIZE);
    if (mine !== taken) return;
    write(find("complaint"), "");
    const shown = animation ? `${name}: an animation, of which this is the first picture` : name;
    board.show(grey, { given: { name: shown, grey }, label: label ?? state.label });
  } catch (error) {
    if (mine !== taken) return;
    const reason = error instanceof Refused ? error.message : `The picture cannot be read: ${error.message}`;
    write(find("complaint"), `${name}: ${reason}`);
  }
}

function takeFiles(files) {
  if (files.length > 1) write(find("complaint"), "One picture at a time, please.");
  if (files.length === 1) take(files[0], files[0].name);
}

find("file").addEventListener("change", ({ target }) => {
  takeFiles([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});
const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  takeFiles([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => takeFiles([...event.clipboardData.files]));

function takeSample({ png, label }) {
  return take(new Blob([bytesOf(png)]), `${classes[label]}, a test image of Fashion-MNIST`, label);
}

for (const sample of facts.samples) {
  const image = html("img", { src: `data:image/png;base64,${sample.png}`, alt: "", width: SIZE, height: SIZE });
  const button = html("button", { type: "button" }, image, classes[sample.label]);
  button.addEventListener("click", () => takeSample(sample));
  find("samples").append(button);
}

function setLabel(label) {
  state.label = label;
  find("label").selectedIndex = label;
}

find("label").append(...classes.map((name) => html("option", {}, name)));
find("label").addEventListener("change", ({ target }) => {
  state.label = target.selectedIndex;
  show();
});

const thousands = (number) => number.toLocaleString("en");
for (const role of ROLES) {
  const select = find(role);
  select.append(...facts.networks.map(({ name }) => html("option", {}, name)));
  const choose = () => {
    const { name, parameters, bytes, test_accuracy: accuracy } = facts.networks[select.selectedIndex];
    const size = `${thousands(parameters)} parameters, ${thousands(Math.round(bytes / 1000))} kB`;
    write(find(`${role}-about`), `${size}; ${(100 * accuracy).toFixed(1)} % of the test images right`);
    state.networks[role] = name;
  };
  select.value = state.networks[role];
  choose();
  select.addEventListener("change", () => {
    choose();
    ask();
  });
}

const sliders = {
  temperature: { label: "temperature T", scale: logScale(0.5, 20) },
  alpha: { label: "alpha α", scale: linearScale(0, 1) },
};
for (const [name, { label, scale }] of Object.entries(sliders)) {
  const onMove = (value) => {
    state[name] = value;
    show();
  };
  const control = slider({ label, scale, onMove, onRest: () => {} });
  control.node.querySelector("output").setAttribute("aria-live", "off"); // it would speak at every tick
  control.show(state[name]);
  find("sliders").append(control.node);
}
find("more").addEventListener("toggle", show);

// For the curious, in the browser's console: await laboratory.ask("teacher", laboratory.grey())
window.laboratory = { ask: networks.ask, grey: board.grey };

takeSample(facts.samples[first.sample]);
