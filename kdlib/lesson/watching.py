"""Whether somebody watches while a cell runs."""

from IPython import get_ipython

in_class = False


def somebody_watches() -> bool:
    """Whether a person's front end asked for the running cell, rather than a program that executes notebooks.

    Front ends (JupyterLab, Notebook, VS Code) tell the kernel which cell they run, and widgets call it back;
    nbclient, on which papermill and Voila stand, and nbval do neither. The classroom, where Voila runs the cells
    and a class watches, sets `in_class`.
    """
    if in_class:
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    request = kernel.get_parent("shell") if kernel is not None else {}
    return "cellId" in request.get("metadata", {}) or request.get("msg_type") == "comm_msg"
