"""OpenFace's tables."""
import pytest
import torch

from s3dnerf.errors import InputError
from s3dnerf.evaluation.action_units import LOWER, UNITS, UPPER, read_units, unit_figures


def table(path, values, success=None):
    """As FeatureExtraction writes it: blanks after commas, columns that do not matter."""
    names = ["frame", "success", *(f"AU{unit:02d}_r" for unit in sorted(UNITS)), "AU28_c"]
    order = [UNITS.index(unit) for unit in sorted(UNITS)]
    lines = [", ".join(names)]
    for index, row in enumerate(values.tolist()):
        lines.append(", ".join(str(x) for x in [index + 1, 1 if success is None else success[index], *(row[i] for i in order), 0]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_units_are_those_of_talking_gaussian_and_frames_need_a_face_in_both(tmp_path):
    assert sorted(UNITS) == [1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45] and not set(LOWER) & set(UPPER)
    a, b = torch.rand(6, 17), torch.rand(7, 17)
    made = table(tmp_path / "a.csv", a, [1, 1, 0, 1, 1, 1])
    true = table(tmp_path / "b.csv", b, [1, 0, 1, 1, 1, 1, 1])
    assert torch.allclose(read_units(made)[0], a)
    kept = [0, 3, 4, 5]
    error = ((a[kept] - b[kept]) ** 2).mean(0)
    found = unit_figures(made, true)
    assert found["aue"] == pytest.approx(error.sum().item(), rel=1e-4)
    assert found["aue_lower"] == pytest.approx(error[:9].sum().item(), rel=1e-4)
    assert found["aue_upper"] + found["aue_lower"] == pytest.approx(found["aue"], rel=1e-4)
    assert unit_figures(made, made)["aue"] == 0 and unit_figures(table(tmp_path / "c.csv", a, [0] * 6), true) == {}


def test_other_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="no table of OpenFace"):
        read_units(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("frame, AU10_r\n1, 2\n")
    with pytest.raises(InputError, match="AU12_r"):
        read_units(tmp_path / "a.csv")
    broken = table(tmp_path / "b.csv", torch.rand(2, 17))
    broken.write_text(broken.read_text().replace(", 0\n", ", 0\n1, 1, x\n", 1))
    with pytest.raises(InputError, match="no number"):
        read_units(broken)
