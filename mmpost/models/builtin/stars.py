"""An embedding model of variable stars with three small encoders: light curves, spectra and catalog records."""

from __future__ import annotations

from pathlib import Path

from mmpost.models.embedding.model import write_model
from mmpost.models.embedding.spec import EmbeddingSpec

META = (
    *("mean_vmag", "phot_g_mean_mag", "e_phot_g_mean_mag", "phot_bp_mean_mag", "e_phot_bp_mean_mag"),
    *("phot_rp_mean_mag", "e_phot_rp_mean_mag", "bp_rp", "parallax", "parallax_error", "parallax_over_error"),
    *("pmra", "pmra_error", "pmdec", "pmdec_error", "j_mag", "e_j_mag", "h_mag", "e_h_mag", "k_mag", "e_k_mag"),
    *("w1_mag", "e_w1_mag", "w2_mag", "e_w2_mag", "w3_mag", "w4_mag", "j_k", "w1_w2", "w3_w4", "pm", "ruwe", "l", "b"),
)
"""The 34 numbers of AstroM3's metadata."""
PHOTO = ("amplitude", "period", "lksl_statistic", "rfr_score")
"""The 4 numbers that AstroM3 repeats at each step of a light curve."""


def stars_spec(small: bool) -> EmbeddingSpec:
    """AstroM3's encoders at their published sizes, or so small that 200 steps take about a minute on two cores."""
    # Few heads and no dropout: on a CPU they would cost as much as all matrix products of an encoder this small. Full
    # attention is cheap at 200 steps.
    curve = {"dim": 32, "layers": 2, "hidden": 64, "heads": 2} if small else {"attention": "sparse"}
    dropouts = (0.0, 0.0, 0.0) if small else (0.245, 0.339, 0.160)
    return EmbeddingSpec.model_validate(
        {
            "dim": 64 if small else 512,
            "encoders": {
                "light_curve": {
                    "name": "informer",
                    "constant": (3, 7),
                    "options": {"length": 200, "channels": PHOTO, "catalogue": True},
                    **curve,
                    "dropout": dropouts[0],
                },
                "spectrum": {
                    "name": "galspecnet",
                    "channels": (16, 16, 8, 8) if small else (64, 64, 32, 32),
                    "options": {"grid": (3850.0, 9000.0, 2.0)},
                    "dropout": dropouts[1],
                },
                "record": {
                    "name": "mlp",
                    "numbers": len(META),
                    "hidden": 128 if small else 512,
                    "options": {"names": META, "catalogue": True},
                    "dropout": dropouts[2],
                },
            },
        }
    )


def write_tiny_astro(folder: Path | str, seed: int = 0) -> None:
    """Write the small model with random weights into `folder`."""
    write_model(folder, stars_spec(small=True), seed)
