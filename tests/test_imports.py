"""The pure rooms cost no Flower and no Ray."""

import subprocess
import sys

PURE = ("flsec", "flsec.aggregation", "flsec.attacks", "flsec.reconstruction", "flsec.data", "flsec.models")
PURE += ("flsec.data.datasets", "flsec.data.partitioners")
PURE += ("flsec.metrics", "flsec.randomness", "flsec.parameters", "flsec.training")
SHOW = "print(sorted({name.partition('.')[0] for name in sys.modules} & {'flwr', 'ray'}))"


def imported_by(*modules):
    """Which of Flower and Ray are imported by all that the modules export; packages import lazily."""
    code = "\n".join(["import sys", *(f"from {module} import *" for module in modules), SHOW])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_pure_rooms_import_neither_flower_nor_ray():
    assert imported_by(*PURE) == "[]"


def test_flsec_alone_imports_no_torch():
    code = "import sys, flsec; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_question_has_another_answer_elsewhere():
    assert imported_by("flsec.strategies") == "['flwr']"
