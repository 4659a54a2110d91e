"""Models that embed each modality into one space."""

from mmpost.models.embedding.model import open_model as open_model, write_described as write_described
