//! Each oracle is shown a planted violation, and something innocent beside it.
