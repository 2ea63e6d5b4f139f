// onnxruntime and the networks: loaded by scripts, because a page that is opened from a folder may not fetch files.

// A module of WebAssembly whose one type gives a vector: valid only where there is SIMD.
const WITH_VECTORS = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123]);

/** Raise an Error for the reader where this browser lacks something that is needed. */
function checkBrowser() {
  const update = "Please open this page in a newer browser.";
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(WITH_VECTORS))
    throw new Error(`The networks cannot run here: this browser has no WebAssembly with SIMD, or it is off. ${update}`);
  if (typeof DecompressionStream === "undefined")
    throw new Error(`The networks cannot be unpacked here: this browser has no DecompressionStream. ${update}`);
}

function scriptLoaded(address) {
  return new Promise((resolve, reject) => {
    const script = html("script", { src: address });
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error(`The file ${address} is missing or cannot be read.`)));
    document.head.append(script);
  });
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** The file that `folder`/`name`.js holds, as an answer with the type. */
async function unpacked(folder, name, type) {
  await scriptLoaded(`${folder}/${name}.js`);
  const zipped = new Blob([bytesOf(window.packed[name])]);
  delete window.packed[name];
  const stream = zipped.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream, { headers: { "Content-Type": type } });
}

/** onnxruntime on one thread of the page itself: a page from a folder may start no worker. */
async function startedRuntime() {
  checkBrowser();
  await scriptLoaded("runtime/ort.wasm-core.min.js");
  const wasm = await unpacked("runtime", "ort-wasm-simd", "application/wasm");
  const { wasm: settings } = window.ort.env;
  settings.numThreads = 1;
  settings.proxy = false;
  settings.wasmPaths = { "ort-wasm-simd.wasm": URL.createObjectURL(await wasm.blob()) };
}

/**
 * The networks of the page. `ask(name, grey)` gives the logits of one picture of grey values or of several behind one
 * another; a network is loaded when it is asked first, and `onLoading(name)` is told.
 */
function networksOf(facts, size, onLoading) {
  const sessions = {};
  let runtime = null;
  let last = Promise.resolve(); // onnxruntime does one thing at a time

  async function load(name) {
    onLoading(name);
    await (runtime ??= startedRuntime());
    const model = await unpacked("networks", name, "application/octet-stream");
    return window.ort.InferenceSession.create(new Uint8Array(await model.arrayBuffer()));
  }

  async function answer(name, grey) {
    const session = await (sessions[name] ??= load(name));
    const network = facts.find((fact) => fact.name === name);
    const shape = [grey.length / size ** 2, 1, size, size];
    const images = new window.ort.Tensor("float32", networkInput(grey, network), shape);
    const outputs = await session.run({ [session.inputNames[0]]: images });
    return Array.from(outputs[session.outputNames[0]].data);
  }

  function ask(name, grey) {
    const mine = () => answer(name, grey);
    last = last.then(mine, mine);
    return last;
  }

  return { ask };
}
