//! "Did you mean …?" for misspelt keys and values.

/// Replaces a message such as "unknown field `x`, expected one of `a`, `b`" by a suggestion of the
/// nearest name, if one is near enough.
pub(super) fn with_suggestion(message: &str) -> String {
    let message = message.replace('\n', " ");
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let ([name, known @ ..], true) = (&names[..], unknown) else {
        return message;
    };
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 3);
    match nearest {
        Some((_, known)) => {
            let kind = if message.contains("field") {
                "key"
            } else {
                "value"
            };
            format!("unknown {kind} `{name}`: did you mean `{known}`?")
        }
        None => message,
    }
}
