//! Cutting texts to the length that a message may carry.

use alloc::string::String;

use crate::limits::MAX_TEXT_BYTES;

/// Cuts a text to at most [`MAX_TEXT_BYTES`], between characters.
pub fn cut_text(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}
