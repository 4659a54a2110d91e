"""Lazy media: images, video and audio, their modalities, limits, codecs and caches."""
