"""Any multimodal chat model of transformers."""
