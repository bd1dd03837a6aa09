//! One-time pairing codes. A station that knows the code shown by the camera may enter its key into
//! the camera's access list, once.
//!
//! A code has 60 random bits, because an attacker between the two can try codes against a recorded
//! handshake offline: a code of a few digits would be found at once. The code becomes the
//! pre-shared key of Noise XXpsk3: a camera refuses a handshake without it, and a station that
//! finishes one cannot exchange records with a camera that does not know it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::message::Role;
use sha2::{Digest, Sha256};

use crate::file;
use crate::key::{from_hex, hex};

/// Crockford's base 32, which omits the letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Number of digits in a code.
const LENGTH: usize = 12;
/// Number of pairing attempts that a code allows.
const TRIES: u32 = 5;
/// First word of the ticket's file: its format.
const FORMAT: &str = "awr-pairing-v1";

/// A pairing code, written as three groups of four.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; LENGTH]);

/// A text that is not a pairing code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a pairing code of {LENGTH} letters and digits like K7QF-2M9X-TBHE")]
pub struct InvalidCode;

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code")
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let groups: Vec<String> = self
            .0
            .chunks(4)
            .map(|group| group.iter().map(|&digit| char::from(digit)).collect())
            .collect();
        f.write_str(&groups.join("-"))
    }
}

impl std::str::FromStr for Code {
    type Err = InvalidCode;

    /// Accepts lower case, spaces and dashes, and the letters O, I and L as digits.
    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        let digits = text
            .bytes()
            .filter(|byte| !matches!(byte, b'-' | b' '))
            .map(|byte| match byte.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                other => other,
            });
        let digits: Vec<u8> = digits.collect();
        let code: [u8; LENGTH] = digits.try_into().map_err(|_| InvalidCode)?;
        if code.iter().all(|digit| DIGITS.contains(digit)) {
            Ok(Self(code))
        } else {
            Err(InvalidCode)
        }
    }
}

impl Code {
    /// Makes a code of 12 random bytes.
    pub fn from_random(bytes: [u8; LENGTH]) -> Self {
        // 256 is a multiple of 32, so every digit is equally likely.
        Self(bytes.map(|byte| DIGITS[usize::from(byte % 32)]))
    }

    /// Returns the pre-shared key derived from the code.
    pub fn key(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(b"awr pairing v1 ")
            .chain_update(self.0)
            .finalize()
            .into()
    }
}

/// What a camera stores of a code that it issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The pre-shared key derived from the code.
    pub key: [u8; 32],
    /// The role of the station that pairs.
    pub role: Role,
    /// Time from which the ticket is invalid, in seconds since 1970-01-01 UTC.
    pub expires_unix_s: u64,
    tries_left: u32,
}

/// The file that holds a camera's ticket. The program that issues a code writes it, and the camera's
/// program reads it.
#[derive(Debug, Clone)]
pub struct Tickets {
    path: PathBuf,
}

impl Tickets {
    /// Uses the ticket in a file.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Issues a code. A code issued before becomes invalid.
    pub fn issue(
        &self,
        code: &Code,
        role: Role,
        now_unix_s: u64,
        valid: Duration,
    ) -> io::Result<()> {
        self.write(&Ticket {
            key: code.key(),
            role,
            expires_unix_s: now_unix_s + valid.as_secs(),
            tries_left: TRIES,
        })
    }

    fn write(&self, ticket: &Ticket) -> io::Result<()> {
        let text = format!(
            "{FORMAT} {} {} {} {}\n",
            hex(&ticket.key),
            ticket.role,
            ticket.expires_unix_s,
            ticket.tries_left
        );
        file::write(&self.path, text.as_bytes(), 0o600)
    }

    /// Returns the ticket in force and counts one try on disk first, so that a failed attempt counts
    /// even if the power fails.
    pub fn take_try(&self, now_unix_s: u64) -> io::Result<Option<Ticket>> {
        let Some(ticket) = file::read(&self.path)?.as_deref().and_then(parse) else {
            return Ok(None);
        };
        if now_unix_s >= ticket.expires_unix_s || ticket.tries_left == 0 {
            self.clear()?;
            return Ok(None);
        }
        self.write(&Ticket {
            tries_left: ticket.tries_left - 1,
            ..ticket.clone()
        })?;
        Ok(Some(ticket))
    }

    /// Removes the ticket after its code was used.
    pub fn clear(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn parse(text: &str) -> Option<Ticket> {
    let mut words = text.split_whitespace();
    if words.next()? != FORMAT {
        return None;
    }
    Some(Ticket {
        key: from_hex(words.next()?)?,
        role: words.next()?.parse().ok()?,
        expires_unix_s: words.next()?.parse().ok()?,
        tries_left: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_accepted_in_any_usual_spelling() {
        let code = Code::from_random(std::array::from_fn(|index| index as u8 * 21));
        let shown = code.to_string();
        assert_eq!(shown.len(), LENGTH + 2);
        assert_eq!(shown.parse(), Ok(code.clone()));
        assert_eq!(shown.to_lowercase().replace('-', " ").parse(), Ok(code));
        let typed: Result<Code, _> = "oiL0-1234-5678".parse();
        assert_eq!(
            typed.map(|code| code.to_string()),
            Ok("0110-1234-5678".to_owned())
        );
        for wrong in ["", "1234-5678-90A", "1234-5678-90AB-C", "1234-5678-90U!"] {
            assert_eq!(wrong.parse::<Code>(), Err(InvalidCode), "{wrong}");
        }
    }

    #[test]
    fn a_ticket_expires_and_allows_a_limited_number_of_tries() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let tickets = Tickets::at(&folder.path().join("pairing"));
        let code = Code::from_random([7; LENGTH]);
        assert_eq!(tickets.take_try(0)?, None);
        tickets.issue(&code, Role::Operate, 1_000, Duration::from_secs(600))?;
        for _ in 0..TRIES {
            let ticket = tickets.take_try(1_599)?;
            let found = ticket.map(|ticket| (ticket.key, ticket.role));
            assert_eq!(found, Some((code.key(), Role::Operate)));
        }
        assert_eq!(tickets.take_try(1_001)?, None, "used up");
        tickets.issue(&code, Role::Watch, 1_000, Duration::from_secs(600))?;
        assert_eq!(tickets.take_try(1_600)?, None, "too late");
        assert_eq!(
            tickets.take_try(1_001)?,
            None,
            "an expired ticket is removed"
        );
        tickets.issue(&code, Role::Watch, 1_000, Duration::from_secs(600))?;
        tickets.clear()?;
        assert_eq!(tickets.take_try(1_001)?, None);
        std::fs::write(folder.path().join("pairing"), "rubbish")?;
        assert_eq!(tickets.take_try(1_001)?, None);
        Ok(())
    }
}
