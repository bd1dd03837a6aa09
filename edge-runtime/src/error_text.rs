//! Errors as text, for logs, events and answers.

use proto::message::cut_text;

/// An error and its causes on one line, shortened to what a message can carry.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    cut_text(&text.replace('\n', " "))
}
