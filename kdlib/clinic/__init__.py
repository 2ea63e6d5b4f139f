"""Real defects of public distillation code, each re-created in a few lines of our own, as found and mended.

losses, loops, schedules   the code, `..._as_found` beside `..._mended`
symptoms                   what is seen of each first
cases                      the sheets that a notebook shows
study                      a study with eight faults, for the capstone of lesson 10
"""

from kdlib.clinic.cases import Case, Sheet, case, cases

__all__ = ["Case", "Sheet", "case", "cases"]
