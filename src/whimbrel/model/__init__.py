"""The nouns: what theory predicts and practice does, in frozen dataclasses."""
