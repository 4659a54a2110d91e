"""mmpost: one post-training loop for multimodal models; encoders, rewards, objectives, selection and updates plug in."""

__version__ = "0.1.0"
