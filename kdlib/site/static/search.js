// The search over all lessons. Its index is a script that is loaded when a reader first asks.
(() => {
  const MOST = 12;
  const box = document.querySelector(".kd-search");
  const [input, found] = [box.querySelector("input"), box.querySelector(".kd-found")];
  const [status, list] = [found.querySelector("p"), found.querySelector("ol")];
  const root = box.dataset.root;
  box.hidden = false;

  let loading;
  const load = () =>
    (loading ??= new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = `${root}search-index.js`;
      script.onload = script.onerror = resolve; // a page that was passed on alone has no index beside it
      document.head.append(script);
    }));

  /** Every section that holds all words: first those that have them in their heading. */
  function search(words) {
    const hits = [];
    for (const [page, lesson, sections] of window.kdIndex)
      for (const [anchor, heading, text] of sections) {
        const [title, below] = [`${lesson} ${heading}`.toLowerCase(), text.toLowerCase()];
        if (!words.every((word) => title.includes(word) || below.includes(word))) continue;
        const weight = words.filter((word) => heading.toLowerCase().includes(word)).length;
        hits.push({ address: `${root}${page}#${anchor}`, lesson, heading, text, weight });
      }
    return hits.sort((one, other) => other.weight - one.weight);
  }

  function excerpt(text, words) {
    const places = words.map((word) => text.toLowerCase().indexOf(word)).filter((place) => place >= 0);
    const start = Math.max(0, Math.min(...places, text.length) - 40);
    const cut = text.slice(start === text.length - 40 ? 0 : start).slice(0, 140);
    return `${start > 0 ? "… " : ""}${cut}${cut.length < text.length ? " …" : ""}`;
  }

  function entry({ address, lesson, heading, text }, words) {
    const [item, link, below] = ["li", "a", "span"].map((tag) => document.createElement(tag));
    link.href = address;
    link.textContent = heading && heading !== lesson ? `${lesson}: ${heading}` : lesson;
    below.textContent = excerpt(text, words);
    item.append(link, below);
    return item;
  }

  async function show() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    found.hidden = words.length === 0;
    if (found.hidden) return;
    await load();
    if (!window.kdIndex) {
      status.textContent = "This page is not in its folder: without search-index.js nothing can be searched.";
      return;
    }
    const hits = search(words);
    const more = hits.length > MOST ? `, the first ${MOST} of them here` : "";
    status.textContent = hits.length ? `${hits.length} found${more}` : "nothing found";
    list.replaceChildren(...hits.slice(0, MOST).map((hit) => entry(hit, words)));
  }

  function close() {
    found.hidden = true;
    input.focus();
  }

  input.addEventListener("focus", load);
  input.addEventListener("input", show);
  box.addEventListener("keydown", (event) => {
    const stops = [input, ...list.querySelectorAll("a")];
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move && !found.hidden) {
      event.preventDefault();
      stops[Math.min(Math.max(stops.indexOf(document.activeElement) + move, 0), stops.length - 1)].focus();
    }
    if (event.key === "Enter" && event.target === input) list.querySelector("a")?.click();
    if (event.key === "Escape") close();
  });
  list.addEventListener("click", () => (found.hidden = true));
  document.addEventListener("click", (event) => {
    if (!box.contains(event.target)) found.hidden = true;
  });
  document.addEventListener("keydown", (event) => {
    const writes = event.target.matches("input:not([type=range], [type=radio]), textarea, select");
    if (event.key !== "/" || writes || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
  });
})();
