"""Computing each prompt once for all of its replies, in training and in decoding."""
