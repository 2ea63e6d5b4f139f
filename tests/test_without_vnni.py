"""The tool that takes VNNI away: onnxruntime cuts sums off as on a processor with AVX2 alone, in every process."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import without_vnni

TOOL = Path(without_vnni.__file__)

# A process and one that it starts print the product of two matrices, and numpy's, with the sums of two cut off. Then
# a trap that has nothing to do with the tool, and the tool inside of itself.
COMMAND = f"""
import faulthandler, os, signal, subprocess, sys, threading
faulthandler.enable(all_threads=True)
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper

random = np.random.default_rng(0)
left = random.integers(0, 256, (7, 64), dtype=np.uint8)
right = random.integers(-128, 128, (64, 48), dtype=np.int8)
terms = left.astype(int)[:, :, None] * right.astype(int)
cut_off = terms.reshape(7, 32, 2, 48).sum(2).clip(-(2**15), 2**15 - 1).sum(1)

kinds = {{"left": (TensorProto.UINT8, left.shape), "right": (TensorProto.INT8, right.shape)}}
inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
output = helper.make_tensor_value_info("product", TensorProto.INT32, (7, 48))
graph = helper.make_graph([helper.make_node("MatMulInteger", list(kinds), ["product"])], "g", inputs, [output])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

def multiply():
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {{"left": left, "right": right}})[0]
    print("exact" if (found == terms.sum(1)).all() else "cut off" if (found == cut_off).all() else found)

thread = threading.Thread(target=multiply)
thread.start()
thread.join()
sys.stdout.flush()
if sys.argv[1:] == ["child"]:
    os.kill(os.getpid(), signal.SIGTRAP)
child = subprocess.run([sys.executable, __file__, "child"])
print("trapped" if child.returncode == -signal.SIGTRAP else child, flush=True)
inner = subprocess.run([sys.executable, {str(TOOL)!r}, sys.executable], capture_output=True, text=True)
print(inner.stderr.strip(), flush=True)
sys.exit(3)
"""


def obstacle() -> str | None:
    """Why the tool cannot work on this machine: what it has to say then."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "works on Linux on x86-64 alone"
    for program in ("gcc", "objdump"):
        if shutil.which(program) is None:
            return f"needs {program}"
    return None if "_vnni" in Path("/proc/cpuinfo").read_text() else "has no VNNI"


def test_without_vnni_sums_are_cut_off_in_every_process_and_the_tool_says_so_where_it_cannot_work(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    ran = subprocess.run(
        [sys.executable, TOOL, sys.executable, script], capture_output=True, text=True, cwd=tmp_path
    )
    if obstacle():
        assert ran.returncode == 1 and obstacle() in ran.stderr and ran.stdout == ""
        return
    assert ran.returncode == 3, ran.stderr
    assert ran.stderr.endswith("64770 as it is, 32767 now\n")
    assert ran.stdout.splitlines() == [
        "cut off",
        "cut off",
        "trapped",
        "without_vnni: this processor has no VNNI; run the command as it is",
    ]
    alone = subprocess.run([sys.executable, script, "child"], capture_output=True, text=True)
    assert alone.stdout == "exact\n"


def test_what_the_tool_lacks_is_said_in_a_sentence(monkeypatch, tmp_path):
    assert without_vnni.missing([]) == "name the command to run: tools/without_vnni.py COMMAND ..."
    for system, machine in (("Linux", "aarch64"), ("Darwin", "x86_64"), ("Windows", "AMD64")):
        monkeypatch.setattr(platform, "system", lambda system=system: system)
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        assert f"this is {system} on {machine}" in without_vnni.missing(["python"])
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    for program, lacking in (
        ("gcc", "needs gcc"),
        ("objdump", "needs objdump; Debian has it in the package binutils"),
    ):
        assert lacking in without_vnni.missing([sys.executable])
        (tmp_path / program).touch(mode=0o755)
    assert without_vnni.missing(["no-such-command"]) == "there is no command 'no-such-command'"
    assert without_vnni.missing([sys.executable]) is None
