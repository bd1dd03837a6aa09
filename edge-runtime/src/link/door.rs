//! Who comes in over TCP: handshake, access list, pairing, and limits on those who try.
//!
//! In: a fresh connection. Out: an encrypted channel and whose it is, or an event that says who was refused.

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
use crate::reporting::{Reporter, one_line};

/// A handshake takes at most so long.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// So many failures in a row an address has,
const FAILURES: f64 = 10.0;
/// and so many more a second.
const FAILURES_PER_S: f64 = 0.2;
/// Addresses that are remembered; with more, the one that failed least is forgotten.
const MAX_ADDRESSES: usize = 256;
/// Refusals are told at most so often.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// A pairing code is good for so long.
pub const CODE_VALID: Duration = Duration::from_secs(600);

/// Files below the state folder.
pub const KEY_FILE: &str = "link.key";
/// See [`secure::access`].
pub const ACCESS_FILE: &str = "stations";
/// See [`secure::pairing`].
pub const TICKET_FILE: &str = "pairing";

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name under which it was let in; `None` where there are no keys (serial), and its own word counts.
    pub name: Option<String>,
    /// What it may do.
    pub role: Role,
    /// Its key, where there are keys.
    pub key: Option<PublicKey>,
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No session came about.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It is nobody whom the camera knows.
    #[error("the station's key {} is not on this camera's access list: pair it", secure::key_id(.0))]
    Stranger(PublicKey),
    /// The access list cannot be used, or not be changed.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// Failures that an address still has.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Refusals that were not told yet.
#[derive(Debug, Default)]
struct Untold {
    count: u32,
    told: Option<Instant>,
}

/// Lets stations in, or not.
#[derive(Debug)]
pub struct Door {
    identity: Identity,
    access: Access,
    tickets: Tickets,
    reporter: Reporter,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
    untold: Mutex<Untold>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    /// With the camera's key and lists below its state folder.
    pub fn new(state: &Path, identity: Identity, reporter: Reporter) -> Self {
        Self {
            identity,
            access: Access::at(&state.join(ACCESS_FILE)),
            tickets: Tickets::at(&state.join(TICKET_FILE)),
            reporter,
            buckets: Mutex::default(),
            untold: Mutex::default(),
        }
    }

    /// The camera's public key.
    pub fn key(&self) -> &PublicKey {
        self.identity.public()
    }

    /// Who may come in.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether an address has not failed too often.
    pub(super) fn hears(&self, address: IpAddr) -> bool {
        let mut buckets = lock(&self.buckets);
        let Some(bucket) = buckets.get_mut(&address) else {
            return true;
        };
        let gained = bucket.at.elapsed().as_secs_f64() * FAILURES_PER_S;
        bucket.left = (bucket.left + gained).min(FAILURES);
        bucket.at = Instant::now();
        if bucket.left >= FAILURES {
            buckets.remove(&address);
            return true;
        }
        bucket.left >= 1.0
    }

    fn failed(&self, address: IpAddr) {
        let mut buckets = lock(&self.buckets);
        if !buckets.contains_key(&address) && buckets.len() >= MAX_ADDRESSES {
            let least = buckets
                .iter()
                .max_by(|one, other| one.1.left.total_cmp(&other.1.left))
                .map(|(address, _)| *address);
            least.map(|address| buckets.remove(&address));
        }
        let bucket = buckets.entry(address).or_insert(Bucket {
            left: FAILURES,
            at: Instant::now(),
        });
        bucket.left = (bucket.left - 1.0).max(0.0);
    }

    /// Handshake and access list. A station that is refused after the handshake gets the channel, to be told why.
    pub(super) fn enter(
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
                let caller = self.recognise(&accepted, role);
                (Some(accepted.channel), caller)
            }
            Err(error) => (None, Err(error.into())),
        };
        if let Err(refusal) = &caller {
            // A link that breaks is no attempt on the camera.
            let harmless = matches!(refusal, Refusal::Handshake(HandshakeError::Io(_)));
            if !harmless {
                self.failed(address);
                self.refused(&address.to_string(), &one_line(refusal));
            }
        }
        (channel, caller)
    }

    fn recognise(&self, accepted: &Accepted, role: Option<Role>) -> Result<Caller, Refusal> {
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
        let entry = self.access.find(&key)?.ok_or(Refusal::Stranger(key))?;
        Ok(Caller {
            name: Some(entry.name),
            role: entry.role,
            key: Some(key),
        })
    }

    /// Whether a caller is still welcome as it is.
    pub(super) fn still_admits(&self, caller: &Caller) -> bool {
        let Some(key) = &caller.key else { return true };
        match self.access.find(key) {
            Ok(Some(entry)) => entry.role == caller.role,
            Ok(None) => false,
            // Somebody is at the file. New sessions are refused until it can be understood.
            Err(_) => true,
        }
    }

    /// Gives out a pairing code.
    pub(super) fn open_pairing(&self, role: Role) -> io::Result<Code> {
        issue_code(&self.tickets, role)
    }

    /// Keeps stations out; how many that were.
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

    /// Somebody was refused. Told once in a while, with how often, so that nobody can fill the journal from outside.
    pub(super) fn refused(&self, peer: &str, reason: &str) {
        tracing::debug!(peer, reason, "link refused");
        let mut untold = lock(&self.untold);
        untold.count = untold.count.saturating_add(1);
        if untold.told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        untold.told = Some(Instant::now());
        let count = std::mem::take(&mut untold.count);
        tracing::warn!(peer, reason, count, "link refused");
        self.reporter.event(Event::LinkRefused {
            peer: cut_text(peer),
            reason: cut_text(reason),
            count,
        });
    }
}

/// Gives out a code from the system's random numbers.
pub fn issue_code(tickets: &Tickets, role: Role) -> io::Result<Code> {
    let mut bytes = [0; 12];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let code = Code::from_random(bytes);
    tickets.issue(&code, role, unix_ms() / 1_000, CODE_VALID)?;
    Ok(code)
}
