//! Versions of packages that can be compared: numbers with points between them.

use std::fmt::{self, Display, Formatter};

/// A version such as 3 or 1.10. Missing numbers are zeros: 1 is 1.0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(Vec<u64>);

impl Version {
    /// Reads a version; `None` if it is anything but numbers with points between them.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed: Result<Vec<u64>, _> = text.split('.').map(str::parse).collect();
        let mut numbers = parsed.ok()?;
        // `parse` accepts a sign.
        if text.contains(['+', '-']) {
            return None;
        }
        while numbers.len() > 1 && numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(Self(numbers))
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("1.10") > version("1.9"));
        assert!(version("2") > version("1.99.3"));
        assert_eq!(version("1"), version("1.0.0"));
        assert!(version("0") < version("0.1"));
        assert_eq!(version("1.10").to_string(), "1.10");
        for text in [
            "",
            "1.",
            "v1",
            "1.0-rc1",
            "+1",
            "1.2.x",
            "99999999999999999999",
        ] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }
}
