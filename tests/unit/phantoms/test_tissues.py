import numpy as np

from appliance.phantoms.tissues import ROI_STRUCTURES, Structure, Tissue, draw_tissue_table


def test_every_tissue_has_a_ct_number_and_air_is_air() -> None:
    table = draw_tissue_table(np.random.default_rng(0))
    assert table.mean_hu.shape == table.texture_hu.shape == (len(Tissue),)
    assert np.flatnonzero(table.mean_hu == -1000).tolist() == [Tissue.AIR]


def test_bones_differ_in_density_within_one_scan_and_between_scans() -> None:
    tables = [draw_tissue_table(np.random.default_rng(seed)).mean_hu for seed in range(20)]
    ratio = [float(hu[Tissue.SACRUM_MARROW] / hu[Tissue.HIP_MARROW]) for hu in tables]
    assert min(ratio) < 0.4
    assert max(ratio) > 0.6


def test_the_external_contour_holds_everything_but_the_outside() -> None:
    assert set(ROI_STRUCTURES["External"]) == set(Structure) - {Structure.OUTSIDE}
