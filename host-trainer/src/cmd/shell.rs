//! Text for shells and pipes.

use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Quotes a word for a POSIX shell, if it needs quoting.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Quotes a path. One that is not UTF-8 is written in the way of Bash, ksh and zsh.
pub(crate) fn quoted_path(path: &Path) -> String {
    let Some(text) = path.to_str() else {
        let bytes = path.as_os_str().as_bytes().iter();
        let escaped = bytes.map(|byte| match byte {
            b'\\' | b'\'' => format!("\\{}", char::from(*byte)),
            b' '..=b'~' => char::from(*byte).to_string(),
            other => format!("\\x{other:02x}"),
        });
        return format!("$'{}'", escaped.collect::<String>());
    };
    quoted(text)
}

/// Says something in passing. With `--json` it is not among the output.
pub(crate) fn say(json: bool, text: &str) {
    if json {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}

/// Prints lines. A reader that has read enough (`| head`) ends the program without an error.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_quoted_path_is_the_path_to_a_shell() {
        for bytes in [
            &b"plain/a.png"[..],
            b"a b'c",
            b"l\xf6t/\xff'\\n x",
            "löt".as_bytes(),
        ] {
            let quoted = quoted_path(Path::new(OsStr::from_bytes(bytes)));
            let command = format!("printf %s {quoted}");
            let Ok(shell) = std::process::Command::new("bash")
                .args(["-c", &command])
                .output()
            else {
                return; // No Bash here.
            };
            assert_eq!(shell.stdout, bytes, "{quoted}");
        }
    }
}
