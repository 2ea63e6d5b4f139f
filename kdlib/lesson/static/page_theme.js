// Before anything is painted: the colours that a reader chose on another page. Some browsers keep nothing for files.
function kdStorage(use) {
  try {
    return use(window.localStorage);
  } catch {
    return null; // then the colours are those that the system asks for
  }
}
document.documentElement.dataset.kdTheme = kdStorage((storage) => storage.getItem("kd-theme")) ?? "";
