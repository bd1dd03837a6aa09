//! Access control for TCP: handshake, access list, pairing, and a rate limit on failed attempts.
//!
//! In: a new connection. Out: an encrypted channel and the identity of the caller, or an event
//! about the refusal.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::message::{Role, cut_text};
use proto::name::{InvalidName, SERIAL_PREFIX};
use proto::report::Event;
use secure::PublicKey;
use secure::access::{Access, AccessError, Entry};
use secure::handshake::{Accepted, Channel, HandshakeError, accept};
use secure::identity::Identity;
use secure::pairing::{Code, Moment, Ticket, Tickets};

use super::places::party;
use crate::error_text::one_line;
use crate::report::queue::Reporter;

/// Longest duration of a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Failed handshakes that an address may make in a burst.
const FAILURE_BURST: f64 = 10.0;
/// Failed handshakes allowed per second after the burst.
const FAILURES_PER_S: f64 = 0.2;
/// Wrong codes that an address may try of each pairing code. Others may still use the code.
const WRONG_CODES_PER_ADDRESS: u32 = 5;
/// Most addresses remembered. One more evicts the address with the fewest failures.
const MAX_ADDRESSES: usize = 256;
/// Shortest interval between two reports of refusals.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long a pairing code is valid.
pub const CODE_VALID: Duration = Duration::from_secs(600);

/// The camera's private key, in the state folder.
pub const KEY_FILE: &str = "link.key";
/// The access list, in the state folder; see [`secure::access`].
pub const ACCESS_FILE: &str = "stations";
/// The pairing code, in the state folder; see [`secure::pairing`].
pub const TICKET_FILE: &str = "pairing";

/// The station at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name on the access list. `None` on a serial line, which has no keys: the station's own
    /// name is used there, with a prefix.
    pub name: Option<String>,
    /// What it may do.
    pub role: Role,
    /// Its public key; `None` on a serial line.
    pub key: Option<PublicKey>,
}

/// Why a station was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The station is not on the access list.
    #[error("the station's key {} is not on this camera's access list: pair it", secure::key_id(.0))]
    UnknownStation(PublicKey),
    /// The access list cannot be read or changed.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The station's address has tried too many wrong codes.
    #[error(
        "{WRONG_CODES_PER_ADDRESS} wrong codes came from this address: pair from another one, or \
         ask for another code"
    )]
    WrongCodes,
    /// The pairing code cannot be read or changed.
    #[error("the pairing code cannot be used")]
    Code(#[source] io::Error),
}

/// Token bucket of an address.
#[derive(Debug)]
struct Bucket {
    /// Failures that are still allowed.
    left: f64,
    updated_at: Instant,
}

/// Wrong codes by address, for one pairing code. Bounded by the number that a code allows.
#[derive(Debug, Default)]
struct WrongCodes {
    /// Key of the code that they were tried for.
    key: [u8; 32],
    by_address: HashMap<IpAddr, u32>,
}

/// Refusals that have not been reported yet.
#[derive(Debug, Default)]
struct Unreported {
    count: u32,
    reported_at: Option<Instant>,
}

/// Decides which stations may connect over TCP.
#[derive(Debug)]
pub struct AccessControl {
    identity: Identity,
    access: Access,
    tickets: Tickets,
    reporter: Reporter,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
    wrong_codes: Mutex<WrongCodes>,
    unreported: Mutex<Unreported>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AccessControl {
    /// Uses the camera's key, and the access list and pairing code in its state folder.
    pub fn new(state: &Path, identity: Identity, reporter: Reporter) -> Self {
        Self {
            identity,
            access: Access::at(&state.join(ACCESS_FILE)),
            tickets: Tickets::at(&state.join(TICKET_FILE)),
            reporter,
            buckets: Mutex::default(),
            wrong_codes: Mutex::default(),
            unreported: Mutex::default(),
        }
    }

    /// The camera's public key.
    pub fn key(&self) -> &PublicKey {
        self.identity.public()
    }

    /// The access list.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether the rate limit allows another attempt from this address.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let address = party(address);
        let mut buckets = lock(&self.buckets);
        let Some(bucket) = buckets.get_mut(&address) else {
            return true;
        };
        let gained = bucket.updated_at.elapsed().as_secs_f64() * FAILURES_PER_S;
        bucket.left = (bucket.left + gained).min(FAILURE_BURST);
        bucket.updated_at = Instant::now();
        if bucket.left >= FAILURE_BURST {
            buckets.remove(&address);
            return true;
        }
        bucket.left >= 1.0
    }

    fn count_failure(&self, address: IpAddr) {
        let address = party(address);
        let mut buckets = lock(&self.buckets);
        if !buckets.contains_key(&address) && buckets.len() >= MAX_ADDRESSES {
            let fewest = buckets
                .iter()
                .max_by(|one, other| one.1.left.total_cmp(&other.1.left))
                .map(|(address, _)| *address);
            fewest.map(|address| buckets.remove(&address));
        }
        let bucket = buckets.entry(address).or_insert(Bucket {
            left: FAILURE_BURST,
            updated_at: Instant::now(),
        });
        bucket.left = (bucket.left - 1.0).max(0.0);
    }

    /// Runs the handshake and checks the access list. If a station is refused after the handshake,
    /// the channel is returned too, so that the station can be sent the reason.
    pub(super) fn authenticate(
        &self,
        stream: &mut TcpStream,
        address: IpAddr,
    ) -> (Option<Channel>, Result<Caller, Refusal>) {
        let deadline = Instant::now() + HANDSHAKE_WITHIN;
        let mut key = None;
        let mut too_many = false;
        let code = || {
            let ticket = self.ticket()?;
            too_many = self.wrong_codes_of(address, &ticket.key) >= WRONG_CODES_PER_ADDRESS;
            key = (!too_many).then_some(ticket.key);
            key
        };
        let accepted = accept(stream, &self.identity, code, deadline);
        let (channel, caller) = match accepted {
            Ok(accepted) => {
                let caller = self.identify(&accepted, key);
                (Some(accepted.channel), caller)
            }
            Err(HandshakeError::NoCode) if too_many => (None, Err(Refusal::WrongCodes)),
            Err(error) => (None, Err(error.into())),
        };
        if let Err(refusal) = &caller {
            match (refusal, key) {
                // A connection that breaks is not an attack.
                (Refusal::Handshake(HandshakeError::Io(_)), _) => {}
                (Refusal::Handshake(HandshakeError::WrongCode), Some(key)) => {
                    self.count_failure(address);
                    self.count_wrong_code(address, &key);
                }
                _ => {
                    self.count_failure(address);
                    self.report_refusal(&address.to_string(), &one_line(refusal));
                }
            }
        }
        (channel, caller)
    }

    /// The pairing code in force.
    fn ticket(&self) -> Option<Ticket> {
        let ticket = Moment::now().and_then(|now| self.tickets.current(&now));
        ticket.unwrap_or_else(|error| {
            tracing::error!(%error, "pairing code");
            None
        })
    }

    /// How many wrong codes an address has tried of the code with this key.
    fn wrong_codes_of(&self, address: IpAddr, key: &[u8; 32]) -> u32 {
        let wrong = lock(&self.wrong_codes);
        let count = wrong.by_address.get(&party(address)).copied();
        count.filter(|_| wrong.key == *key).unwrap_or(0)
    }

    /// Counts a wrong code and reports it. Each is reported, because there are few: a code allows a
    /// limited number.
    fn count_wrong_code(&self, address: IpAddr, key: &[u8; 32]) {
        {
            let mut wrong = lock(&self.wrong_codes);
            if wrong.key != *key {
                *wrong = WrongCodes {
                    key: *key,
                    by_address: HashMap::new(),
                };
            }
            *wrong.by_address.entry(party(address)).or_default() += 1;
        }
        let counted = Moment::now().and_then(|now| self.tickets.count_wrong(key, &now));
        let reason = match counted {
            Ok(Some(0)) => "wrong pairing code, the last one allowed: the code is withdrawn".into(),
            Ok(Some(left)) => format!("wrong pairing code; the code in force allows {left} more"),
            Ok(None) => "wrong pairing code; the code is no longer in force".to_owned(),
            Err(error) => format!("wrong pairing code, which cannot be counted: {error}"),
        };
        tracing::warn!(peer = %address, reason, "link refused");
        self.reporter.event(Event::LinkRefused {
            peer: address.to_string(),
            reason,
            count: 1,
        });
    }

    /// Pairs the station if it used the pairing code with the key `code`, and looks the station's own
    /// key up on the access list.
    fn identify(&self, accepted: &Accepted, code: Option<[u8; 32]>) -> Result<Caller, Refusal> {
        let key = accepted.channel.remote;
        if let (Some(name), Some(code)) = (&accepted.pairs_as, code) {
            self.pair(&key, name, &code)?;
        }
        let entry = self
            .access
            .find(&key)?
            .ok_or(Refusal::UnknownStation(key))?;
        // A list that was edited by hand could give a station the position of one on a serial line.
        if entry.name.starts_with(SERIAL_PREFIX) {
            return Err(AccessError::Name(InvalidName::Reserved).into());
        }
        Ok(Caller {
            name: Some(entry.name),
            role: entry.role,
            key: Some(key),
        })
    }

    /// Enters a station into the access list that has proved that it knows the code, unless another
    /// one has used it first.
    fn pair(&self, key: &PublicKey, name: &str, code: &[u8; 32]) -> Result<(), Refusal> {
        let now = Moment::now().map_err(Refusal::Code)?;
        let admit = |role| {
            let entry = Entry {
                key: *key,
                role,
                name: name.to_owned(),
            };
            self.access.admit(entry).map(|()| role)
        };
        let role = self
            .tickets
            .redeem(code, &now, admit)
            .map_err(Refusal::Code)?
            .ok_or(HandshakeError::NoCode)??;
        tracing::info!(station = name, %role, key = secure::key_id(key), "station paired");
        self.reporter.event(Event::StationPaired {
            station: cut_text(name),
            role,
            key_id: secure::short_id(key),
        });
        Ok(())
    }

    /// Whether the access list still holds the caller with the same role. A list that cannot be read
    /// admits nobody: it may have been changed to revoke this caller.
    pub(super) fn still_admits(&self, caller: &Caller) -> bool {
        let Some(key) = &caller.key else { return true };
        match self.access.find(key) {
            Ok(entry) => entry.is_some_and(|entry| entry.role == caller.role),
            Err(error) => {
                tracing::error!(error = one_line(&error), "nobody has access");
                false
            }
        }
    }

    /// Issues a pairing code.
    pub(super) fn open_pairing(&self, role: Role) -> io::Result<Code> {
        issue_code(&self.tickets, role)
    }

    /// Removes stations from the access list and returns their number.
    pub(super) fn revoke(
        &self,
        station: &str,
        reason: &str,
        by: &str,
    ) -> Result<usize, AccessError> {
        let revoked = self.access.revoke(station)?;
        for entry in &revoked {
            tracing::info!(station = entry.name, reason, by, "station revoked");
            self.reporter.event(Event::StationRevoked {
                station: cut_text(&entry.name),
                reason: cut_text(reason),
                by: cut_text(by),
            });
        }
        Ok(revoked.len())
    }

    /// Reports a refusal. Reports are rate-limited and carry a count, so that nobody can fill the
    /// journal from outside.
    pub(super) fn report_refusal(&self, peer: &str, reason: &str) {
        tracing::debug!(peer, reason, "link refused");
        let mut unreported = lock(&self.unreported);
        unreported.count = unreported.count.saturating_add(1);
        let too_soon = |at: Instant| at.elapsed() < REPORT_EVERY;
        if unreported.reported_at.is_some_and(too_soon) {
            return;
        }
        unreported.reported_at = Some(Instant::now());
        let count = std::mem::take(&mut unreported.count);
        tracing::warn!(peer, reason, count, "link refused");
        self.reporter.event(Event::LinkRefused {
            peer: cut_text(peer),
            reason: cut_text(reason),
            count,
        });
    }
}

/// Issues a pairing code from the system's random number generator.
pub fn issue_code(tickets: &Tickets, role: Role) -> io::Result<Code> {
    let mut bytes = [0; 12];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let code = Code::from_random(bytes);
    tickets.issue(&code, role, &Moment::now()?, CODE_VALID)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;
    use crate::report::queue::channel;

    fn access_control(state: &Path) -> AccessControl {
        let metrics = Arc::new(Metrics::new("under test", Arc::default()));
        let (reporter, _) = channel(false, metrics);
        AccessControl::new(state, Identity::generate().unwrap(), reporter)
    }

    #[test]
    fn an_access_list_that_cannot_be_read_admits_nobody() {
        let state = tempfile::tempdir().unwrap();
        let control = access_control(state.path());
        let entry = Entry {
            key: [1; 32],
            role: Role::Watch,
            name: "office".to_owned(),
        };
        control.access().admit(entry).unwrap();
        let caller = Caller {
            name: Some("office".to_owned()),
            role: Role::Watch,
            key: Some([1; 32]),
        };
        assert!(control.still_admits(&caller));
        let list = state.path().join(ACCESS_FILE);
        let whole = std::fs::read(&list).unwrap();
        let mode = std::fs::metadata(&list).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A folder can be opened but not read, like a file with a bad sector.
        std::fs::remove_file(&list).unwrap();
        std::fs::create_dir(&list).unwrap();
        assert!(!control.still_admits(&caller), "a read error");
        std::fs::remove_dir(&list).unwrap();
        assert!(!control.still_admits(&caller), "no list");
        std::fs::write(&list, [&whole[..], b"damaged\n"].concat()).unwrap();
        assert!(!control.still_admits(&caller), "a damaged list");
        std::fs::write(&list, whole).unwrap();
        assert!(control.still_admits(&caller));
    }

    #[test]
    fn an_address_that_tries_wrong_codes_uses_up_its_own_attempts_only() {
        let state = tempfile::tempdir().unwrap();
        let control = access_control(state.path());
        let key = control.open_pairing(Role::Watch).unwrap().key();
        let (bad, good): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let left = || control.ticket().map(|ticket| ticket.tries_left).unwrap();
        let all = left();
        for _ in 0..WRONG_CODES_PER_ADDRESS {
            control.count_wrong_code(bad, &key);
        }
        assert_eq!(control.wrong_codes_of(bad, &key), WRONG_CODES_PER_ADDRESS);
        assert_eq!(control.wrong_codes_of(good, &key), 0);
        assert_eq!(left(), all - WRONG_CODES_PER_ADDRESS);
        assert!(all >= 10 * WRONG_CODES_PER_ADDRESS, "one is far from it");
        // Another code, another chance.
        let other = control.open_pairing(Role::Watch).unwrap().key();
        assert_eq!(control.wrong_codes_of(bad, &other), 0);
    }
}
