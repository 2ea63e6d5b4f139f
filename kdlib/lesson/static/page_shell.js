// What every page does: the switch between light and dark, contents that fold, tables that a keyboard can scroll.
(() => {
  const root = document.documentElement;
  const systemIsDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.kdTheme || (systemIsDark.matches ? "dark" : "light")) === "dark";

  const button = document.querySelector(".kd-switch");
  const name = () => (button.textContent = isDark() ? "Light colours" : "Dark colours");
  button.addEventListener("click", () => {
    root.dataset.kdTheme = isDark() ? "light" : "dark";
    kdStorage((storage) => storage.setItem("kd-theme", root.dataset.kdTheme));
    name();
  });
  systemIsDark.addEventListener("change", name);
  button.hidden = false;
  name();

  const contents = document.querySelector(".kd-contents details");
  if (contents && window.matchMedia("(width < 64rem)").matches) contents.open = false;

  /** What is cut off can be scrolled by keyboard: it takes the focus, and says what it is. */
  const letScroll = () => {
    for (const region of document.querySelectorAll(".highlight, .jp-OutputArea-output, .kd-scroll")) {
      const inside = region.scrollWidth > region.clientWidth;
      if (!inside) {
        for (const attribute of ["tabindex", "role", "aria-label"]) region.removeAttribute(attribute);
        continue;
      }
      region.setAttribute("tabindex", "0");
      region.setAttribute("role", "group");
      region.setAttribute("aria-label", region.matches(".highlight") ? "Code, scrolls sideways" : "Scrolls sideways");
    }
  };
  new ResizeObserver(letScroll).observe(document.body);
  for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", letScroll);
})();
