"""segmed: medical-image segmentation from scans to audited archives.

This file stays empty of imports on purpose: `segmed --help` must not load PyTorch. The public face
is in the modules: `segmed.models.build_model`, `segmed.plan.make_plan`, `segmed.training.fit`,
`segmed.inference.Predictor`, `segmed.metrics.evaluate_case`, `segmed.package.ModelPackage`,
`segmed.archive.segment_archive`.
"""

__version__ = "0.1.0"
