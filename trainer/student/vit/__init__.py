"""Vision transformers with RADIO's additions: cropped positions, a class token per teacher, registers, windows."""
