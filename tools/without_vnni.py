"""Run a command as on an x86 processor with AVX2 and nothing newer: no AVX-512, no VNNI, no AMX.

    python tools/without_vnni.py .venv/bin/python -m kdlib.cli run notebooks/05_deployment.ipynb --profile ci

What a lesson says about 8 bits has to be true there too. PyTorch is told by two environment variables. onnxruntime
asks the processor by the instruction `cpuid`, so `without_vnni.c`, which this script builds, answers in its place, in
every process that the command starts. First a product whose sum overflows without VNNI shows on standard error that
this works. What asks the processor by itself (/proc/cpuinfo, torch.cpu) still hears the truth.

For maintainers: Linux on x86-64 with VNNI, gcc and objdump, and an environment in which the workbook is installed.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
TORCH = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
EXACT, CUT_OFF = 2 * 255 * 127, 2**15 - 1  # with VNNI two products are added in 32 bits, without it in 16

# The two products, by onnxruntime: argument and result of one MatMulInteger.
PRODUCT = """
import numpy, onnxruntime
from onnx import TensorProto, helper
left = helper.make_tensor_value_info("left", TensorProto.UINT8, (1, 2))
result = helper.make_tensor_value_info("result", TensorProto.INT32, (1, 1))
right = helper.make_tensor("right", TensorProto.INT8, (2, 1), [127, 127])
node = helper.make_node("MatMulInteger", ["left", "right"], ["result"])
graph = helper.make_graph([node], "product", [left], [result], [right])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print(session.run(None, {"left": numpy.full((1, 2), 255, numpy.uint8)})[0].item())
"""


def main() -> None:
    command = sys.argv[1:]
    complaint = missing(command)
    if complaint:
        sys.exit(f"without_vnni: {complaint}")
    as_it_is = product(os.environ)
    if as_it_is != EXACT:
        sys.exit("without_vnni: this processor has no VNNI; run the command as it is")
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | TORCH | {"LD_AUDIT": str(build(onnxruntime_library(), Path(folder)))}
        now = product(environment)
        print(f"without_vnni: 2 x 255 x 127 in 8 bits is {as_it_is} as it is, {now} now", file=sys.stderr)
        if now != CUT_OFF:
            sys.exit("without_vnni: onnxruntime still uses VNNI; nothing was run")
        sys.exit(subprocess.run(command, env=environment).returncode)


def missing(command: list[str]) -> str | None:
    """What the tool lacks, in words."""
    if not command:
        return "name the command to run: tools/without_vnni.py COMMAND ..."
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"works on Linux on x86-64 alone, this is {platform.system()} on {platform.machine()}"
    for program, package in (("gcc", "gcc"), ("objdump", "binutils")):
        if shutil.which(program) is None:
            return f"needs {program}; Debian has it in the package {package}"
    if None in (importlib.util.find_spec("onnx"), importlib.util.find_spec("onnxruntime")):
        return "needs onnx and onnxruntime; start it by the Python in which the workbook is installed"
    if shutil.which(command[0]) is None:
        return f"there is no command {command[0]!r}"
    return None


def onnxruntime_library() -> Path:
    """The file that holds onnxruntime's kernels."""
    package = Path(importlib.util.find_spec("onnxruntime").origin).parent
    return next((package / "capi").glob("onnxruntime_pybind11_state*.so"))


def build(library: Path, folder: Path) -> Path:
    """Compile `without_vnni.c` for one library: its name, and the addresses of its instructions `cpuid`.

    They are found by disassembling: the same two bytes also stand inside other instructions.
    """
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as disassembler:  # five million lines
        sites = [line.split(b":")[0].strip().decode() for line in disassembler.stdout if b"\tcpuid" in line]
    if disassembler.returncode:
        sys.exit(f"without_vnni: objdump cannot read {library.name}; nothing was run")
    built = folder / "without_vnni.so"
    names = [f'-DLIBRARY="{library.name}"', "-DSITES=" + ",".join(f"0x{site}" for site in sites)]
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", *names, str(SOURCE), "-o", str(built)], check=True)
    return built


def product(environment: dict[str, str]) -> int:
    """2 x 255 x 127 by onnxruntime's 8-bit kernels, in a fresh process."""
    command = [sys.executable, "-c", PRODUCT]
    return int(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    main()
