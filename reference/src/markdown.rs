//! Plain text to Markdown with lines of at most 100 columns.

/// Longest line of a page.
const COLUMNS: usize = 100;

/// Renders text as paragraphs whose lines are indented by `indent` spaces. Blank lines separate
/// paragraphs, and lines that are indented by two spaces become code blocks.
pub fn prose(text: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut out = String::new();
    let mut paragraph = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let ends = lines
            .peek()
            .is_none_or(|next| is_code(next) || next.trim().is_empty());
        if is_code(line) {
            out += &format!("\n{margin}```sh\n{margin}{}\n", line.trim());
            while let Some(code) = lines.next_if(|next| is_code(next)) {
                out += &format!("{margin}{}\n", code.trim());
            }
            out += &format!("{margin}```\n");
        } else if !line.trim().is_empty() {
            paragraph += line.trim();
            paragraph.push(' ');
            if ends {
                out += &format!("\n{}", wrapped(&escaped(&paragraph), &margin, &margin));
                paragraph.clear();
            }
        }
    }
    out.trim_start_matches('\n').to_owned()
}

/// Renders text as a list item at a level of nesting, starting at 0. Paragraphs after the first are
/// part of the item.
pub fn item(text: &str, level: usize) -> String {
    let margin = "  ".repeat(level);
    let hanging = format!("{margin}  ");
    let (first, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut out = wrapped(&escaped(first), &format!("{margin}- "), &hanging);
    if !rest.is_empty() {
        out += &format!("\n{}", prose(rest, hanging.len()));
    }
    out
}

/// The text with a full stop at its end, unless it ends with punctuation. clap removes the last
/// full stop of a short help text.
pub fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.is_empty() || text.ends_with(['.', ':', '!', '?', '…']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

fn is_code(line: &str) -> bool {
    line.starts_with("  ") && !line.trim().is_empty()
}

/// Escapes characters that Markdown would interpret, and sets options (`--name`) as code. Text
/// between backticks stays as it is.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            out += &format!("`{part}`");
            continue;
        }
        for word in part.split_inclusive(char::is_whitespace) {
            let start = word
                .find("--")
                .filter(|&at| word[..at].chars().all(|c| c == '('));
            let option =
                start.map(|at| word[at..].trim_end_matches(|c: char| !c.is_alphanumeric()));
            match (start, option) {
                (Some(at), Some(option)) if !option.is_empty() => {
                    let end = at + option.len();
                    out += &format!("{}`{option}`{}", &word[..at], &word[end..]);
                }
                _ => out += &word.replace('<', "\\<").replace('*', "\\*"),
            }
        }
    }
    out
}

/// Breaks text between words, so that no line is longer than [`COLUMNS`].
pub(crate) fn wrapped(text: &str, first: &str, hanging: &str) -> String {
    let mut out = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let full = line.chars().count() + 1 + word.chars().count() > COLUMNS;
        if full && !is_empty && !begins_a_block(word) {
            out += &format!("{line}\n");
            line = hanging.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    out + &line + "\n"
}

/// Whether a line that starts with this word would be a list item, a heading or a quotation.
fn begins_a_block(word: &str) -> bool {
    let number = word.strip_suffix(['.', ')']).unwrap_or_default();
    matches!(word, "-" | "+" | "*" | "\\*")
        || word.starts_with(['#', '>', '='])
        || !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_outside_of_code() {
        assert_eq!(escaped("`<a>` <b> *.png"), "`<a>` \\<b> \\*.png");
        assert_eq!(
            escaped("(--trust KEY) or --out."),
            "(`--trust` KEY) or `--out`."
        );
        assert_eq!(escaped("a -- b"), "a -- b");
    }

    #[test]
    fn lines_are_wrapped_and_never_begin_a_list_by_accident() {
        let text = format!("{} - {}", "x".repeat(98), "y".repeat(20));
        let page = wrapped(&text, "- ", "  ");
        assert_eq!(
            page,
            format!("- {} -\n  {}\n", "x".repeat(98), "y".repeat(20))
        );
        assert_eq!(item("one\n\ntwo", 1), "  - one\n\n    two\n");
        assert!(begins_a_block("14.") && begins_a_block("#x") && !begins_a_block("14)."));
    }

    #[test]
    fn indented_lines_are_code() {
        let page = prose("Examples:\n  a --b\n  c", 0);
        assert_eq!(page, "Examples:\n\n```sh\na --b\nc\n```\n");
        assert_eq!(prose("one\n\ntwo", 2), "  one\n\n  two\n");
    }

    #[test]
    fn sentences_end_with_a_full_stop() {
        assert_eq!(sentence("Print JSON"), "Print JSON.");
        assert_eq!(sentence("Why?"), "Why?");
    }
}
