//! Names that come over a link: of files, stations and cameras.
//!
//! In: a text that a peer sent. Out: a type whose texts are safe to use as a name. Messages carry
//! plain texts; both sides check a name where they receive it, before it becomes part of a path, is
//! stored or is printed.

use alloc::string::String;

use crate::limits::{MAX_FILE_NAME_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES};

/// Begins the names of stations on a serial line. They have no key, so they choose their names
/// themselves; no station with a key has a name that begins in this way.
pub const SERIAL_PREFIX: &str = "serial:";

/// Why a text is not accepted as a name. It does not contain the text, so it is safe to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    /// The name is empty or too long.
    Length {
        /// Its length in bytes.
        found_bytes: usize,
        /// Greatest length in bytes.
        max_bytes: usize,
    },
    /// The name holds a character that a terminal takes for a command, that changes the direction
    /// of text, that cannot be seen, or that separates folders in a path.
    Character(char),
    /// The file name begins with a dot, so it is hidden or leads to another folder.
    Dot,
    /// The name begins or ends with white space.
    Space,
    /// The name begins with [`SERIAL_PREFIX`].
    Reserved,
}

impl core::fmt::Display for InvalidName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length {
                found_bytes,
                max_bytes,
            } => write!(
                f,
                "expected a name of 1 to {max_bytes} bytes, found {found_bytes} bytes"
            ),
            Self::Character(found) => write!(
                f,
                "expected a name of visible characters, found {}",
                found.escape_unicode()
            ),
            Self::Dot => {
                f.write_str("expected a plain file name, found one that begins with a dot")
            }
            Self::Space => f.write_str("expected a name without white space at its ends"),
            Self::Reserved => write!(
                f,
                "expected a name that does not begin with `{SERIAL_PREFIX}`, which is for serial \
                 lines: choose another"
            ),
        }
    }
}

impl core::error::Error for InvalidName {}

/// Whether a character may be shown: it is no control character, does not change the direction of
/// the text around it, and can be seen or is a space.
pub fn is_displayable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}' // soft hyphen
                | '\u{61c}' // mark of Arabic letters
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}' // zero width, direction
                | '\u{2028}'..='\u{202e}' // line separators, embedded directions
                | '\u{2060}'..='\u{206f}' // invisible operators, isolated directions
                | '\u{feff}' // byte order mark
                | '\u{fff9}'..='\u{fffb}' // annotations
                | '\u{e0000}'..='\u{e007f}' // tags
        )
}

/// Replaces every character of a text that [`is_displayable`] refuses, so that it can be printed
/// whoever wrote it.
pub fn displayable(text: &str) -> String {
    text.chars()
        .map(|character| match is_displayable(character) {
            true => character,
            false => '·',
        })
        .collect()
}

/// Checks length and characters.
fn check(text: &str, max_bytes: usize) -> Result<(), InvalidName> {
    if !(1..=max_bytes).contains(&text.len()) {
        return Err(InvalidName::Length {
            found_bytes: text.len(),
            max_bytes,
        });
    }
    match text.chars().find(|character| !is_displayable(*character)) {
        Some(found) => Err(InvalidName::Character(found)),
        None => Ok(()),
    }
}

/// Checks what names of stations and cameras have in common.
fn check_party(text: &str, max_bytes: usize) -> Result<(), InvalidName> {
    check(text, max_bytes)?;
    if text.trim() != text {
        return Err(InvalidName::Space);
    }
    if text.starts_with(SERIAL_PREFIX) {
        return Err(InvalidName::Reserved);
    }
    Ok(())
}

/// Checks the name of a file.
fn check_file(text: &str) -> Result<(), InvalidName> {
    check(text, MAX_FILE_NAME_BYTES)?;
    let separator = |character: &char| matches!(character, '/' | '\\');
    if let Some(found) = text.chars().find(separator) {
        return Err(InvalidName::Character(found));
    }
    if text.starts_with('.') {
        return Err(InvalidName::Dot);
    }
    Ok(())
}

/// Defines a type for the texts that pass a check.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $text:ident => $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks a name.
            pub fn new($text: &str) -> Result<Self, InvalidName> {
                $check?;
                Ok(Self($text.into()))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name! {
    /// The name of a file directly inside a folder: joined to a folder's path, it names nothing
    /// outside this folder.
    FileName, text => check_file(text)
}

name! {
    /// The name of a station on a camera.
    StationName, text => check_party(text, MAX_NAME_BYTES)
}

name! {
    /// The name of a camera.
    CameraName, text => check_party(text, MAX_TEXT_BYTES)
}

impl StationName {
    /// The name of a station that has no better one.
    pub fn fallback() -> Self {
        Self("station".into())
    }

    /// The name under which a camera knows a station on a serial line that calls itself so.
    pub fn on_serial_line(&self) -> String {
        [SERIAL_PREFIX, &self.0].concat()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::path::{Component, Path};
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_cameras_give_to_files_are_accepted() {
        let names = [
            "00000000000000000047-NG.map.tiff",
            "Teil 4, links.awrec",
            "a..b",
            "-",
        ];
        for name in names {
            assert_eq!(FileName::new(name).map(String::from).as_deref(), Ok(name));
        }
    }

    #[test]
    fn a_name_that_leads_out_of_its_folder_is_not_one_of_a_file() {
        for name in [
            "..",
            ".",
            "../a",
            "/etc/passwd",
            "a/b",
            "a\\b",
            ".bashrc",
            ".ssh/id",
        ] {
            assert!(FileName::new(name).is_err(), "{name}");
        }
        for name in ["", &"x".repeat(MAX_FILE_NAME_BYTES + 1)] {
            let refused = FileName::new(name);
            assert!(matches!(refused, Err(InvalidName::Length { .. })));
        }
    }

    #[test]
    fn no_name_holds_terminal_commands_or_invisible_characters() {
        for bad in [
            "\x1b[2J", "\n", "\r", "\0", "\u{7f}", "\u{9b}", "\u{202e}", "\u{200b}", "\u{2066}",
        ] {
            let name = ["a", bad, "b"].concat();
            let found = InvalidName::Character(bad.chars().next().unwrap());
            assert_eq!(FileName::new(&name), Err(found));
            assert_eq!(StationName::new(&name), Err(found));
            assert_eq!(CameraName::new(&name), Err(found));
            assert!(found.to_string().chars().all(is_displayable), "{found}");
            assert!(displayable(&name).chars().all(is_displayable));
        }
        assert_eq!(displayable("Büro, Linie 3"), "Büro, Linie 3");
    }

    #[test]
    fn a_station_on_a_serial_line_has_a_name_that_no_other_can_have() {
        let name = StationName::new("office").unwrap().on_serial_line();
        assert_eq!(name, "serial:office");
        assert_eq!(StationName::new(&name), Err(InvalidName::Reserved));
        for name in ["line 3, left", "Büro"] {
            assert!(StationName::new(name).is_ok());
        }
        assert_eq!(StationName::new(" a"), Err(InvalidName::Space));
        assert!(StationName::new(&"x".repeat(65)).is_err());
        let fallback = StationName::fallback();
        assert_eq!(StationName::new(fallback.as_str()), Ok(fallback));
    }

    proptest! {
        /// Mostly pieces of paths, so that many cases come close to leading out of the folder.
        #[test]
        fn a_file_name_stays_inside_its_folder(text in r"([./\\a~: \x00\n]|\.\./|\PC){0,12}") {
            if let Ok(name) = FileName::new(&text) {
                let path = Path::new("/out").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(Path::new("/out")));
                let last = path.components().next_back();
                prop_assert_eq!(last, Some(Component::Normal(name.as_str().as_ref())));
            }
        }
    }
}
