"""`kdlib doctor`: it finds a sound installation sound, and names what is broken with its remedy."""

import sys
from types import ModuleType

from packaging.requirements import Requirement

from kdlib import cli
from kdlib.lesson import course, doctor


def test_doctor_finds_that_the_course_can_run_here(capsys):
    assert cli.main(["doctor"]) == 0, capsys.readouterr().out
    report = capsys.readouterr().out
    assert "The course can run here." in report and doctor.BROKEN not in report


def test_doctor_reports_what_is_broken_and_how_to_mend_it(monkeypatch, capsys):
    def damaged(subject):
        raise ValueError("the weights are damaged: train the teacher again")

    def absent(subject):
        raise ModuleNotFoundError("No module named 'anywidget'")

    monkeypatch.setattr(doctor, "_CHECKS", {"teacher": damaged, "jupyter": absent})
    assert cli.main(["doctor"]) == 1
    report = capsys.readouterr().out
    assert (
        "train the teacher again" in report and "make install" in report and "2 of 2 need mending" in report
    )


def test_doctor_compares_installed_versions_with_the_ranges():
    for requirement, verdict in {
        "pytest>=1": None,
        "pytest<1": "is outside <1",
        "no-such-package>=1": "no-such-package is missing",
        "no-such-package>=1; extra == 'dask'": None,
        "pytest<1; extra == 'test'": "is outside <1",
    }.items():
        found = doctor._disagreement(Requirement(requirement))
        assert (found is None) if verdict is None else (verdict in found), requirement


def test_on_colab_nothing_is_asked_of_its_own_jupyter(monkeypatch):
    lines = ["pytest>=1", 'pytest<1; extra == "lab"', 'pytest<1; extra == "all"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: lines)
    assert doctor._requirements("packages").state == doctor.BROKEN
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    assert doctor._requirements("packages").state == doctor.FINE
    looked_at = {name: lambda subject: doctor.Finding(subject, doctor.FINE, "") for name in doctor._CHECKS}
    monkeypatch.setattr(doctor, "_CHECKS", looked_at)
    left_out = {*doctor._CHECKS} - {finding.subject for finding in doctor.examine()}
    assert left_out == {"jupyter", "kernel", "chromium", "node"}
    lines.append("pytest<1; extra == 'colab'")
    finding = doctor._requirements("packages")
    assert finding.state == doctor.BROKEN and finding.remedy == "pip install 'kdlib[colab,deploy]'"


def test_with_an_installed_kdlib_the_doctor_looks_at_its_lessons_and_names_its_remedy(monkeypatch, tmp_path):
    assert "make install" in doctor._install()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_start_here.ipynb").touch()
    monkeypatch.setattr(course, "packaged", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert doctor._install() == "pip install 'kdlib[lab,deploy]'"
    assert doctor._notebooks("notebooks").detail == f"1 lessons in {tmp_path / 'notebooks'}"


def test_a_brief_report_says_nothing_of_this_machine_but_what_is_broken():
    findings = [
        doctor.Finding("python", doctor.FINE, "3.11 at /somewhere"),
        doctor.Finding("node", doctor.OPTIONAL, "not found in /somewhere", "install node"),
        doctor.Finding("teacher", doctor.BROKEN, "the weights are damaged", "train it again"),
    ]
    brief = doctor.report(findings, details=False)
    assert "/somewhere" not in brief and "/somewhere" in doctor.report(findings)
    assert "python" in brief and "the weights are damaged" in brief and "1 of 3 need mending" in brief
    assert "-> install node" in brief and "-> train it again" in brief
