#!/bin/sh
# Before a learner's server starts: fetch the course or bring it up to date, make the learner's copies of the lessons that
# have none, and let kernels find the course. Then start what is named behind it, jupyterhub-singleuser.
# A course that cannot be fetched today is no reason not to start with yesterday's.
set -u
case "$1" in
  */*) PATH="$(dirname "$1"):$PATH" ;;  # gitpuller and python are those of its environment
esac
repository="${COURSE_REPOSITORY:-https://github.com/OWNER/NAME}"
branch="${COURSE_BRANCH:-main}"
course="$HOME/${COURSE_FOLDER:-NAME}"

cd "$HOME"
gitpuller "$repository" "$branch" "$course" || echo "start_course: the course could not be updated" >&2
export PYTHONPATH="$course${PYTHONPATH:+:$PYTHONPATH}"
export JUPYTER_CONFIG_PATH="$course/kdlib/lesson/static/jupyter${JUPYTER_CONFIG_PATH:+:$JUPYTER_CONFIG_PATH}"
# It makes the copies, asks JupyterLab for its version, and ends.
(cd "$course" && python -m kdlib.cli lab -- --version) || echo "start_course: no copies of the lessons were made" >&2

if python -c "import kdlib.lesson.undelayed" 2>/dev/null; then
  # Without the pause that the server makes between two messages of a slider.
  set -- "$@" --ServerApp.kernel_websocket_connection_class=kdlib.lesson.undelayed.UndelayedConnection
fi
exec "$@"
