"""Opening, decoding, hashing and previewing images, videos, audio and other media."""
