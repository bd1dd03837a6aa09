//! Text files as people's programs save them, and paths as text.

use std::path::Path;

/// Decodes a text: UTF-8 with or without a byte order mark, or UTF-16 with one, as Windows'
/// programs write it. `None` if it is neither.
pub fn decode(bytes: &[u8]) -> Option<String> {
    let units = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).ok()
    };
    if let Some(text) = bytes.strip_prefix(&[0xff, 0xfe]) {
        return units(text, u16::from_le_bytes);
    }
    if let Some(text) = bytes.strip_prefix(&[0xfe, 0xff]) {
        return units(text, u16::from_be_bytes);
    }
    let text = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// A path as text. Other than `Path::display`, it is different for different paths: one that is not
/// UTF-8 is quoted, with its other bytes as `\xNN`.
pub fn path_text(path: &Path) -> String {
    match path.to_str() {
        Some(text) => text.to_owned(),
        None => format!("{path:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_text_is_decoded_whoever_saved_it() {
        let text = "ä,№\r\n";
        let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit);
        let little = [0xff, 0xfe].into_iter().chain(utf16(u16::to_le_bytes));
        let big = [0xfe, 0xff].into_iter().chain(utf16(u16::to_be_bytes));
        let marked = [b"\xef\xbb\xbf", text.as_bytes()].concat();
        for bytes in [text.into(), marked, little.collect(), big.collect()] {
            assert_eq!(decode(&bytes).as_deref(), Some(text), "{bytes:?}");
        }
        for bytes in [&b"\xe4.png"[..], b"\xff\xfea", b"\xff\xfe\x00\xd8"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn different_paths_have_different_texts() {
        let text = |bytes| path_text(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(text("löt/a b.png".as_bytes()), "löt/a b.png");
        assert_eq!(text(b"l\xf6t"), r#""l\xF6t""#);
        assert_ne!(text(b"l\xf6t"), text(b"l\xf5t"));
    }
}
