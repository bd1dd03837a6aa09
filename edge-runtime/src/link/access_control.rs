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
use proto::report::Event;
use secure::PublicKey;
use secure::access::{Access, AccessError, Entry};
use secure::handshake::{Accepted, Channel, HandshakeError, accept};
use secure::identity::Identity;
use secure::pairing::{Code, Tickets};

use crate::clock::unix_ms;
use crate::error_text::one_line;
use crate::report::queue::Reporter;

/// Longest duration of a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Failed handshakes that an address may make in a burst.
const FAILURE_BURST: f64 = 10.0;
/// Failed handshakes allowed per second after the burst.
const FAILURES_PER_S: f64 = 0.2;
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
    /// name is used there.
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
}

/// Token bucket of an address.
#[derive(Debug)]
struct Bucket {
    /// Failures that are still allowed.
    left: f64,
    updated_at: Instant,
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
        let mut role = None;
        let code = || {
            let ticket = self.tickets.take_try(unix_ms() / 1_000);
            let ticket = ticket.unwrap_or_else(|error| {
                tracing::error!(%error, "pairing code");
                None
            })?;
            role = Some(ticket.role);
            Some(ticket.key)
        };
        let accepted = accept(stream, &self.identity, code, deadline);
        let (channel, caller) = match accepted {
            Ok(accepted) => {
                let caller = self.identify(&accepted, role);
                (Some(accepted.channel), caller)
            }
            Err(error) => (None, Err(error.into())),
        };
        if let Err(refusal) = &caller {
            // A connection that breaks is not an attack.
            let broken = matches!(refusal, Refusal::Handshake(HandshakeError::Io(_)));
            if !broken {
                self.count_failure(address);
                self.report_refusal(&address.to_string(), &one_line(refusal));
            }
        }
        (channel, caller)
    }

    /// Pairs the station if it used a pairing code, and looks its key up on the access list.
    fn identify(&self, accepted: &Accepted, role: Option<Role>) -> Result<Caller, Refusal> {
        let key = accepted.channel.remote;
        if let (Some(name), Some(role)) = (&accepted.pairs_as, role) {
            let entry = Entry {
                key,
                role,
                name: name.clone(),
            };
            self.access.admit(entry)?;
            if let Err(error) = self.tickets.clear() {
                tracing::error!(%error, "the pairing code cannot be deleted");
            }
            tracing::info!(station = name, %role, key = secure::key_id(&key), "station paired");
            self.reporter.event(Event::StationPaired {
                station: cut_text(name),
                role,
                key_id: secure::short_id(&key),
            });
        }
        let entry = self
            .access
            .find(&key)?
            .ok_or(Refusal::UnknownStation(key))?;
        Ok(Caller {
            name: Some(entry.name),
            role: entry.role,
            key: Some(key),
        })
    }

    /// Whether the access list still holds the caller with the same role.
    pub(super) fn still_admits(&self, caller: &Caller) -> bool {
        let Some(key) = &caller.key else { return true };
        match self.access.find(key) {
            Ok(Some(entry)) => entry.role == caller.role,
            Ok(None) => false,
            // The list may be being edited. Open sessions continue; new ones are refused until it
            // can be read.
            Err(_) => true,
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
    tickets.issue(&code, role, unix_ms() / 1_000, CODE_VALID)?;
    Ok(code)
}
