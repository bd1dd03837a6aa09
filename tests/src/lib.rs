//! Tests over the built programs; see `tests/`.

#![forbid(unsafe_code)]
