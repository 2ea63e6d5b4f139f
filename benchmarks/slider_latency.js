// Instruments for benchmarks/slider_latency.py, installed in the page before it loads.
window.kdLatency = (() => {
  const FRAME = 1000 / 60;
  const api = {};
  let slider, output; // under observation
  let value, move, painted; // of the move being timed
  let frames, shifts, heights, watching; // of the drag being watched

  const position = () => slider.value ?? slider.getAttribute("aria-valuetext");

  /** Call back once the frame that is being prepared has been painted. */
  const afterPaint = (then) =>
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = then;
      channel.port2.postMessage(null);
    });

  const onInput = (event) => {
    move ??= { event: performance.now(), hand: event.timeStamp };
  };

  const onPicture = () => {
    if (!move || move.drawn) return;
    const started = move;
    started.drawn = true;
    afterPaint(() => {
      const now = performance.now();
      started.timing = { event: now - started.event, hand: now - started.hand };
      if (started === move) painted?.(started.timing);
    });
  };

  /** Time the pictures of the output that holds this slider. */
  api.observe = (observed) => {
    slider = observed;
    output = slider.closest(".jp-OutputArea-output");
    const kinds = slider.matches("input") ? ["input"] : ["pointermove", "keydown"];
    for (const kind of kinds) document.addEventListener(kind, onInput, true);
    for (const drawn of output.querySelectorAll("svg, .kd-frames"))
      new MutationObserver(onPicture).observe(drawn, { attributes: true, subtree: true });
    for (const image of output.querySelectorAll(".kd-explorer img")) image.addEventListener("load", onPicture);
    new ResizeObserver(() => heights?.add(output.offsetHeight)).observe(output);
  };

  /** The times of the move that was just made, once its picture is painted; null if it changed no value. */
  api.picture = async () => {
    const before = value;
    value = position();
    const later = () => new Promise((resolve) => (painted = resolve));
    const timing = value === before ? null : (move?.timing ?? (await later()));
    [move, painted] = [null, null];
    return timing;
  };

  /** Let pictures that are still on their way arrive, and begin anew. */
  api.rest = async () => {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    [value, move] = [position(), null];
  };

  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (watching) shifts += entry.value;
  }).observe({ type: "layout-shift" });

  /** Start to count frames, layout shifts and heights of the output. */
  api.watch = () => {
    [watching, frames, shifts, heights] = [true, [], 0, new Set([output.offsetHeight])];
    const tick = (now) => {
      frames.push(now);
      if (watching) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  };

  /** Stop, and say what was counted. */
  api.report = () => {
    [watching, move] = [false, null];
    const gaps = frames.slice(1).map((now, index) => Math.max(1, Math.round((now - frames[index]) / FRAME)));
    const all = gaps.reduce((sum, gap) => sum + gap, 0);
    return { frames: all, dropped: all - gaps.length, shifts, heights: heights.size };
  };
  return api;
})();
