"""`kdlib doctor`: it finds a sound installation sound, and names what is broken with its remedy."""

from packaging.requirements import Requirement

from kdlib import cli
from kdlib.lesson import doctor


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
