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
/// Wrong codes after which a code is withdrawn. Guessing is hopeless with 60 bits however many are
/// allowed, so this only needs to end what is no mistake; a small number would let anybody on the
/// network withdraw a code.
const TRIES: u32 = 50;
/// First word of the ticket's file: its format.
const FORMAT: &str = "awr-pairing-v2";
/// Where the kernel shows the id of the machine's present start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

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

/// A moment on a clock that nobody can set and that runs while the machine sleeps. It counts from
/// the machine's start, so moments of different starts cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The id that the kernel gives to each start of the machine.
    boot: String,
    since_boot_s: u64,
}

impl Moment {
    /// The present moment.
    pub fn now() -> io::Result<Self> {
        let boot = std::fs::read_to_string(BOOT_ID)
            .map_err(|error| io::Error::new(error.kind(), format!("{BOOT_ID}: {error}")))?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Ok(Self::at(
            boot.trim(),
            u64::try_from(now.tv_sec).unwrap_or(0),
        ))
    }

    /// A moment by the id of the machine's start and the seconds since then.
    pub fn at(boot: &str, since_boot_s: u64) -> Self {
        Self {
            boot: boot.to_owned(),
            since_boot_s,
        }
    }
}

/// What a camera stores of a code that it issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The pre-shared key derived from the code.
    pub key: [u8; 32],
    /// The role of the station that pairs.
    pub role: Role,
    /// Wrong codes that are still allowed.
    pub tries_left: u32,
    /// From then on the ticket is invalid, and after a restart of the machine.
    expires: Moment,
}

/// The file that holds a camera's ticket. The program that issues a code writes it, and the camera's
/// program reads it. Changes are made under a lock that holds across programs.
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
    pub fn issue(&self, code: &Code, role: Role, now: &Moment, valid: Duration) -> io::Result<()> {
        let _changing = file::lock(&self.path)?;
        self.write(&Ticket {
            key: code.key(),
            role,
            tries_left: TRIES,
            expires: Moment::at(&now.boot, now.since_boot_s + valid.as_secs()),
        })
    }

    fn write(&self, ticket: &Ticket) -> io::Result<()> {
        let text = format!(
            "{FORMAT} {} {} {} {} {}\n",
            hex(&ticket.key),
            ticket.role,
            ticket.expires.boot,
            ticket.expires.since_boot_s,
            ticket.tries_left
        );
        file::write(&self.path, text.as_bytes(), file::PRIVATE)
    }

    /// Returns the ticket in force.
    pub fn current(&self, now: &Moment) -> io::Result<Option<Ticket>> {
        let ticket = file::read(&self.path)?.as_deref().and_then(parse);
        Ok(ticket.filter(|ticket| {
            ticket.expires.boot == now.boot
                && now.since_boot_s < ticket.expires.since_boot_s
                && ticket.tries_left > 0
        }))
    }

    /// Counts a wrong code against the ticket with this key, and returns how many more it allows;
    /// `None` if it is no longer in force. A ticket that allows none is removed.
    pub fn count_wrong(&self, key: &[u8; 32], now: &Moment) -> io::Result<Option<u32>> {
        let _changing = file::lock(&self.path)?;
        let Some(ticket) = self.current(now)?.filter(|ticket| ticket.key == *key) else {
            return Ok(None);
        };
        let tries_left = ticket.tries_left - 1;
        if tries_left == 0 {
            self.clear()?;
        } else {
            self.write(&Ticket {
                tries_left,
                ..ticket
            })?;
        }
        Ok(Some(tries_left))
    }

    /// Takes the ticket with this key, so that nobody can use its code again, and calls `admit` with
    /// its role. If `admit` fails, the ticket stays in force. Returns `None` without calling `admit`
    /// if the ticket is no longer in force: somebody else has used the code, or another was issued.
    pub fn redeem<T, E>(
        &self,
        key: &[u8; 32],
        now: &Moment,
        admit: impl FnOnce(Role) -> Result<T, E>,
    ) -> io::Result<Option<Result<T, E>>> {
        let _changing = file::lock(&self.path)?;
        let Some(ticket) = self.current(now)?.filter(|ticket| ticket.key == *key) else {
            return Ok(None);
        };
        self.clear()?;
        let admitted = admit(ticket.role);
        if admitted.is_err() {
            self.write(&ticket)?;
        }
        Ok(Some(admitted))
    }

    /// Removes the ticket.
    fn clear(&self) -> io::Result<()> {
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
        expires: Moment::at(words.next()?, words.next()?.parse().ok()?),
        tries_left: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

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

    /// A moment of the first start of a machine.
    fn at(since_boot_s: u64) -> Moment {
        Moment::at("first", since_boot_s)
    }

    const VALID: Duration = Duration::from_secs(600);

    #[test]
    fn a_ticket_expires_by_a_clock_that_nobody_sets() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let tickets = Tickets::at(&folder.path().join("pairing"));
        let code = Code::from_random([7; LENGTH]);
        assert_eq!(tickets.current(&at(0))?, None);
        tickets.issue(&code, Role::Operate, &at(1_000), VALID)?;
        let ticket = tickets.current(&at(1_599))?;
        let found = ticket.map(|ticket| (ticket.key, ticket.role));
        assert_eq!(found, Some((code.key(), Role::Operate)));
        assert_eq!(tickets.current(&at(1_600))?, None, "too late");
        // A clock that starts again would otherwise give the code up to ten more minutes.
        assert_eq!(tickets.current(&Moment::at("second", 1_001))?, None);
        std::fs::write(folder.path().join("pairing"), "rubbish")?;
        assert_eq!(tickets.current(&at(1_001))?, None);
        let now = Moment::now()?;
        assert_eq!(now.boot, Moment::now()?.boot);
        Ok(())
    }

    #[test]
    fn wrong_codes_are_counted_and_the_last_withdraws_the_code() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let tickets = Tickets::at(&folder.path().join("pairing"));
        let (code, other) = (
            Code::from_random([7; LENGTH]),
            Code::from_random([8; LENGTH]),
        );
        tickets.issue(&code, Role::Operate, &at(0), VALID)?;
        for left in (0..TRIES).rev() {
            assert!(tickets.current(&at(1))?.is_some());
            assert_eq!(tickets.count_wrong(&code.key(), &at(1))?, Some(left));
        }
        assert_eq!(tickets.current(&at(1))?, None);
        assert_eq!(tickets.count_wrong(&code.key(), &at(1))?, None);
        // A handshake that began with an earlier code does not count against the present one.
        tickets.issue(&other, Role::Operate, &at(0), VALID)?;
        assert_eq!(tickets.count_wrong(&code.key(), &at(1))?, None);
        let left = tickets.current(&at(1))?.map(|ticket| ticket.tries_left);
        assert_eq!(left, Some(TRIES));
        Ok(())
    }

    #[test]
    fn a_code_is_redeemed_once_however_many_try_at_the_same_moment() -> io::Result<()> {
        const ROUNDS: u32 = 50;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("pairing");
        let code = Code::from_random([7; LENGTH]);
        let admitted = AtomicU32::new(0);
        for _ in 0..ROUNDS {
            Tickets::at(&path).issue(&code, Role::Watch, &at(0), VALID)?;
            let together = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        together.wait();
                        let redeemed = Tickets::at(&path).redeem(&code.key(), &at(1), |role| {
                            assert_eq!(role, Role::Watch);
                            admitted.fetch_add(1, Ordering::Relaxed);
                            Ok::<_, ()>(())
                        });
                        redeemed.unwrap();
                    });
                }
            });
            assert_eq!(Tickets::at(&path).current(&at(1))?, None);
        }
        assert_eq!(admitted.into_inner(), ROUNDS);
        Ok(())
    }

    #[test]
    fn a_code_whose_station_cannot_be_admitted_stays_in_force() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let tickets = Tickets::at(&folder.path().join("pairing"));
        let code = Code::from_random([7; LENGTH]);
        tickets.issue(&code, Role::Watch, &at(0), VALID)?;
        let refused = tickets.redeem(&code.key(), &at(1), |_| Err::<(), _>("the name is taken"))?;
        assert_eq!(refused, Some(Err("the name is taken")));
        assert!(tickets.current(&at(1))?.is_some());
        let late = tickets.redeem(&code.key(), &at(600), |_| Ok::<_, ()>(()))?;
        assert_eq!(late, None);
        Ok(())
    }
}
