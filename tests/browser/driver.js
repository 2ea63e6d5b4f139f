// What driver.py asks of the page. Installed before the page loads.
window.kdDriver = (() => {
  const panel = () => window.jupyterapp?.shell.currentWidget;
  const kernel = () => panel()?.sessionContext?.session?.kernel;
  const cells = () => panel().content.model.toJSON().cells;
  let heights;

  return {
    kernelIsIdle: () => kernel()?.status === "idle" && Boolean(panel().content?.model),

    shutDown: () => panel()?.sessionContext.shutdown(),

    async ask(code) {
      const future = kernel().requestExecute({ code });
      let printed = "";
      future.onIOPub = ({ header, content }) => {
        if (header.msg_type === "stream") printed += content.text;
        if (header.msg_type === "error") printed += content.evalue;
      };
      await future.done;
      return printed;
    },

    errors: () =>
      cells().flatMap((cell, number) =>
        (cell.outputs ?? [])
          .filter((output) => output.output_type === "error")
          .map((output) => `cell ${number}: ${output.ename}: ${output.evalue}`),
      ),

    outputs: () =>
      cells()
        .filter((cell) => cell.cell_type === "code")
        .map((cell) => cell.outputs.map((output) => Object.keys(output.data ?? { text: "" }).sort())),

    // JupyterLab does not lay out cells that are out of sight: each is scrolled to before it is measured.
    async collapsed() {
      const found = [];
      const notebook = panel().content;
      for (const [number, cell] of notebook.widgets.entries()) {
        await notebook.scrollToItem(number);
        if (cell.outputHidden) found.push(`cell ${number}: its outputs are folded away`);
        for (const output of cell.node.querySelectorAll(".jp-OutputArea-output"))
          if (output.getBoundingClientRect().height < 2) found.push(`cell ${number}: an output of no height`);
      }
      return found;
    },

    cutOff() {
      const found = [];
      for (const output of document.querySelectorAll(".jp-OutputArea-output")) {
        const edge = output.getBoundingClientRect().right + 1;
        for (const part of output.querySelectorAll(".kd-hero *, .kd-strip *, .kd-explorer *")) {
          const name = `${part.tagName} ${part.getAttribute("class")} ${part.textContent.slice(0, 40)}`;
          if (part.getBoundingClientRect().right > edge) found.push(`beyond the edge: ${name}`);
          const shortened = part.matches(".widget-label") && part.scrollWidth > part.clientWidth;
          if (shortened) found.push(`shortened: ${name}`);
        }
      }
      return found;
    },

    watchHeights(slider) {
      const output = slider.closest(".jp-OutputArea-output");
      const seen = (heights = new Set([output.offsetHeight]));
      new ResizeObserver(() => seen.add(output.offsetHeight)).observe(output);
    },

    heights: () => [...heights],
  };
})();
