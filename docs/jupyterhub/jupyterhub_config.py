"""For The Littlest JupyterHub: /opt/tljh/config/jupyterhub_config.d/course.py. See docs/jupyterhub.md."""

c = get_config()  # noqa: F821 - JupyterHub provides it

c.Spawner.cmd = ["/opt/course/start_course.sh", "/opt/course/venv/bin/jupyterhub-singleuser"]
c.Spawner.default_url = "/lab/tree/NAME/my_notebooks/00_start_here.ipynb"
c.Spawner.environment = {
    "COURSE_REPOSITORY": "https://github.com/OWNER/NAME",
    "COURSE_BRANCH": "main",
    "COURSE_FOLDER": "NAME",
    # Else every learner's training takes all cores of the machine.
    "LOKY_MAX_CPU_COUNT": "1",
    "OMP_NUM_THREADS": "1",
}
# The first start fetches the course.
c.Spawner.start_timeout = 180
