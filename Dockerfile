# The course in a container, with the build of PyTorch that knows no GPU and is small. docs/starts.md says more.
#
#     docker build --tag distillation-workbook .
#     docker run --rm --publish 127.0.0.1:8888:8888 --volume "$PWD/course:/course" distillation-workbook

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY kdlib ./kdlib
COPY notebooks ./notebooks
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# The largest part, in a layer of its own: it is not fetched again when the course changes.
RUN python -m pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.6,<3" "torchvision>=0.21"
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir "$(echo /wheels/*.whl)[lab,deploy]"

RUN useradd --create-home learner && mkdir /course && chown learner /course
USER learner
WORKDIR /course
EXPOSE 8888
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8888/api', timeout=5)"]
# The address that it prints leads to the first lesson.
CMD ["kdlib", "lab", "--", "--ip=0.0.0.0", "--port=8888", "--ServerApp.port_retries=0", "--no-browser", \
     "--LabApp.default_url=/lab/tree/my_notebooks/00_start_here.ipynb"]
