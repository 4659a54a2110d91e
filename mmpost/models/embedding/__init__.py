"""Models that embed each modality into one space."""

from mmpost.models.embedding.model import open_model as open_model, write_from_spec as write_from_spec
