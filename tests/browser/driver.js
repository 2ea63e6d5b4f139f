// What driver.py asks of the page. Installed before the page loads.
window.kdDriver = (() => {
  const panel = () => window.jupyterapp?.shell.currentWidget;
  const kernel = () => panel()?.sessionContext?.session?.kernel;
  const cells = () => panel().content.model.toJSON().cells;
  const described = (node) => `${node.tagName} ${node.getAttribute("class")} ${node.textContent.slice(0, 40)}`;
  // What must not cover anything else.
  const BLOCKS = `.kd-slide h2, .kd-slide nav, .kd-slider, .kd-hero svg, .kd-image, .kd-picker, .kd-numbers,
    .kd-caption, .kd-frames, .kd-explorer .widget-hslider, .kd-explorer img, .kd-explorer .widget-html`;
  const areCrossing = (one, two) =>
    Math.min(one.right, two.right) - Math.max(one.left, two.left) > 1 &&
    Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top) > 1;
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
          const name = described(part);
          if (part.getBoundingClientRect().right > edge) found.push(`beyond the edge: ${name}`);
          const shortened = part.matches(".widget-label") && part.scrollWidth > part.clientWidth;
          if (shortened) found.push(`shortened: ${name}`);
          const squeezed = part.matches("input[type=range], .slider-container") && part.clientWidth < 60;
          if (squeezed) found.push(`too short to be moved: ${name}`);
        }
      }
      return found;
    },

    overlaps() {
      const blocks = [...document.querySelectorAll(BLOCKS)].map((block) => [block, block.getBoundingClientRect()]);
      return blocks.flatMap(([block, box], index) =>
        blocks
          .slice(index + 1)
          .filter(([other, its]) => !block.contains(other) && !other.contains(block) && areCrossing(box, its))
          .map(([other]) => `${described(block)} and ${described(other)} overlap`),
      );
    },

    watchHeights(slider) {
      const output = slider.closest(".jp-OutputArea-output");
      const seen = (heights = new Set([output.offsetHeight]));
      new ResizeObserver(() => seen.add(output.offsetHeight)).observe(output);
    },

    heights: () => [...heights],
  };
})();
