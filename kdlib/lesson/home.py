"""A place for what Jupyter, IPython and matplotlib keep in the home folder, where there is no such folder.

A user of a container or a service may have no home folder, or one that cannot be written. Parts of Jupyter cannot even
be imported then, no kernel starts, and matplotlib warns in every notebook.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_PLACES = {
    "JUPYTER_CONFIG_DIR": "jupyter-config",
    "JUPYTER_DATA_DIR": "jupyter-data",
    "IPYTHONDIR": "ipython",
    "MPLCONFIGDIR": "matplotlib",
}


def lend() -> None:
    """Where the home folder is absent or cannot be written, name a temporary one to them, which goes with this process.

    What the user has named by one of their variables stays. kdlib's own caches are not moved there: they would be
    lost as well, and say instead that they do without.
    """
    missing = [variable for variable in _PLACES if not os.environ.get(variable)]
    if not missing or _has_home():
        return
    folder = Path(tempfile.mkdtemp(prefix="kdlib-home-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable in missing:
        place = folder / _PLACES[variable]
        place.mkdir()
        os.environ[variable] = str(place)
    if "JUPYTER_CONFIG_DIR" in missing:
        # Without this mark JupyterLab looks into the home folder for settings of an older version.
        (folder / _PLACES["JUPYTER_CONFIG_DIR"] / "migrated").touch()


def _has_home() -> bool:
    home = os.path.expanduser("~")  # stays "~" without HOME and without an entry in the password file
    return os.path.isabs(home) and os.access(home, os.W_OK | os.X_OK)
